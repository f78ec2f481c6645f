"""Reading the corpus: the keepers of one split, in a stable order."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

import pyarrow.parquet as pq

from prosemill.storage import Store

BATCH_ROWS = 1000  # documents held in memory at once: a few megabytes of text


def documents_of(
    store: Store, dedup: str, split: str, part: str, *, known_shards: Container[str] = ()
) -> Iterator[dict[str, Any]]:
    """Keepers of `dedup` that `split` gave to `part` (train, validation, test, excluded), in order of arrival.

    Rows as records.DOCUMENT. `known_shards`: paths of earlier snapshots' keepers and assignments, to be left out.
    """
    wanted = assignments_of(store, split, part, known_shards=known_shards)
    for shard in store.manifest(dedup).shards_of("keepers"):
        if wanted and shard.path not in known_shards:
            yield from _rows(store, shard.path, wanted)


def assignments_of(store: Store, split: str, part: str, *, known_shards: Container[str] = ()) -> set[str]:
    """Ids of the documents that `split` gave to `part`."""
    ids: set[str] = set()
    for shard in store.manifest(split).shards_of("assignments"):
        if shard.path not in known_shards:
            table = pq.read_table(store.local(shard.path), columns=["id", "split"])
            parts = table["split"].to_pylist()
            ids.update(id for id, of in zip(table["id"].to_pylist(), parts, strict=True) if of == part)
    return ids


def _rows(store: Store, shard: str, wanted: Container[str]) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(store.local(shard)) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            yield from (row for row in batch.to_pylist() if row["id"] in wanted)
