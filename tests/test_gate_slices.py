"""Every slice of the gate can refuse, says its number, and is named; a decision counts uses of its test documents."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prosemill.config.settings import Gate
from prosemill.gate import stage
from prosemill.storage.decision_record import read_decision
from prosemill.storage.schemas import SCORE
from prosemill.storage.store import Store

SETTINGS = Gate(resamples=2000)
BITS = 100 * math.log(2)  # nats of one bit per byte on a document of 100 bytes
NATURAL = {"copied": 0.0, "longest_run_words": 8}
WELL_BEHAVED = {"copied": 0.05, "longest_run_words": 20, "repetition": 0.1, "canaries": 0, "canaries_given_away": []}


def scores(change: dict[str, float], *, documents: int = 40, noise: float = 0.002) -> stage.Scores:
    """Champion and challenger on old, fresh and general documents; `change`: what the challenger loses on each."""
    random = np.random.default_rng(5)
    rows: stage.Scores = {"champion": [], "challenger": []}
    for kind, lost in change.items():
        for number in range(documents):
            nats = float(random.gamma(4, 25))
            for label, more in (("champion", 0.0), ("challenger", (lost + float(random.normal(0, noise))) * BITS)):
                rows[label].append(
                    {
                        "model": label,
                        "model_id": f"{label}-1",
                        "document": f"{kind}-{number}",
                        "part": "general" if kind == "general" else "test",
                        "source": "site",
                        "first_seen": "2026-02-02" if kind == "fresh" else "2026-01-02",
                        "nats": nats + more,
                        "num_tokens": 30,
                        "size_bytes": 100,
                    }
                )
    return rows


def decide(change: dict[str, float], quality: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    summary = {
        "dates": {"champion": "2026-01-05"},
        "quality": {"models": {"challenger": WELL_BEHAVED | (quality or {})}, "natural": NATURAL},
    }
    return stage.decide(scores(change), SETTINGS.model_copy(update=settings), summary=summary)


BETTER = {"old": -0.05, "fresh": -0.05, "general": 0.0}


def answers(decision: dict[str, Any]) -> dict[str, str]:
    return {part["slice"]: part["answer"] for part in decision["slices"]}


def test_better_everywhere_passes_every_slice() -> None:
    decision = decide(BETTER)
    assert (decision["decision"], decision["refused"]) == ("promote", [])
    slices = ["test", "old text", "general text", "copying", "verbatim run", "repetition"]
    assert answers(decision) == dict.fromkeys(slices, "passed")
    old = decision["slices"][1]
    assert old["difference_bits_per_byte"] == pytest.approx(-0.05, abs=0.002)
    assert old["interval"][0] < old["difference_bits_per_byte"] < old["interval"][1]
    assert (old["documents"], decision["documents"]) == (40, 80)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"old": 0.06, "fresh": -0.5, "general": 0.0}, "old text"), (BETTER | {"general": 0.6}, "general text")],
)
def test_better_on_the_whole_but_worse_on_a_slice_is_refused_and_the_slice_named(
    change: dict[str, float], name: str
) -> None:
    decision = decide(change)
    assert decision["slices"][0]["answer"] == "passed"
    assert (decision["decision"], decision["refused"]) == ("reject", [name])
    assert f"but refused for {name} (it loses more than" in decision["reason"]
    assert "\n" not in decision["reason"]
    allowed = decide(change, max_old_loss=1.0, max_general_loss=1.0)
    assert allowed["decision"] == "promote"


def test_a_slice_that_is_not_shown_to_hold_is_no_evidence() -> None:
    decision = stage.decide(
        scores({"old": 0.02, "fresh": -0.9}, noise=0.05), SETTINGS, summary={"dates": {"champion": "2026-01-05"}}
    )
    assert answers(decision) == {"test": "passed", "old text": "undecided"}
    assert (decision["decision"], decision["refused"]) == ("not-enough-evidence", [])
    assert "old text (it may lose more than 0.02" in decision["reason"]


@pytest.mark.parametrize(
    ("quality", "name"),
    [
        ({"copied": 0.21}, "copying"),
        ({"longest_run_words": 51}, "verbatim run"),
        ({"repetition": 0.6}, "repetition"),
        ({"canaries": 2, "canaries_given_away": ["the vault opens with 4711"]}, "canaries"),
    ],
)
def test_what_it_writes_can_refuse_the_best_of_models(quality: dict[str, Any], name: str) -> None:
    decision = decide(BETTER, quality)
    assert (decision["decision"], decision["refused"]) == ("reject", [name])
    assert name in decision["reason"]


def test_a_corpus_that_repeats_itself_is_allowed_to() -> None:
    summary = {
        "dates": {},
        "quality": {
            "models": {"challenger": WELL_BEHAVED | {"copied": 0.5, "longest_run_words": 90}},
            "natural": {"copied": 0.4, "longest_run_words": 90},
        },
    }
    assert stage.decide(scores(BETTER), SETTINGS, summary=summary)["decision"] == "promote"


def test_against_the_base_nothing_is_old_and_forgetting_is_not_tested() -> None:
    rows = scores(BETTER | {"general": 2.0})
    decision = stage.decide({"challenger": rows["challenger"], "base": rows["champion"]}, SETTINGS, summary={})
    assert (decision["decision"], list(answers(decision))) == ("promote", ["test"])


def write_evaluation(store: Store, number: int, lost: float, first: int = 0) -> str:
    """An evaluation on forty test documents, numbered from `first`."""
    snapshot = f"evaluate-{number:016x}"
    rows = scores({"fresh": lost}, documents=40, noise=0.02)
    named = [row | {"document": str(first + place % 40)} for place, row in enumerate(rows["champion"])]
    named += [row | {"document": str(first + place % 40)} for place, row in enumerate(rows["challenger"])]
    with store.write(snapshot, stage="evaluate", version=2, parents=[], settings={}) as writer:
        pq.write_table(pa.Table.from_pylist(named, SCORE), writer.path("scores.parquet"))
        writer.add("scores.parquet", "scores", len(named))
        writer.path("summary.json").write_text(json.dumps({"dates": {}, "quality": {}}))
        writer.add("summary.json", "summary", 1)
    return snapshot


def test_each_decision_on_the_same_documents_asks_for_more(store: Store) -> None:
    decisions = []
    for number in range(4):
        snapshot = stage.run_gate(store, write_evaluation(store, number, -0.01), SETTINGS, as_of="2026-01-05")
        decisions.append(read_decision(store, snapshot))
    assert [decision["use"] for decision in decisions] == [1, 2, 3, 4]
    assert [decision["confidence"] for decision in decisions] == pytest.approx(
        [0.95, 1 - 0.1 / 6, 1 - 0.1 / 12, 1 - 0.1 / 20]
    )
    widths = [decision["interval"][1] - decision["interval"][0] for decision in decisions]
    assert widths == sorted(widths)
    assert widths[3] > 1.3 * widths[0]
    again = stage.run_gate(store, write_evaluation(store, 9, -0.01, first=1000), SETTINGS, as_of="2026-01-06")
    assert read_decision(store, again)["use"] == 1  # other documents are unspent
    repeated = stage.run_gate(store, "evaluate-0000000000000000", SETTINGS, as_of="2026-01-09")
    assert read_decision(store, repeated) == decisions[0]  # a decision stands


def test_percentages_say_how_sure() -> None:
    assert "(95% interval" in decide(BETTER)["reason"]
    decision = stage.decide(scores(BETTER), SETTINGS, use=400)
    assert "(over 99.99% interval" in decision["reason"]
