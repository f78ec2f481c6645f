"""Which models there are, how they scored, which one is in use, as a tracker keeps it (`tracker`: MLflow by default).

A model version stands for one finetune snapshot, which its tag names. Aliases: `champion` is in use, `previous` was
before it, `challenger` is the newest.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prosemill.errors import RegistryError
from prosemill.registry.metrics import figures_of
from prosemill.registry.model_card import model_card
from prosemill.registry.tracker import Metric, TrackedVersion, Tracker, tracker_of
from prosemill.storage.decision_record import read_decision, with_new_names, with_old_key
from prosemill.storage.json_shards import read_json
from prosemill.storage.manifest import is_snapshot_id
from prosemill.storage.store import Store

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]{0,39})(?:@(?P<alias>[a-z]+)|/(?P<version>[0-9]+))?")


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model. The decision and scores are those of its latest evaluation as challenger."""

    name: str
    version: int
    snapshot: str
    evaluation: str
    gate: str  # the snapshot with the decision
    as_of: str
    decision: str
    metrics: Mapping[str, float]  # perplexity, bits_per_byte, validation_loss
    aliases: tuple[str, ...]
    approval: str = ""  # "approved by ada at …", where a person was asked
    promoted_by: str = ""  # the decision by which it took over after an approval


class Registry:
    """The models of a store, as its tracker keeps them."""

    def __init__(self, store: Store, tracker: Tracker) -> None:
        self.store, self.tracker = store, tracker

    @classmethod
    def open(cls, store: Store | str) -> Registry:
        """That of a store (or of its URL), with the tracker that the environment names: MLflow by default."""
        opened = store if isinstance(store, Store) else Store(store)
        return cls(opened, tracker_of(opened))

    # --- reading -----------------------------------------------------------------------------------------------------

    def list_models(self) -> list[str]:
        """Names of all models, sorted."""
        return sorted(self.tracker.list_models())

    def list_versions(self, name: str) -> list[ModelVersion]:
        """All versions, newest first; none for an unknown name."""
        versions = [_version_of(name, tracked) for tracked in self.tracker.list_versions(name)]
        return sorted(versions, key=lambda version: -version.version)

    def champion(self, name: str) -> ModelVersion | None:
        """The version in use, if any."""
        return next((version for version in self.list_versions(name) if CHAMPION in version.aliases), None)

    def version_of(self, name: str, snapshot: str) -> ModelVersion:
        """The version that stands for the finetune snapshot."""
        for version in self._versions_of_known(name):
            if version.snapshot == snapshot:
                return version
        raise RegistryError(f"{snapshot} is not a version of {name}; record it first")

    def previous(self, name: str) -> ModelVersion | None:
        """The version that was in use before the champion, if any."""
        return next((version for version in self.list_versions(name) if PREVIOUS in version.aliases), None)

    def describe(self, name: str) -> list[dict[str, Any]]:
        """One row a version, newest first, for people: model, aliases, as_of, scores, decision, snapshot."""
        return [
            with_old_key(
                {
                    "model": f"{name}/{version.version}",
                    "aliases": list(version.aliases),
                    "as_of": version.as_of,
                    "perplexity": version.metrics.get("perplexity"),
                    "bits_per_byte": version.metrics.get("bits_per_byte"),
                    "decision": version.decision,
                    "approval": version.approval,
                    "snapshot": version.snapshot,
                }
            )
            for version in self._versions_of_known(name)
        ]

    def resolve(self, reference: str) -> str:
        """The finetune snapshot of "name" (its champion), "name@champion", "name/3" or a snapshot id."""
        if is_snapshot_id(reference, "finetune"):
            self.store.require(reference)
            return reference
        match = REFERENCE.fullmatch(reference)
        if match is None:
            raise RegistryError(
                f"{reference!r} names no model; write name, name@champion, name/3 or a snapshot id "
                "(`prosemill models` lists them)"
            )
        name, version = match["name"], match["version"]
        alias = match["alias"] or CHAMPION
        for candidate in self._versions_of_known(name):
            if candidate.version == int(version) if version else alias in candidate.aliases:
                return candidate.snapshot
        missing = f"version {version}" if version else alias
        raise RegistryError(f"{name} has no {missing}; `prosemill models {name}` lists what there is")

    def resolve_or_none(self, reference: str) -> str | None:
        """As `resolve`, and None for what is not a model: a sentence, a URL, a name nobody gave."""
        try:
            return self.resolve(reference)
        except RegistryError:
            return None

    # --- writing -----------------------------------------------------------------------------------------------------

    def record(self, name: str, finetune: str, evaluation: str, gate: str) -> int:
        """Make the finetune snapshot the newest version of `name`, with scores, loss curve and decision; its number.

        A snapshot that is a version already keeps its number and gets this evaluation and decision.
        """
        facts, tracker = _Facts(self.store, finetune, evaluation, gate), self.tracker
        known = next(
            (tracked for tracked in tracker.list_versions(name) if tracked.tags.get("snapshot") == finetune), None
        )
        if known is None:
            run = self._record_run(name, facts)
            tracker.add_metrics(run, facts.figures())
            version = tracker.add_version(name, finetune, run, facts.tags, facts.reason)
        else:
            run, version = known.run, known.number
            tracker.change_version(name, version, facts.tags, facts.reason)
            tracker.add_metrics(run, facts.figures())
        card = model_card(self.store, name, version, finetune, evaluation, gate)
        tracker.add_file(run, "README.md", card)
        tracker.set_alias(name, CHALLENGER, version)
        return version

    def promote(self, name: str, snapshot: str) -> bool:
        """Make the version of `snapshot` the champion and the old champion the previous one. Safe to repeat.

        Whether this changed anything.
        """
        versions = self._versions_of_known(name)
        new = next((version for version in versions if version.snapshot == snapshot), None)
        if new is None:
            raise RegistryError(f"{snapshot} is not a version of {name}; record it first")
        old = next((version for version in versions if CHAMPION in version.aliases), None)
        if old == new:
            return False
        if old is not None:
            self.tracker.set_alias(name, PREVIOUS, old.version)
        self.tracker.set_alias(name, CHAMPION, new.version)
        return True

    def mark(self, name: str, snapshot: str, tags: Mapping[str, str]) -> None:
        """Put tags on the version of `snapshot`, for example who approved it."""
        self.tracker.change_version(name, self.version_of(name, snapshot).version, tags)

    def roll_back(self, name: str) -> ModelVersion:
        """Exchange champion and previous; the champion from now on."""
        versions = self._versions_of_known(name)
        old = next((version for version in versions if CHAMPION in version.aliases), None)
        new = next((version for version in versions if PREVIOUS in version.aliases), None)
        if old is None or new is None or old == new:
            raise RegistryError(f"{name} has had no champion before this one; nothing to roll back to")
        self.tracker.set_alias(name, CHAMPION, new.version)
        self.tracker.set_alias(name, PREVIOUS, old.version)
        return next(version for version in self.list_versions(name) if version.version == new.version)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _versions_of_known(self, name: str) -> list[ModelVersion]:
        versions = self.list_versions(name)
        if not versions:
            names = self.list_models()
            there = f"there is {', '.join(names[:5])}" if names else "there is none yet: prosemill retrain RECIPE"
            raise RegistryError(f"no model is named {name}; {there}")
        return versions

    def _record_run(self, name: str, facts: _Facts) -> str:
        """A run with everything about the training, that which followed it if there was one; its id."""
        tracker, title = self.tracker, facts.as_of or facts.snapshot
        run = tracker.find_run(name, "snapshot", facts.snapshot) or tracker.open_run(name, title, {})
        tracker.describe_run(run, title, facts.params, facts.tags)
        metrics = facts.metrics()
        known = tracker.steps(run, {metric.name for metric in metrics})
        tracker.add_metrics(run, [metric for metric in metrics if (metric.name, metric.step) not in known])
        tracker.add_file(run, "decision.json", json.dumps(facts.decision, indent=2))
        tracker.close_run(run, "FINISHED", {})
        return run


