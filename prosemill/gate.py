"""The gate: the challenger takes over only if it is shown to be better than what is in use."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from prosemill.bootstrap import Floats, ratio_interval
from prosemill.errors import ProsemillError
from prosemill.records import Counts, snapshot_id
from prosemill.settings import Gate
from prosemill.storage import Store

STAGE_VERSION = 1

PROMOTE, KEEP, NOT_ENOUGH_EVIDENCE = "promote", "keep", "not-enough-evidence"

# Asked before training, or after the decision: the decision is the same.
_WITHOUT_EFFECT = {"min_new_documents", "approval", "approval_hours"}


def judge(store: Store, evaluation: str, settings: Gate, *, as_of: str, flow_run_id: str = "") -> str:
    """Decide on the challenger of `evaluation`: a snapshot with decision.json (see `decide` for the rule)."""
    used = settings.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    snapshot = snapshot_id("gate", STAGE_VERSION, inputs=[evaluation], settings=used)
    if store.has(snapshot):
        return snapshot
    with store.write(
        snapshot,
        stage="gate",
        version=STAGE_VERSION,
        parents=[evaluation],
        settings=used,
        as_of=as_of,
        flow_run_id=flow_run_id,
    ) as writer:
        decision = decide(read_scores(store, evaluation), settings)
        writer.path("decision.json").write_text(json.dumps(decision, indent=1), encoding="utf-8")
        writer.add("decision.json", "decision", 1)
        writer.counts = Counts(decision["documents"], decision["documents"])
        writer.totals = {"verdict": decision["verdict"], "difference": decision["difference_bits_per_byte"]}
    return snapshot


def read_decision(store: Store, snapshot: str) -> dict[str, Any]:
    """decision.json of a gate snapshot."""
    (shard,) = store.manifest(snapshot).shards_of("decision")
    return json.loads(store.local(shard.path).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def read_scores(store: Store, evaluation: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of records.SCORE by label, in the order of the documents."""
    scores: dict[str, list[dict[str, Any]]] = {}
    for shard in store.manifest(evaluation).shards_of("scores"):
        for row in pq.read_table(store.local(shard.path)).to_pylist():
            scores.setdefault(row["model"], []).append(row)
    return scores


def decide(scores: dict[str, list[dict[str, Any]]], settings: Gate) -> dict[str, Any]:
    """The decision on the challenger, against the champion or, when there is none, the base.

    With the paired interval of (challenger - other) in bits per byte, which compares across tokenizers:
    promote when it lies wholly below -margin (better by more than the margin, at that confidence);
    keep when it lies wholly at or above -margin (shown not to be better by that much, or worse);
    not-enough-evidence when -margin is inside, or when there are fewer than `min_test_documents`.
    """
    against = "champion" if "champion" in scores else "base"
    if "challenger" not in scores or against not in scores:
        raise ProsemillError("the evaluation has no challenger, or nothing to compare it with; evaluate both and retry")
    one, other = scores["challenger"], scores[against]
    if [row["document"] for row in one] != [row["document"] for row in other]:
        raise ProsemillError(f"challenger and {against} were scored on different documents; evaluate them together")
    gain = (_column(one, "nats") - _column(other, "nats")) / math.log(2)
    size = _column(one, "size_bytes")
    low, high = ratio_interval(
        gain, size, confidence=settings.confidence, resamples=settings.resamples, seed=settings.seed
    )
    numbers = {
        "difference_bits_per_byte": float(gain.sum() / size.sum()),
        "interval": [low, high],
        "confidence": settings.confidence,
        "documents": len(one),
        "margin": settings.margin,
        "improved_documents": int((gain < 0).sum()),
    }
    verdict, why = _rule(low, high, len(one), settings)
    return {
        "verdict": verdict,
        "reason": _sentence(numbers, against, why),
        "challenger": one[0]["model_id"],
        "champion": other[0]["model_id"] if against == "champion" else "",
        "against": against,
        **numbers,
    }


def _rule(low: float, high: float, num_documents: int, settings: Gate) -> tuple[str, str]:
    """Verdict and its reason; `low` and `high` are the ends of the interval."""
    bound = f"-{settings.margin:g}" if settings.margin else "0"
    if num_documents < settings.min_test_documents:
        wanted = settings.min_test_documents
        return NOT_ENOUGH_EVIDENCE, f"fewer than {wanted} test documents (gate.min_test_documents) are no evidence"
    if high < -settings.margin:
        return PROMOTE, f"the interval lies below {bound}, so it is shown to be better"
    if low > 0:
        return KEEP, "the interval lies above 0, so it is shown to be worse"
    if low >= -settings.margin:
        return KEEP, f"the interval does not reach below {bound}, so it is shown not to be better by enough"
    return NOT_ENOUGH_EVIDENCE, f"the interval reaches beyond {bound} on both sides, so it may be better or not"


def _sentence(numbers: dict[str, Any], against: str, why: str) -> str:
    """ "The challenger needs 0.031 bits per byte less than the champion (95 % interval -0.040 to -0.022, …): …" """
    difference, (low, high) = numbers["difference_bits_per_byte"], numbers["interval"]
    return (
        f"The challenger needs {abs(difference):.4f} bits per byte {'less' if difference < 0 else 'more'} than the "
        f"{against} ({numbers['confidence']:.0%} interval {low:+.4f} to {high:+.4f}, better on "
        f"{numbers['improved_documents']} of {numbers['documents']} test documents): {why}."
    )


def _column(rows: list[dict[str, Any]], name: str) -> Floats:
    return np.array([row[name] for row in rows], dtype=np.float64)
