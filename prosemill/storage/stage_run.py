"""One run of a stage, and the observers that are called when it starts and when it ends.

Observers are named by text, "module:function", and imported with the first run. So the store
imports nothing above it, and each process that runs a stage (a worker's, a child, a test that calls the core alone) has
the same observers without registering one.
"""

from __future__ import annotations

import contextlib
import logging
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prosemill.errors import Stopped
from prosemill.storage import remote
from prosemill.storage.manifest import Manifest

log = logging.getLogger(__name__)

# An observer is called with the run before it starts, and gives what is called with START, and with COMPLETE, FAIL or
# ABORT and the error.
Tell = Callable[[str, BaseException | None], None]
OBSERVERS = ("prosemill.lineage.openlineage_events:observer",)


@dataclass
class StageRun:
    """One run of a stage. The code that runs it sets what it read and wrote."""

    url: str  # of the store
    root: str  # the store's path on `fs`
    fs: Any  # the store's file system (fsspec)
    stage: str
    snapshot: str = ""
    parents: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    as_of: str = ""
    flow_run_id: str = ""
    origins: list[str] = field(default_factory=list)  # URLs and folders that are read and are not snapshots
    manifest: Manifest | None = None
    columns: dict[str, pa.Schema] = field(default_factory=dict)  # by role
    model: tuple[str, int] | None = None  # name and version that were registered
    id: str = ""

    def wrote(self, manifest: Manifest, folder: Path) -> None:
        """Take note of a snapshot that is about to be committed from `folder`."""
        self.manifest = manifest
        for shard in manifest.shards:
            path = folder / shard.path.partition("/")[2]
            if shard.role not in self.columns and shard.path.startswith(f"{manifest.id}/") and path.exists():
                with contextlib.suppress(pa.ArrowInvalid):  # neither Parquet nor Arrow: it has no columns
                    self.columns[shard.role] = _schema(path)

    @property
    def is_local(self) -> bool:
        return remote.is_local(self.fs)

    @property
    def job(self) -> str:
        source = self.settings.get("source")
        return f"{self.stage}.{source['name']}" if isinstance(source, Mapping) and "name" in source else self.stage


@contextlib.contextmanager
def observed(run: StageRun, observers: Sequence[str] = OBSERVERS) -> Iterator[StageRun]:
    """Call the observers when a stage starts and when it ends."""
    tellers = [tell for name in observers if (tell := _teller(name, run))]

    def tell_all(state: str, error: BaseException | None = None) -> None:
        for tell in tellers:
            tell(state, error)

    tell_all("START")
    try:
        yield run
    except Exception as error:
        tell_all("ABORT" if isinstance(error, Stopped) else "FAIL", error)
        raise
    except BaseException as error:  # Ctrl-C, a cancelled run
        tell_all("ABORT", error)
        raise
    tell_all("COMPLETE")


def _teller(observer: str, run: StageRun) -> Tell | None:
    """What `observer` gives for this run; None, and a warning, where that fails."""
    try:
        return pkgutil.resolve_name(observer)(run)  # type: ignore[no-any-return]
    except Exception as problem:  # noqa: BLE001 - what observes a run must not end it
        log.warning(
            "%s is not told of %s: %s: %s", observer, run.snapshot or run.stage, type(problem).__name__, problem
        )
        return None


def _schema(path: Path) -> pa.Schema:
    if path.suffix == ".arrow":
        with pa.OSFile(str(path)) as file:
            return pa.ipc.open_stream(file).schema
    return pq.read_schema(path)