class _Facts:
    """What a version is recorded with, gathered from its snapshots."""

    def __init__(self, store: Store, finetune: str, evaluation: str, gate: str) -> None:
        self.snapshot = finetune
        self.tuned = store.manifest(finetune)
        self.summary = read_json(store, evaluation, "summary")
        self.decision = read_decision(store, gate)
        self.as_of = store.manifest(gate).as_of
        self.reason = self.decision["reason"]
        (log,) = self.tuned.shards_of("log")
        with store.open(log.path) as file:
            self.log = [json.loads(line) for line in file.read().decode().splitlines()]
        settings = {**self.tuned.settings, "precision": self.tuned.totals.get("precision", "")}
        self.params = {key: str(value) for key, value in settings.items()}
        scores = self.summary["models"]["challenger"]
        figures = {name: scores[name] for name in ("perplexity", "bits_per_byte")}
        if self.tuned.totals.get("validation_loss") is not None:
            figures["validation_loss"] = self.tuned.totals["validation_loss"]
        self.tags = {
            "snapshot": finetune,
            "evaluation": evaluation,
            "gate": gate,
            "as_of": self.as_of,
            "decision": self.decision["decision"],
            "metrics": json.dumps(figures),
        }

    def metrics(self) -> list[Metric]:
        """The loss curve by step."""
        return [
            Metric(name, float(value), 0, row["step"])
            for row in self.log
            for name, value in row.items()
            if name != "step" and value is not None
        ]

    def figures(self) -> list[Metric]:
        """The figures of the model card; their latest value is that of the latest decision."""
        now, figures = int(time.time() * 1000), figures_of(self.summary, self.decision, self.tuned.totals)
        return [Metric(name, value, now, 0) for name, value in figures.items()]


def _version_of(name: str, tracked: TrackedVersion) -> ModelVersion:
    tags = dict(tracked.tags)
    if "gate" not in tags:  # of version 0.1: `decision` was the snapshot, `verdict` what it says
        tags = with_new_names(tags | {"gate": tags.pop("decision", "")})
    return ModelVersion(
        name=name,
        version=tracked.number,
        snapshot=tags.get("snapshot", ""),
        evaluation=tags.get("evaluation", ""),
        gate=tags.get("gate", ""),
        as_of=tags.get("as_of", ""),
        decision=tags.get("decision", ""),
        metrics=json.loads(tags.get("metrics", "{}")),
        aliases=tracked.aliases,
        approval=tags.get("approval", ""),
        promoted_by=tags.get("promoted_by", ""),
    )
