"""The store: snapshots, manifests, schemas, files on disk and on remote storage."""
