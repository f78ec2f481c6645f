"""Explain a run: for each stage, whether it was a cache hit, and if it was made, which input had changed.

Read from the store: the run's log names the snapshots, their manifests the inputs. A stage
is compared with the same stage of the run before, which is the newest earlier run of the recipe that reached it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prosemill.errors import RunUnknown
from prosemill.storage import run_log, stages
from prosemill.storage.ancestry import walk
from prosemill.storage.manifest import Manifest, stage_of
from prosemill.storage.run_log import HIT, MAKERS, RunLog, StageRecord
from prosemill.storage.store import Store

READ_FROM_DISK = ("folder", "warc", "dataset")
_NONE = "none"


@dataclass(frozen=True)
class InputChange:
    """One input that differs from the run before: `what`, and its value then and now."""

    what: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.before} → {self.after}" if self.before or self.after else self.what


@dataclass(frozen=True)
class StageExplanation:
    stage: str  # "scrape messages" where the stage has several sources
    snapshot: str
    cache: str
    seconds: float
    made_by: str  # the run that made the snapshot; "" when it was deleted since
    why: Sequence[InputChange]


@dataclass(frozen=True)
class RunExplanation:
    """A run, explained. `before` is the run that its stages are compared with, None for the first of a recipe."""

    run: RunLog
    before: RunLog | None
    stages: Sequence[StageExplanation]

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": asdict(self.run),
            "before": asdict(self.before) if self.before else None,
            "stages": [
                {**asdict(stage), "in_words": [str(change) for change in stage.why]} for stage in self.stages
            ],
        }  # fmt: skip


def explain(store: Store, reference: str) -> RunExplanation:
    """Explain each stage of a run: its flow run id (or how one begins), its name, a recipe, or "NAME DATE".

    Of several runs it is the newest; RunUnknown where there is none.
    """
    logs = run_log.read_all(store)
    run = find(logs, reference, store.url)
    family = _family(logs, run)
    earlier = [log for log in logs if log.recipe == run.recipe and log.started < run.started]
    earlier = [log for log in earlier if log.id not in family and log.stages]
    names = {log.id: log.title for log in logs}
    return RunExplanation(
        run,
        next((log for log in earlier if log.flow == run.flow), next(iter(earlier), None)),
        [_tell(store, row, earlier, names) for row in run_log.stages_of(store, run)],
    )


def find(logs: Sequence[RunLog], reference: str, where: str) -> RunLog:
    """The newest run that answers to `reference`; of a recipe, one that no other run started."""
    name, _, date = reference.partition(" ")
    of_the_date = [log for log in logs if (log.recipe, log.as_of) == (name, date)]
    answers = [
        *(log for log in logs if log.id == reference or (len(reference) >= 8 and log.id.startswith(reference))),
        *(log for log in of_the_date if not log.parent and log.flow in MAKERS),
        *(log for log in logs if log.name == reference),
        *(log for log in logs if log.recipe == reference and not log.parent and log.flow in MAKERS),
    ]
    if answers:
        return answers[0]
    there = ", ".join(dict.fromkeys(run.name for run in logs[:20])) or "none: prosemill retrain RECIPE makes the first"
    raise RunUnknown(f"{where}: no run answers to {reference!r}; give its id, its name, or NAME DATE; there is {there}")


def _family(logs: Sequence[RunLog], run: RunLog) -> set[str]:
    """The run, those that it started, and those that started it."""
    by_id = {log.id: log for log in logs}

    def related(id: str) -> list[str]:
        return [other for other in (*by_id[id].children, by_id[id].parent) if other in by_id]

    return set(walk([run.id], related))


def _tell(store: Store, row: StageRecord, earlier: Sequence[RunLog], names: Mapping[str, str]) -> StageExplanation:
    manifest = run_log.manifest_or_none(store, row.snapshot)
    source = str(manifest.totals.get("source", "")) if manifest else ""
    title = f"{row.stage} {source}" if source else row.stage
    if manifest is None:
        return StageExplanation(
            title, row.snapshot, row.cache, row.seconds, "", [InputChange("the snapshot was deleted since")]
        )
    made_by = names.get(manifest.flow_run_id, manifest.flow_run_id)
    why = [] if row.cache == HIT else changes(store, manifest, earlier)
    return StageExplanation(title, row.snapshot, row.cache, row.seconds, made_by, why)


def changes(store: Store, manifest: Manifest, earlier: Sequence[RunLog]) -> list[InputChange]:
    """What differs between a snapshot and the one that the newest of the earlier runs had of the same stage."""
    before = _before(store, manifest, earlier)
    if before is None:
        return [
            InputChange("first run of this stage" if not manifest.totals.get("source") else "first run of this source")
        ]
    if before == manifest.id:
        return [InputChange("the same inputs as before: the snapshot was deleted in between, and was made again")]
    old = run_log.manifest_or_none(store, before)
    if old is None:
        return [InputChange(f"cannot be compared: the snapshot of the run before, {before}, was deleted")]
    return compare(old, manifest)


def _before(store: Store, manifest: Manifest, earlier: Sequence[RunLog]) -> str | None:
    """The snapshot of the same stage (and source) in the newest earlier run that has one."""
    source = manifest.totals.get("source")
    for run in earlier:
        for row in run.stages:
            if row.stage != manifest.stage:
                continue
            if source is None or row.snapshot == manifest.id:
                return row.snapshot
            candidate = run_log.manifest_or_none(store, row.snapshot)
            if candidate and candidate.totals.get("source") == source:
                return row.snapshot
    return None


def compare(old: Manifest, new: Manifest) -> list[InputChange]:
    """What of the inputs of two snapshots of one stage differs, the most telling first."""
    differences = []
    if old.stage_version != new.stage_version:
        differences.append(InputChange("stage version", str(old.stage_version), str(new.stage_version)))
    before, after = _flat(old.settings), _flat(new.settings)
    for key in sorted({*before, *after}):
        if before.get(key, _NONE) != after.get(key, _NONE):
            differences.append(InputChange(f"setting {key}", before.get(key, _NONE), after.get(key, _NONE)))
    differences += _parents(old, new)
    if stages.of(new.stage).is_dated and old.as_of != new.as_of:
        differences.append(InputChange("as_of", old.as_of, new.as_of))
    if new.totals.get("kind") in READ_FROM_DISK and (seen := _seen(old)) != _seen(new):
        differences.insert(0, InputChange("files of the source", seen, _seen(new)))
    return differences or [InputChange(f"{stages.of(new.stage).unseen} changed")]


def _seen(scrape: Manifest) -> str:
    return f"{scrape.counts.kept:,} pages of {scrape.totals.get('live_bytes', 0):,} bytes"


def _parents(old: Manifest, new: Manifest) -> list[InputChange]:
    """Parents that changed, by stage; the stage's own earlier snapshot is called the run before."""
    differences = []
    for stage in dict.fromkeys(stage_of(parent) for parent in (*new.parents, *old.parents)):
        before = [parent for parent in old.parents if stage_of(parent) == stage]
        after = [parent for parent in new.parents if stage_of(parent) == stage]
        if before == after:
            continue
        what = f"input {stage}" if stage != new.stage else "goes on from"
        if max(len(before), len(after)) <= 1:
            differences.append(InputChange(what, *(ids[0] if ids else _NONE for ids in (before, after))))
            continue
        came, went = set(after) - set(before), set(before) - set(after)
        same = len(set(after) & set(before))
        differences.append(InputChange(f"{what}: {len(came)} new, {len(went)} gone, {same} as before"))
    return differences


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = re.sub(r"\s+", " ", str(value))[:200]
    return flat
