"""The report of a run: the one object that scripts read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prosemill.config.settings import Recipe
from prosemill.reporting.summary import (
    LABELS,
    SCORED_LABELS,
    Corpus,
    TrainingRecord,
    funnel,
    recorded,
    score_table,
    training_ids,
)
from prosemill.storage.decision_record import read_decision, with_old_key
from prosemill.storage.json_shards import read_json
from prosemill.storage.store import Store

if TYPE_CHECKING:
    from prosemill.gate.approval import ApprovalState
    from prosemill.registry.registry import ModelVersion


def with_decision(
    store: Store,
    recipe: Recipe,
    as_of: str,
    corpus: Corpus,
    trained: TrainingRecord,
    approval: ApprovalState | None = None,
) -> dict[str, Any]:
    """The report of a run with a decision on its challenger; `approval`: how it stands, where a person is asked."""
    decision = read_decision(store, trained["gate"])
    return with_old_key(
        {
            **_frame(store, recipe, as_of, corpus, trained["evaluate"]),
            "decision": approval.decision if approval else decision["decision"],
            "reason": f"{decision['reason']} Approval: {approval.sentence}." if approval else decision["reason"],
            "approval": approval.as_dict() if approval else None,
            "gate": decision,
            "snapshots": {**recorded(corpus), **training_ids(trained)},
            "model": trained["model"],
            "seconds": {**corpus["seconds"], **trained["seconds"]},
        }
    )


def nothing_new(
    store: Store, recipe: Recipe, as_of: str, corpus: Corpus, champion: ModelVersion, reason: str
) -> dict[str, Any]:
    """The report of a run that found nothing worth training for; the scores are the champion's."""
    return with_old_key(
        {
            **_frame(store, recipe, as_of, corpus, champion.evaluation, now={"base": "base", "challenger": "champion"}),
            "decision": "nothing-new",
            "reason": reason,
            "approval": None,
            "snapshots": {**recorded(corpus), "finetune": champion.snapshot, "evaluate": champion.evaluation},
            "model": f"{recipe.name}/{champion.version}",
            "seconds": corpus["seconds"],
        }
    )


_SAME_LABELS = {label: label for label in SCORED_LABELS}


def _frame(
    store: Store, recipe: Recipe, as_of: str, corpus: Corpus, evaluation: str, now: Mapping[str, str] = _SAME_LABELS
) -> dict[str, Any]:
    """What every report holds. `now` says what a model of the evaluation is called now; others are left out."""
    rows = [row for row in score_table(store, evaluation) if row["model"] in now]
    scores = {now[row["model"]]: {**row, "model": now[row["model"]]} for row in rows}
    return {
        "recipe": recipe.name,
        "as_of": as_of,
        "partial": any(store.manifest(snapshot).partial for snapshot in corpus["scrape"].values()),
        "funnel": funnel(store, corpus),
        "perplexity": {label: scores.get(label, {}).get("perplexity") for label in LABELS},
        "bits_per_byte": {label: scores.get(label, {}).get("bits_per_byte") for label in LABELS},
        "scores": list(scores.values()),
        "samples": [
            {**sample, "texts": {now[label]: text for label, text in sample["texts"].items() if label in now}}
            for sample in read_json(store, evaluation, "samples")
        ],
    }
