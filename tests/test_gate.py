"""The gate promotes what is shown to be better, and nothing else."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prosemill.config.settings import Gate
from prosemill.errors import ProsemillError
from prosemill.evaluation.bootstrap import ratio_interval
from prosemill.gate import stage
from prosemill.storage import stages
from prosemill.storage.decision_record import read_decision
from prosemill.storage.schemas import SCORE
from prosemill.storage.store import Store

SETTINGS = Gate(resamples=2000)


def scores_of(model: str, nats: list[float], *, num_tokens: int = 50) -> list[dict[str, Any]]:
    """A row a document of 100 bytes."""
    return [
        {
            "model": model,
            "model_id": f"{model}-1",
            "document": f"{number:020d}",
            "part": "test",
            "source": "site",
            "first_seen": "",
            "nats": value,
            "num_tokens": num_tokens,
            "size_bytes": 100,
        }
        for number, value in enumerate(nats)
    ]


def decide(challenger: list[float], champion: list[float], settings: Gate = SETTINGS) -> dict[str, Any]:
    scores = {"challenger": scores_of("challenger", challenger), "champion": scores_of("champion", champion)}
    return stage.decide(scores, settings)


def hard_documents(count: int = 60) -> np.ndarray:
    """Documents differ far more from one another than two models do on one document."""
    return np.random.default_rng(1).gamma(4.0, 30.0, count)


def test_better_on_every_document_is_promoted_although_documents_differ_widely() -> None:
    champion = hard_documents()
    decision = decide(list(champion - 1.0), list(champion))
    assert decision["decision"] == "promote"
    assert decision["difference_bits_per_byte"] == pytest.approx(-0.01 / math.log(2))
    assert decision["interval"] == pytest.approx([-0.01 / math.log(2)] * 2)
    assert decision["improved_documents"] == decision["documents"] == 60
    assert decision["against"] == "champion"
    assert "0.0144 bits per byte less than the champion" in decision["reason"]
    assert "\n" not in decision["reason"]


def test_worse_is_kept_out_and_undecided_is_not_enough_evidence() -> None:
    champion = hard_documents()
    assert decide(list(champion + 1.0), list(champion))["decision"] == "reject"
    noise = np.random.default_rng(2).normal(0.0, 5.0, len(champion))
    decision = decide(list(champion + noise - noise.mean()), list(champion))
    assert decision["decision"] == "not-enough-evidence"
    low, high = decision["interval"]
    assert low < 0 < high


def test_a_gain_within_the_margin_is_not_promoted() -> None:
    champion = hard_documents()
    assert decide(list(champion - 1.0), list(champion), Gate(margin=0.02))["decision"] == "reject"
    assert decide(list(champion - 2.0), list(champion), Gate(margin=0.02))["decision"] == "promote"


def test_few_documents_are_no_evidence_however_clear() -> None:
    decision = decide([1.0, 1.0, 1.0, 1.0], [90.0, 90.0, 90.0, 90.0])
    assert decision["decision"] == "not-enough-evidence"
    assert "min_test_documents" in decision["reason"]


def test_without_a_champion_the_base_is_the_one_to_beat_and_tokens_do_not_matter() -> None:
    scores = {
        "challenger": scores_of("challenger", [50.0] * 10, num_tokens=20),  # higher perplexity, fewer bits per byte
        "base": scores_of("base", [60.0] * 10, num_tokens=80),
    }
    decision = stage.decide(scores, SETTINGS)
    assert (decision["decision"], decision["against"], decision["champion"]) == ("promote", "base", "")


def test_scores_on_different_documents_are_refused() -> None:
    scores = {"challenger": scores_of("challenger", [1.0] * 10), "champion": scores_of("champion", [1.0] * 9)}
    with pytest.raises(ProsemillError, match="different documents"):
        stage.decide(scores, SETTINGS)


def test_models_that_are_equal_are_seldom_promoted() -> None:
    random = np.random.default_rng(3)
    champion = hard_documents(80)
    decisions = [decide(list(champion + random.normal(0, 3, 80)), list(champion))["decision"] for _ in range(200)]
    assert decisions.count("promote") <= 13  # expected: 2.5 % = 5; 13 or fewer with p = .999


def test_the_interval_covers_the_truth_and_is_that_of_a_plain_loop() -> None:
    random = np.random.default_rng(4)
    size = random.integers(50, 5000, 200).astype(float)
    nats = size * 0.6 + random.normal(0, 20, 200)
    low, high = ratio_interval(nats, size, resamples=4000)
    assert low < nats.sum() / size.sum() < high
    assert high - low == pytest.approx(2 * 1.96 * 20 * math.sqrt(200) / size.sum(), rel=0.2)  # of the noise put in
    plain = []
    for _ in range(4000):
        drawn = random.integers(0, 200, 200)
        plain.append(nats[drawn].sum() / size[drawn].sum())
    assert (low, high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.15 * (high - low))
    assert ratio_interval(nats, size, resamples=4000) == (low, high)
    assert ratio_interval(nats, size, resamples=4000, seed=1) != (low, high)


def test_the_decision_is_a_snapshot_and_its_numbers_have_not_changed(store: Store) -> None:
    champion = hard_documents()
    rows = scores_of("challenger", list(champion * 0.97)) + scores_of("champion", list(champion))
    with store.write("evaluate-1", stage="evaluate", version=1, parents=[], settings={}) as writer:
        pq.write_table(pa.Table.from_pylist(rows, SCORE), writer.path("scores.parquet"))
        writer.add("scores.parquet", "scores", len(rows))
        writer.path("summary.json").write_text(json.dumps({"dates": {}, "quality": {}}))
        writer.add("summary.json", "summary", 1)
    snapshot = stage.run_gate(store, "evaluate-1", SETTINGS, as_of="2026-01-02", flow_run_id="run")
    assert stage.run_gate(store, "evaluate-1", SETTINGS, as_of="2026-01-03") == snapshot
    decision = read_decision(store, snapshot)
    manifest = store.manifest(snapshot)
    assert (manifest.as_of, manifest.parents, manifest.flow_run_id) == ("2026-01-02", ["evaluate-1"], "run")
    values = [round(value, 6) for value in (decision["difference_bits_per_byte"], *decision["interval"])]
    golden = [-0.047815, -0.05291, -0.042935]
    assert (stages.of("gate").version, values) == (3, golden), "output changed: raise the version"
