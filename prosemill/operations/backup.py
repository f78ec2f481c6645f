"""Backup of what cannot be made again to a folder or URL, while runs go on; and restore from there.

    <backup>/snapshots/<id>/…        as in the store: never changes, so each is copied once
    <backup>/files/<sha256>          every other file of the store, dumps of the databases, artifacts of MLflow
    <backup>/points/<time>.json      one backup: which snapshots, and which file is where. Written last

Order matters: registry and records name snapshots, never the other way round, and snapshots are made before they are
named. So databases are saved first, then records, then snapshots: whatever is named is there. Bringing back goes the
other way round.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prosemill.errors import BackupError
from prosemill.operations.databases import Database
from prosemill.registry.registry import Registry
from prosemill.runtime.progress import track
from prosemill.storage import provenance
from prosemill.storage.disk import file_sha256
from prosemill.storage.folder import StorageLocation
from prosemill.storage.manifest import Manifest
from prosemill.storage.store import MANIFEST, Store
from prosemill.storage.times import moment

log = logging.getLogger(__name__)

# Made again by whoever needs it, or (mlflow.db, prefect/prefect.db) saved as a database.
LEFT_OUT = ("snapshots/", "tmp/", "unfinished/", "prefect/", "mlflow.db")
SNAPSHOT = re.compile(rb"\b[a-z]+-[0-9a-f]{16}\b")
ARTIFACTS, STORE, DATABASES = "artifacts", "store", "databases"


@dataclass(frozen=True)
class SavedFile:
    """A file of a point. `stamp` tells size and time (or ETag) of the original: the same stamp is not read again."""

    sha256: str
    stamp: str = ""


@dataclass(frozen=True)
class BackupPoint:
    """One backup."""

    name: str  # UTC, "2026-01-05T02-00-00Z"; sorts by time
    store: str
    snapshots: list[str]
    files: dict[str, SavedFile]  # "store/corpora/…", "databases/prefect", "artifacts/…"
    libraries: dict[str, str]
    missing: list[str] = field(default_factory=list)  # snapshots that records name and the store does not have
    copied: dict[str, int] = field(default_factory=dict)  # how much of it was new

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: bytes) -> BackupPoint:
        fields = json.loads(text)
        fields["files"] = {path: SavedFile(**saved) for path, saved in fields["files"].items()}
        return cls(**fields)


class Backup:
    """The backups at a folder or URL."""

    def __init__(self, url: str) -> None:
        self.place = StorageLocation(url)

    def points(self) -> list[str]:
        """Names of all backups here, oldest first."""
        names = (path.removeprefix("points/") for path in self.place.files("points"))
        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def point(self, name: str = "") -> BackupPoint:
        """The backup of that name; the newest without one."""
        known = self.points()
        if not known:
            raise BackupError(f"{self.place.url}: there is no backup here; `prosemill backup` makes one")
        if name and name not in known:
            raise BackupError(f"{self.place.url}: no backup {name}; there is {', '.join(known[-5:])}")
        return BackupPoint.from_json(self.place.read(f"points/{name or known[-1]}.json"))

    # --- saving ------------------------------------------------------------------------------------------------------

    def save(
        self, store: Store, registry: Registry | None, databases: Sequence[Database], artifacts: str
    ) -> BackupPoint:
        """Save the store, these databases and MLflow's artifacts (a folder or URL, "" where they are in the store).

        `registry` (None: not asked) names snapshots that must not be missing.
        """
        known = self.points()
        before = self.point().files if known else {}
        name = moment().replace(":", "-")
        with tempfile.TemporaryDirectory(prefix="prosemill-backup-") as folder:
            keeper = _ContentStore(self.place, Path(folder), before)
            for database in databases:
                if database.exists():
                    dump = Path(folder) / database.name
                    database.save(dump)
                    keeper.keep_file(f"{DATABASES}/{database.name}", dump)
            if registry:
                keeper.named |= named_by(registry)
            if artifacts:
                keeper.keep_all(ARTIFACTS, StorageLocation(artifacts))
            keeper.keep_all(STORE, StorageLocation(store.url), LEFT_OUT)
            snapshots = store.snapshots()
            have = set(self.snapshots())
            new = [snapshot for snapshot in snapshots if snapshot not in have]
            for snapshot in track("backup", new, len(new)):
                self._save_snapshot(store, snapshot)
        missing = sorted(keeper.named - set(snapshots))
        copied = {"snapshots": len(new), "files": keeper.num_new}
        point = BackupPoint(
            name, store.url, snapshots, keeper.files, dict(provenance.library_versions()), missing, copied
        )
        self.place.write(f"points/{name}.json", point.to_json().encode())
        return point

    def snapshots(self) -> list[str]:
        """Ids of the snapshots that are here as a whole."""
        return sorted(path.split("/")[1] for path in self.place.files("snapshots") if path.endswith(f"/{MANIFEST}"))

    def _save_snapshot(self, store: Store, snapshot: str) -> None:
        source = StorageLocation(f"{store.url}/snapshots/{snapshot}")
        with tempfile.TemporaryDirectory(prefix="prosemill-backup-") as folder:
            _copy_snapshot(source, StorageLocation(f"{self.place.url}/snapshots/{snapshot}"), Path(folder))

    # --- checking ----------------------------------------------------------------------------------------------------

    def verify(self, point: BackupPoint) -> int:
        """Read everything of a backup again; how many files. BackupError names the first that is not as it was."""
        checked = 0
        with tempfile.TemporaryDirectory(prefix="prosemill-verify-") as folder:
            for snapshot in track("verify", point.snapshots, len(point.snapshots)):
                checked += _verified(StorageLocation(f"{self.place.url}/snapshots/{snapshot}"), Path(folder))
            for path, saved in point.files.items():
                if not self.place.has(f"files/{saved.sha256}"):
                    raise BackupError(f"{self.place.url}: files/{saved.sha256} ({path}) is missing; make a new backup")
                if file_sha256(self.place.fetch(f"files/{saved.sha256}", Path(folder) / "file")) != saved.sha256:
                    raise BackupError(f"{self.place.url}: files/{saved.sha256} ({path}) is damaged; make a new backup")
                checked += 1
        return checked

    # --- bringing back -----------------------------------------------------------------------------------------------

    def restore(
        self,
        point: BackupPoint,
        store: Store,
        databases: Sequence[Database],
        artifacts: str,
        *,
        overwrite: bool = False,
    ) -> None:
        """Bring back a backup: snapshots, then records, then databases. What is there already is refused, or replaced.

        Servers of these databases have to be stopped.
        """
        if not overwrite:
            _refuse_what_is_there(store, databases)
        store.check_writable()
        have = set(store.snapshots())
        with tempfile.TemporaryDirectory(prefix="prosemill-restore-") as folder:
            wanted = [snapshot for snapshot in point.snapshots if snapshot not in have]
            for snapshot in track("restore", wanted, len(wanted)):
                source = StorageLocation(f"{self.place.url}/snapshots/{snapshot}")
                _copy_snapshot(source, StorageLocation(f"{store.url}/snapshots/{snapshot}"), Path(folder))
            places = {STORE: StorageLocation(store.url), ARTIFACTS: StorageLocation(artifacts) if artifacts else None}
            for path, saved in point.files.items():
                part, _, name = path.partition("/")
                if place := places.get(part):
                    place.put(self._checked(path, saved, Path(folder)), name)
            for database in databases:
                path = f"{DATABASES}/{database.name}"
                if path in point.files:
                    database.bring_back(self._checked(path, point.files[path], Path(folder)))

    def _checked(self, path: str, saved: SavedFile, folder: Path) -> Path:
        file = self.place.fetch(f"files/{saved.sha256}", folder / "file")
        if file_sha256(file) != saved.sha256:
            raise BackupError(f"{self.place.url}: files/{saved.sha256} ({path}) is damaged; choose another --point")
        return file


class _ContentStore:
    """Puts files into files/, each content once."""

    def __init__(self, place: StorageLocation, folder: Path, before: dict[str, SavedFile]) -> None:
        self.place, self.folder, self.before = place, folder, before
        self.files: dict[str, SavedFile] = {}
        self.named: set[str] = set()  # snapshots that the records name
        self.num_new = 0
        self._here = {path.removeprefix("files/") for path in place.files("files")}

    def keep_all(self, part: str, source: StorageLocation, left_out: Sequence[str] = ()) -> None:
        for path, stamp in sorted(source.stamps(left_out).items()):
            known = self.before.get(f"{part}/{path}")
            if known and known.stamp == stamp and known.sha256 in self._here and not path.startswith("corpora/"):
                self.files[f"{part}/{path}"] = known
                continue
            try:
                file = source.fetch(path, self.folder / "file")
            except FileNotFoundError:  # written aside by a run, and renamed since
                log.info("%s: gone while it was being saved", path)
                continue
            if path.startswith("corpora/"):
                self.named |= {match.decode() for match in SNAPSHOT.findall(file.read_bytes())}
            self.keep_file(f"{part}/{path}", file, stamp)

    def keep_file(self, path: str, file: Path, stamp: str = "") -> None:
        sha256 = file_sha256(file)
        if sha256 not in self._here:
            self.place.put(file, f"files/{sha256}")
            self._here.add(sha256)
            self.num_new += 1
        self.files[path] = SavedFile(sha256, stamp)


def named_by(registry: Registry) -> set[str]:
    """The snapshots of all model versions."""
    versions = [version for name in registry.list_models() for version in registry.list_versions(name)]
    snapshots = {snapshot for version in versions for snapshot in (version.snapshot, version.evaluation, version.gate)}
    return snapshots - {""}


def _copy_snapshot(source: StorageLocation, target: StorageLocation, folder: Path) -> None:
    """File by file, each checked against the manifest, which comes last."""
    for path, file in _verified_files(source, folder):
        target.put(file, path)


def _verified(source: StorageLocation, folder: Path) -> int:
    return sum(1 for _ in _verified_files(source, folder))


def _verified_files(source: StorageLocation, folder: Path) -> Iterator[tuple[str, Path]]:
    """(path, a local copy) of every file of a snapshot, the manifest last; BackupError where one is not as listed."""
    try:
        manifest = Manifest.from_json(source.read(MANIFEST).decode())
        digests = {shard.path: shard.sha256 for shard in manifest.shards}
        own = f"{manifest.id}/"
        listed = {path.removeprefix(own) for path in digests if path.startswith(own)}
        for path in sorted(listed | (set(source.files()) - {MANIFEST})):
            file = source.fetch(path, folder / "file")
            if digests.get(own + path) not in (None, file_sha256(file)):
                raise BackupError(f"{source.url}/{path}: is damaged, its digest is not the manifest's")
            yield path, file
        yield MANIFEST, source.fetch(MANIFEST, folder / "file")
    except FileNotFoundError as error:
        raise BackupError(f"{source.url}: a file of this snapshot is missing ({error})") from error


def _refuse_what_is_there(store: Store, databases: Sequence[Database]) -> None:
    there = [f"the store {store.url}"] if store.snapshots() or store.corpora() else []
    there += [f"the database of {database.name}" for database in databases if database.exists()]
    if there:
        raise BackupError(
            f"{' and '.join(there)}: not empty; restore into empty ones, or --overwrite to replace what is there"
        )


def facts(point: BackupPoint) -> dict[str, Any]:
    """What a person wants to know of a backup."""
    return {
        "backup": point.name,
        "store": point.store,
        "snapshots": len(point.snapshots),
        "files": len(point.files),
        "databases": sorted(path.partition("/")[2] for path in point.files if path.startswith(f"{DATABASES}/")),
        "new_snapshots": point.copied.get("snapshots", 0),
        "new_files": point.copied.get("files", 0),
        "missing": point.missing,
    }
