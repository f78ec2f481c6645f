"""What each run did, one small JSON file a run: `<store>/runs/<flow run id>.json`.

It is there from the first moment of a run and says after each stage how far it came, so that a run that was killed has
told what it reached; and it outlives the Prefect server's database. Whoever looks back needs nothing but the store.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from prosemill.storage import remote
from prosemill.storage.manifest import Manifest
from prosemill.storage.remote import store_errors
from prosemill.storage.store import Store

RUNNING, COMPLETED = "RUNNING", "COMPLETED"
HIT, MISS = "hit", "miss"
MAKERS = ("retrain", "build-corpus", "train-model")  # the flows that make snapshots; others look after what there is
SNAPSHOT = re.compile(r"(?P<stage>[a-z]+(?:-[a-z]+)*)-[0-9a-f]{16}")


@dataclass(frozen=True)
class StageRecord:
    """What one stage came to: a miss was made by this run, a hit had been made before."""

    stage: str
    snapshot: str
    cache: str  # hit | miss
    seconds: float  # of making it, or of finding it


@dataclass(frozen=True)
class RunLog:
    """One run of one flow. `parent` and `children` are flow run ids: a run of retrain has its children's stages."""

    id: str
    flow: str
    name: str  # of the flow run
    recipe: str
    as_of: str
    started: str  # ISO 8601, UTC
    ended: str = ""
    state: str = RUNNING  # Prefect's type of the last state that was seen
    reason: str = ""  # why it ended so: the error in one line, or the verdict's reason
    verdict: str = ""
    model: str = ""
    parent: str = ""
    children: tuple[str, ...] = ()
    stages: tuple[StageRecord, ...] = ()

    @property
    def title(self) -> str:
        """ "retrain stories 2026-01-05" """
        return f"{self.flow} {self.name}"

    @classmethod
    def of(cls, fields: dict[str, Any]) -> RunLog:
        stages = tuple(StageRecord(**each) for each in fields.pop("stages", ()))
        return cls(**{**fields, "children": tuple(fields.get("children", ())), "stages": stages})


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def begin(store: Store, run: RunLog) -> None:
    """Start the log of a run, and name it to the run that started it. A run that begins again goes on with its log."""
    known = read(store, run.id)
    _write(store, replace(known, state=RUNNING, ended="", reason="") if known else run)
    parent = read(store, run.parent) if run.parent else None
    if parent and run.id not in parent.children:
        _write(store, replace(parent, children=(*parent.children, run.id)))


def add(store: Store, id: str, stage: str, snapshots: Iterable[str], seconds: float) -> list[StageRecord]:
    """Note what a stage came to after `seconds` of waiting; the rows that were added, one for each snapshot."""
    known = read(store, id)
    if known is None:
        return []
    found = [_stage_record(store, id, stage, snapshot, seconds) for snapshot in snapshots]
    old = {each.snapshot: each for each in known.stages}  # of this run before it was suspended or killed
    new = tuple(old.get(each.snapshot, each) if each.cache == MISS else each for each in found)
    names = {each.snapshot for each in new}
    _write(store, replace(known, stages=(*(each for each in known.stages if each.snapshot not in names), *new)))
    return list(new)


def end(store: Store, id: str, **changes: str) -> RunLog | None:
    """Set state, reason, verdict, model …; a run without stages of its own takes over those of its children."""
    known = read(store, id)
    if known is None:
        return None
    ended = replace(known, **changes, stages=tuple(stages_of(store, known)))  # type: ignore[arg-type]
    _write(store, ended)
    return ended


def read(store: Store, id: str) -> RunLog | None:
    with store_errors(store.url), contextlib.suppress(FileNotFoundError):
        return RunLog.of(json.loads(store.fs.cat_file(_path(store, id))))
    return None


def read_all(store: Store, recipe: str = "") -> list[RunLog]:
    """The logs of all runs (of one recipe), newest first."""
    with store_errors(store.url), contextlib.suppress(FileNotFoundError):
        paths = [str(path) for path in store.fs.ls(f"{store.root}/runs", detail=False)]
        texts = store.fs.cat([path for path in paths if path.endswith(".json")], on_error="omit") if paths else {}
        found = [RunLog.of(json.loads(text)) for text in texts.values()]
        return sorted((each for each in found if recipe in ("", each.recipe)), key=lambda each: each.started)[::-1]
    return []


def stages_of(store: Store, run: RunLog) -> Sequence[StageRecord]:
    """The stages of a run and of the runs that it started, in order, each snapshot once."""
    rows = {each.snapshot: each for each in run.stages}
    for child in run.children:
        started = read(store, child)
        rows |= {each.snapshot: each for each in stages_of(store, started)} if started else {}
    return list(rows.values())


def snapshots_in(results: Iterable[Any]) -> list[str]:
    """Those of the results of tasks that are ids of snapshots; batches of shards and model versions are not."""
    return [each for each in results if isinstance(each, str) and SNAPSHOT.fullmatch(each)]


def stage_of(snapshot: str) -> str:
    return snapshot.rpartition("-")[0]


def manifest_or_none(store: Store, snapshot: str) -> Manifest | None:
    """None for a snapshot that was deleted."""
    return store.manifest(snapshot) if store.has(snapshot) else None


def _stage_record(store: Store, id: str, stage: str, snapshot: str, seconds: float) -> StageRecord:
    manifest = manifest_or_none(store, snapshot)
    if manifest is not None and manifest.flow_run_id == id:
        return StageRecord(stage, snapshot, MISS, round(manifest.duration_seconds, 2))
    return StageRecord(stage, snapshot, HIT, round(seconds, 2))


def _path(store: Store, id: str) -> str:
    return f"{store.root}/runs/{id}.json"


def _write(store: Store, run: RunLog) -> None:
    """Readers see the old log or the new one."""
    text = json.dumps(asdict(run), indent=1, ensure_ascii=False).encode()
    path = _path(store, run.id)
    with store_errors(store.url, writing=True):
        if remote.is_bucket(store.fs):  # where an object is replaced at once, but a rename is two steps
            store.fs.pipe_file(path, text)
            return
        store.fs.makedirs(f"{store.root}/runs", exist_ok=True)
        store.fs.pipe_file(f"{path}.tmp", text)
        store.fs.mv(f"{path}.tmp", path)
