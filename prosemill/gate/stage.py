"""The gate: the challenger takes over only if it is shown to be better than what is in use, and no worse elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from prosemill.config.settings import Gate
from prosemill.errors import ProsemillError
from prosemill.gate import rule
from prosemill.gate.alpha_spending import confidence_of, uses
from prosemill.gate.rule import NOT_ENOUGH_EVIDENCE, PROMOTE, REJECT
from prosemill.gate.slices import Evidence, slices_of
from prosemill.storage import stages
from prosemill.storage.json_shards import read_json
from prosemill.storage.manifest import Counts, snapshot_id, stage_of
from prosemill.storage.store import Store

__all__ = ["NOT_ENOUGH_EVIDENCE", "PROMOTE", "REJECT", "STAGE", "decide", "read_scores", "run_gate"]

STAGE = stages.of("gate")
DECIDED_BY_VERSION_2 = 2  # whose decision.json says the same under the key `verdict`: such a decision stands
# Asked before training, or after the decision: the decision is the same.
WITHOUT_EFFECT = {"min_new_documents", "min_new_tokens", "known_margin", "approval", "approval_hours"}

Scores = dict[str, list[dict[str, Any]]]


def run_gate(store: Store, evaluation: str, settings: Gate, *, as_of: str, flow_run_id: str = "") -> str:
    """Decide on the challenger of `evaluation`: a snapshot with decision.json (see `decide` for the rule).

    A decision, once made, stands: asked again, it is the same. Decisions that the store holds on other evaluations of
    these test documents make it stricter (`prosemill.gate.alpha_spending`).
    """
    used = settings.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    for version in (DECIDED_BY_VERSION_2, STAGE.version):
        snapshot = snapshot_id(STAGE.name, version, inputs=[evaluation], settings=used)
        if store.has(snapshot):
            return snapshot
    with store.write(
        snapshot,
        stage=STAGE.name,
        version=STAGE.version,
        parents=[evaluation],
        settings=used,
        as_of=as_of,
        flow_run_id=flow_run_id,
    ) as writer:
        scores, summary = read_scores(store, evaluation), read_json(store, evaluation, "summary")
        use = uses(_test_sizes(scores), earlier_uses(store, evaluation))
        decision = decide(scores, settings, summary=summary, use=use)
        writer.path("decision.json").write_text(json.dumps(decision, indent=1), encoding="utf-8")
        writer.add("decision.json", "decision", 1)
        writer.counts = Counts(decision["documents"], decision["documents"])
        writer.totals = {"decision": decision["decision"], "difference": decision["difference_bits_per_byte"]}
    return snapshot


def read_scores(store: Store, evaluation: str) -> Scores:
    """Rows of records.SCORE by label, in the order of the documents."""
    scores: Scores = {}
    for shard in store.manifest(evaluation).shards_of("scores"):
        for row in pq.read_table(store.local(shard.path)).to_pylist():
            scores.setdefault(row["model"], []).append(row)
    return scores


def earlier_uses(store: Store, evaluation: str) -> list[set[str]]:
    """The test documents of each evaluation that a decision in the store was taken on, this one left out."""
    decisions = [id for id in store.snapshots() if stage_of(id) == STAGE.name]
    decided_on = {parent for id in decisions for parent in store.manifest(id).parents} - {evaluation}
    return [_test_documents(store, id) for id in sorted(decided_on) if store.has(id)]


def decide(scores: Scores, settings: Gate, *, summary: Mapping[str, Any] | None = None, use: int = 1) -> dict[str, Any]:
    """The decision on the challenger, against the champion or, when there is none, the base.

    promote: better on the test documents by more than the margin, no worse on old and general text beyond their
    bounds, within the limits of copying and repetition; reject: shown to fail one of these, which `refused` names;
    not-enough-evidence: neither. `slices` holds every test with its numbers and its answer. `summary` is that of the
    evaluation (dates, quality); `use` counts the uses of the test documents, this one included. The difference is
    paired and in bits per byte, which compares across tokenizers.
    """
    against = "champion" if "champion" in scores else "base"
    if "challenger" not in scores or against not in scores:
        raise ProsemillError("the evaluation has no challenger, or nothing to compare it with; evaluate both and retry")
    one, other = scores["challenger"], scores[against]
    if [row["document"] for row in one] != [row["document"] for row in other]:
        raise ProsemillError(f"challenger and {against} were scored on different documents; evaluate them together")
    evidence = Evidence(one, other, against, confidence_of(use, settings.confidence), summary or {}, settings)
    answers = [slice.answer(evidence) for slice in slices_of(frozenset(settings.slices))]
    slices = [row for row in answers if row is not None]
    figures = {name: value for name, value in slices[0].items() if name not in ("slice", "asks", "answer", "why")}
    return {
        **rule.combine(slices, against),
        "challenger": one[0]["model_id"],
        "champion": other[0]["model_id"] if against == "champion" else "",
        "against": against,
        **figures,
        "margin": settings.margin,
        "use": use,
        "slices": slices,
    }


def _test_sizes(scores: Scores) -> dict[str, float]:
    rows = scores.get("challenger", [])
    return {row["document"]: float(row["size_bytes"]) for row in rows if row["part"] == "test"}


def _test_documents(store: Store, evaluation: str) -> set[str]:
    ids: set[str] = set()
    for shard in store.manifest(evaluation).shards_of("scores"):
        path = store.local(shard.path)
        columns = [name for name in ("document", "part") if name in pq.read_schema(path).names]  # version 1 had no part
        rows = pq.read_table(path, columns=columns).to_pylist()
        ids.update(row["document"] for row in rows if row.get("part", "test") == "test")
    return ids
