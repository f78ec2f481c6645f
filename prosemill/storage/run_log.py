"""What each run did, one small JSON file an event: `<store>/runs/<flow run id>/<time>-<random>.json`.

The first is there from the first moment of a run, and each stage adds one, so that a run that was killed has told how
far it came; and they outlive the Prefect server's database. Whoever looks back needs nothing but the store.

A run has several writers (its process, those of the runs that it started, the worker that reports its end), on several
machines, and an object store has no locks: so nobody rewrites what another wrote. Reading puts the events together, in
the order of their times. Earlier versions kept one file a run, `runs/<flow run id>.json`: it is read as a first event.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from prosemill.storage import remote
from prosemill.storage.decision_record import with_new_names
from prosemill.storage.manifest import Manifest, is_snapshot_id
from prosemill.storage.remote import store_errors
from prosemill.storage.store import Store

log = logging.getLogger(__name__)

RUNNING, COMPLETED = "RUNNING", "COMPLETED"
HIT, MISS = "hit", "miss"
MAKERS = ("retrain", "build-corpus", "train-model")  # the flows that make snapshots; others look after what there is
Event = dict[str, Any]  # begin: a RunLog; child: id; set: changed fields; stages: StageRecords


@dataclass(frozen=True)
class StageRecord:
    """One stage of a run: a miss was made by this run, a hit had been made before."""

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
    reason: str = ""  # why it ended so: the error in one line, or the decision's reason
    decision: str = ""
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
        fields = with_new_names(fields)
        stages = tuple(StageRecord(**stage) for stage in fields.pop("stages", ()))
        return cls(**{**fields, "children": tuple(fields.get("children", ())), "stages": stages})


def begin(store: Store, run: RunLog) -> None:
    """Start the log of a run, and name it to the run that started it. A run that begins again goes on with its log."""
    _write(store, run.id, {"begin": asdict(run)})
    parent = read(store, run.parent) if run.parent else None
    if parent and run.id not in parent.children:
        _write(store, parent.id, {"child": run.id})


def add(store: Store, id: str, stage: str, snapshots: Iterable[str], seconds: float) -> list[StageRecord]:
    """Note the snapshots of a stage after `seconds` of waiting; the rows that were added, one for each snapshot."""
    known = read(store, id)
    if known is None:
        return []
    rows = [_stage_record(store, id, stage, snapshot, seconds) for snapshot in snapshots]
    _write(store, id, {"stages": [asdict(row) for row in rows]})
    old = {row.snapshot: row for row in known.stages}
    return [_first_made(old, row) for row in rows]


def end(store: Store, id: str, **changes: str) -> RunLog | None:
    """Set state, reason, decision, model …; a run without stages of its own takes over those of its children."""
    known = read(store, id)
    if known is None:
        return None
    own = {row.snapshot for row in known.stages}
    event = {"set": changes, "stages": [asdict(row) for row in stages_of(store, known) if row.snapshot not in own]}
    _write(store, id, event)
    return _apply(known, event)


def read(store: Store, id: str) -> RunLog | None:
    """None for a run that nobody began, or whose first event is damaged."""
    paths = [f"{store.root}/runs/{id}.json"]
    with store_errors(store.url), contextlib.suppress(FileNotFoundError):
        paths += [str(path) for path in store.fs.ls(f"{store.root}/runs/{id}", detail=False)]
    return _put_together(_events(store, paths)[id])


def read_all(store: Store, recipe: str = "") -> list[RunLog]:
    """The logs of all runs (of one recipe), newest first."""
    with store_errors(store.url), contextlib.suppress(FileNotFoundError):
        paths = [str(path) for path in store.fs.find(f"{store.root}/runs")]
        logs = [run for events in _events(store, paths).values() if (run := _put_together(events))]
        return sorted((run for run in logs if recipe in ("", run.recipe)), key=lambda run: run.started)[::-1]
    return []


def stages_of(store: Store, run: RunLog) -> Sequence[StageRecord]:
    """The stages of a run and of the runs that it started, in order, each snapshot once."""
    rows = {stage.snapshot: stage for stage in run.stages}
    for child in run.children:
        started = read(store, child)
        rows |= {stage.snapshot: stage for stage in stages_of(store, started)} if started else {}
    return list(rows.values())


def snapshots_in(results: Iterable[Any]) -> list[str]:
    """Those of the results of tasks that are ids of snapshots; batches of shards and model versions are not."""
    return [result for result in results if isinstance(result, str) and is_snapshot_id(result)]


def manifest_or_none(store: Store, snapshot: str) -> Manifest | None:
    """None for a snapshot that was deleted."""
    return store.manifest(snapshot) if store.has(snapshot) else None


def _stage_record(store: Store, id: str, stage: str, snapshot: str, seconds: float) -> StageRecord:
    manifest = manifest_or_none(store, snapshot)
    if manifest is not None and manifest.flow_run_id == id:
        return StageRecord(stage, snapshot, MISS, round(manifest.duration_seconds, 2))
    return StageRecord(stage, snapshot, HIT, round(seconds, 2))


def _first_made(old: Mapping[str, StageRecord], row: StageRecord) -> StageRecord:
    """The old row of a snapshot that this run made before it was suspended or killed."""
    return old.get(row.snapshot, row) if row.cache == MISS else row


def _put_together(events: Iterable[Event]) -> RunLog | None:
    run: RunLog | None = None
    for event in events:
        if "begin" in event:
            run = replace(run, state=RUNNING, ended="", reason="") if run else RunLog.of(dict(event["begin"]))
        elif run:
            run = _apply(run, event)
    return run


def _apply(run: RunLog, event: Event) -> RunLog:
    old = {row.snapshot: row for row in run.stages}
    new = [_first_made(old, StageRecord(**fields)) for fields in event.get("stages", ())]
    names = {row.snapshot for row in new}
    children = dict.fromkeys((*run.children, *([event["child"]] if "child" in event else ())))
    stages = (*(row for row in run.stages if row.snapshot not in names), *new)
    return replace(run, **with_new_names(event.get("set", {})), children=tuple(children), stages=stages)


def _events(store: Store, paths: Iterable[str]) -> dict[str, list[Event]]:
    """The events of each run, in the order of their writing. A damaged one is named in the log and left out."""
    wanted = sorted(path for path in paths if path.endswith(".json"))
    with store_errors(store.url):
        texts = store.fs.cat(wanted, on_error="omit") if wanted else {}
    events: dict[str, list[Event]] = defaultdict(list)
    for path, text in sorted(texts.items()):  # "<id>.json", of an earlier version, comes before "<id>/…"
        name = str(path)[str(path).rindex("/runs/") + len("/runs/") :]
        try:
            event = json.loads(text)
            events[name.partition("/")[0].removesuffix(".json")].append(event if "/" in name else {"begin": event})
        except ValueError:
            log.warning("%s/runs/%s: damaged, left out of the run's log; remove that file", store.url, name)
    return events


def _write(store: Store, id: str, event: Event) -> None:
    """One file of its own, there whole or not at all."""
    text = json.dumps(event, ensure_ascii=False).encode()
    path = f"{store.root}/runs/{id}/{time.time_ns():020d}-{secrets.token_hex(4)}.json"
    with store_errors(store.url, writing=True):
        remote.write_whole(store.fs, path, text)
