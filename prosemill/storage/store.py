"""The store: immutable snapshots, written aside, given a manifest last, then renamed into place.

    <store>/snapshots/<stage>-<digest>/manifest.json   its existence means completeness
    <store>/unfinished/<stage>-<digest>/               what a long stage keeps between kills (checkpoints)
    <store>/tmp/                                       being written; swept when its writer is dead
    <store>/corpora/<name>/<as_of>.json                which snapshots a run ended with
    <store>/openlineage/<day>/<run>.<snapshot>.jsonl   events of each run of a stage (`lineage.openlineage_events`)

A local folder or any fsspec URL (`s3://…`). Programs that need real files (Scrapy, the Trainer, memory maps) always
read and write in a local folder: a remote store's cache (`storage.remote`), from which committing uploads, the
manifest last. unfinished/, tmp/ and locks are in that cache too.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from prosemill.errors import SnapshotMissing, StoreBusy, StoreError, StoreFull
from prosemill.storage import provenance, remote
from prosemill.storage.disk import (
    aside,
    disk_errors,
    file_sha256,
    free_bytes,
    in_use,
    remove_unused,
    share_like,
    sweep,
    sync,
    sync_path,
)
from prosemill.storage.manifest import Counts, Manifest, Shard
from prosemill.storage.remote import store_errors
from prosemill.storage.stage_run import StageRun, observed
from prosemill.storage.times import moment

MANIFEST = "manifest.json"
LEAST_FREE_BYTES = 32 << 20  # the databases of Prefect and MLflow, and the log of a server, before any page


@dataclass
class SnapshotWriter:
    """A folder to put files into. Nothing of it is seen until the `with` block ends without an exception."""

    id: str
    folder: Path
    shards: list[Shard] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    totals: dict[str, Any] = field(default_factory=dict)
    partial: bool = False
    origins: list[str] = field(default_factory=list)  # what is read and is not a snapshot, for its lineage: URLs, paths

    def path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add(self, name: str, role: str, rows: int) -> Shard:
        """List the file `name`, already written below `folder`, as a shard."""
        path = self.folder / name
        shard = Shard(f"{self.id}/{name}", role, rows, path.stat().st_size, file_sha256(path))
        self.shards.append(shard)
        return shard

    def inherit(self, shards: Sequence[Shard]) -> None:
        """List shards of earlier snapshots: part of this one without being copied."""
        self.shards.extend(shards)


class Store:
    """Snapshots by id, at a folder or fsspec URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fs, self.root = remote.open_filesystem(url)
        self.is_local = remote.is_local(self.fs)
        self.cache = remote.Cache(url)
        self.here = Path(self.root) if self.is_local else self.cache.folder  # what has to be on a disk of this machine

    # --- reading ---------------------------------------------------------------------------------------------------

    def has(self, snapshot: str) -> bool:
        with store_errors(self.url):
            return bool(self.fs.exists(self._at("snapshots", snapshot, MANIFEST)))

    def manifest(self, snapshot: str) -> Manifest:
        """The manifest of a complete snapshot; SnapshotMissing otherwise."""
        return Manifest.from_json(self.local(f"{snapshot}/{MANIFEST}").read_text(encoding="utf-8"))

    def require(self, *snapshots: str) -> None:
        for snapshot in snapshots:
            if not self.has(snapshot):
                raise SnapshotMissing(snapshot, self.url)

    def snapshots(self) -> list[str]:
        """Ids of all complete snapshots, sorted."""
        with contextlib.suppress(FileNotFoundError), store_errors(self.url):
            if self.is_local:
                names = [str(path).rsplit("/", 1)[-1] for path in self.fs.ls(self._at("snapshots"), detail=False)]
                return sorted(name for name in names if self.has(name))
            # One request for a thousand files, instead of one for each snapshot.
            paths = [str(path).split("/") for path in self.fs.find(self._at("snapshots"))]
            return sorted(path[-2] for path in paths if path[-1] == MANIFEST)
        return []

    def open(self, path: str) -> BinaryIO:
        """Read "<snapshot id>/<file>"."""
        return open(self.local(path), "rb")

    def local(self, path: str) -> Path:
        """A file (or whole snapshot) as a path on this machine; a remote one is fetched once and kept for a while."""
        if self.is_local:
            here = Path(self._at("snapshots", path))
            if not here.exists():
                raise SnapshotMissing(path.removesuffix(f"/{MANIFEST}"), self.url)
            return here
        try:
            with store_errors(self.url):
                return self.cache.get(self.fs, self._at("snapshots", path), path)
        except FileNotFoundError:
            raise SnapshotMissing(path.removesuffix(f"/{MANIFEST}"), self.url) from None

    # --- writing ---------------------------------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Raise StoreNotWritable or StoreFull now rather than after an hour of work."""
        probe = self._at("tmp", f"probe-{os.getpid()}-{time.monotonic_ns()}")
        not_there = (errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)
        with disk_errors(self.url, *not_there) if self.is_local else store_errors(self.url, writing=True):
            if not remote.is_bucket(self.fs):  # which would be made, were its name misspelt
                for part in ("snapshots", "tmp", "unfinished", "corpora"):
                    self.fs.makedirs(self._at(part), exist_ok=True)
            self.fs.pipe_file(probe, b"\0" * 65_536)
            self.fs.rm_file(probe)
        with disk_errors(str(self.here), *not_there):
            self.here.mkdir(parents=True, exist_ok=True)
        if (free := free_bytes(self.here)) < LEAST_FREE_BYTES:
            raise StoreFull(
                f"{self.here}: the disk of the store is full ({free >> 20} MB left, {LEAST_FREE_BYTES >> 20} needed to "
                "begin); free some space and run the same command again"
            )
        self._tidy()

    @contextlib.contextmanager
    def write(
        self,
        snapshot: str,
        *,
        stage: str,
        version: int,
        parents: Sequence[str],
        settings: Mapping[str, Any],
        as_of: str = "",
        flow_run_id: str = "",
    ) -> Iterator[SnapshotWriter]:
        """Write a snapshot aside and commit it when the block ends well; leave nothing when it does not."""
        started, cpu_started = time.monotonic(), _cpu_seconds()
        run = self.stage_run(stage, snapshot, parents, settings, as_of, flow_run_id)
        with observed(run), disk_errors(str(self.here)), aside(self.here / "tmp", snapshot) as folder:
            writer = SnapshotWriter(snapshot, folder, origins=run.origins)
            yield writer
            manifest = Manifest(
                id=snapshot,
                stage=stage,
                stage_version=version,
                parents=list(parents),
                settings=dict(settings),
                as_of=as_of,
                counts=writer.counts,
                totals=writer.totals,
                shards=writer.shards,
                partial=writer.partial,
                created_at=moment(),
                duration_seconds=round(time.monotonic() - started, 3),
                cpu_seconds=round(_cpu_seconds() - cpu_started, 3),
                code_commit=provenance.code_commit(),
                libraries=provenance.library_versions(),
                flow_run_id=flow_run_id,
            )
            run.wrote(manifest, folder)
            self._commit(manifest, folder)

    def stage_run(
        self,
        stage: str,
        snapshot: str = "",
        parents: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        as_of: str = "",
        flow_run_id: str = "",
    ) -> StageRun:
        """A run of a stage in this store, for `observed`."""
        return StageRun(self.url, self.root, self.fs, stage, snapshot, parents, settings or {}, as_of, flow_run_id)

    @contextlib.contextmanager
    def work_folder(self, snapshot: str) -> Iterator[Path]:
        """A local folder that outlives a kill, for checkpoints of the snapshot being made.

        It is not removed while the block lasts: another run may make the same snapshot, and end first. With a remote
        store it is in the cache of this machine: another machine finds it if it shares PROSEMILL_CACHE.
        """
        folder = self.here / "unfinished" / snapshot
        with contextlib.ExitStack() as stack:
            with disk_errors(str(self.here)):
                stack.enter_context(in_use(folder))
            yield folder

    def drop_work_folder(self, snapshot: str) -> None:
        """Remove it unless another run works there, which then removes it."""
        remove_unused(self.here / "unfinished" / snapshot, self.here / "tmp")

    # --- what a run ended with ---------------------------------------------------------------------------------------

    def record_run(self, corpus: str, as_of: str, record: Mapping[str, Any]) -> None:
        """Remember which snapshots the run of `as_of` ended with; readers see the old record or the new one."""
        path = self._at("corpora", corpus, f"{as_of}.json")
        text = json.dumps(dict(record), indent=1, sort_keys=True, ensure_ascii=False)
        with store_errors(self.url, writing=True):
            remote.write_whole(self.fs, path, text.encode())

    def runs(self, corpus: str) -> dict[str, dict[str, Any]]:
        """Records of all runs of a corpus by as_of, oldest first."""
        return self._records(self._run_paths(corpus))

    def _run_paths(self, corpus: str) -> dict[str, str]:
        """Where the record of each run is, by as_of, oldest first."""
        with contextlib.suppress(FileNotFoundError), store_errors(self.url):
            paths = sorted(str(path) for path in self.fs.ls(self._at("corpora", corpus), detail=False))
            return {path.rsplit("/", 1)[-1].removesuffix(".json"): path for path in paths if path.endswith(".json")}
        return {}

    def _records(self, paths: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        with store_errors(self.url):
            texts = self.fs.cat(list(paths.values())) if paths else {}  # all at once, which a remote store wants
        by_name = {str(path).rsplit("/", 1)[-1].removesuffix(".json"): text for path, text in texts.items()}
        return {as_of: json.loads(by_name[as_of]) for as_of in paths}

    def corpora(self) -> list[str]:
        """Names of all corpora that have been run, sorted."""
        with contextlib.suppress(FileNotFoundError), store_errors(self.url):
            return sorted(str(path).rsplit("/", 1)[-1] for path in self.fs.ls(self._at("corpora"), detail=False))
        return []

    def previous_run(self, corpus: str, as_of: str) -> dict[str, Any]:
        """The newest record older than `as_of`, or {}: so a re-run of last week finds the week before."""
        older = {date: path for date, path in self._run_paths(corpus).items() if date < as_of}
        newest = max(older, default="")
        return self._records({newest: older[newest]})[newest] if older else {}

    @contextlib.contextmanager
    def one_run_at_a_time(self, corpus: str) -> Iterator[None]:
        """Hold a corpus for one run; a second one on this machine gets StoreBusy. It is freed when its holder dies.

        Runs on several machines are kept apart by the deployment's concurrency limit. Should two run all the same, they
        commit snapshots of the same names with the same content and record the same versions, each of them once.
        """
        with disk_errors(str(self.here)):
            folder = self.here / "corpora" / corpus
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / "lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise StoreBusy(
                    f"{self.url}: another run of {corpus!r} is going on; wait for it, or stop it, and start again"
                ) from None
        try:
            yield
        finally:
            lock.release()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _at(self, *parts: str) -> str:
        return "/".join([self.root, *parts])

    def _tidy(self) -> None:
        """Remove what runs that were killed left: half-written snapshots, checkpoints of models that are finished."""
        sweep(self.here / "tmp")
        for work in self.here.glob("unfinished/*"):
            if self.has(work.name):
                self.drop_work_folder(work.name)
        if not self.is_local:
            self.cache.trim()

    def _commit(self, manifest: Manifest, folder: Path) -> None:
        if self.has(manifest.id):
            return  # somebody else made the same thing meanwhile
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        target = self._at("snapshots", manifest.id)
        if self.is_local:
            snapshots = Path(self._at("snapshots"))
            snapshots.mkdir(parents=True, exist_ok=True)
            share_like(snapshots, folder)
            sync(folder)
            self._move_into_place(folder, Path(target))
            sync_path(snapshots)
            return
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
        with store_errors(self.url, writing=True):
            if not remote.is_bucket(self.fs):
                for parent in {path.parent.relative_to(folder) for path in files}:
                    self.fs.makedirs(f"{target}/{parent.as_posix()}", exist_ok=True)
            self.fs.put([str(path) for path in files], [f"{target}/{path.relative_to(folder)}" for path in files])
            self.fs.put_file(str(folder / MANIFEST), f"{target}/{MANIFEST}")

    def _move_into_place(self, folder: Path, target: Path) -> None:
        try:
            os.rename(folder, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if not self.has(target.name):  # else somebody else made the same thing a moment ago
                raise StoreError(
                    f"{target}: is there, but not a complete snapshot (no {MANIFEST}); remove that folder and run the "
                    "same command again"
                ) from error


def _cpu_seconds() -> float:
    """Of this process and of the children it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
