"""What version 0.1 recorded of a decision, under the key `verdict`, is read; and scripts find that key in the JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from flows.cli.app import run
from prosemill.config.settings import Gate
from prosemill.gate import stage
from prosemill.registry.registry import Registry
from prosemill.reporting.graph import ancestry
from prosemill.storage import run_log
from prosemill.storage.decision_record import read_decision, with_new_names, with_old_key
from prosemill.storage.manifest import snapshot_id
from prosemill.storage.run_log import RunLog
from prosemill.storage.store import Store

FINETUNE, EVALUATION = f"finetune-{1:016x}", f"evaluate-{1:016x}"
OLD = {"verdict": "keep", "reason": "It is worse.", "refused": ["test"]}


def write_json(store: Store, snapshot: str, role: str, value: object, version: int = 1) -> None:
    name = snapshot.partition("-")[0]
    parents = [EVALUATION] if name == "gate" else []
    with store.write(snapshot, stage=name, version=version, parents=parents, settings={}, as_of="2026-01-02") as writer:
        writer.path(f"{role}.json").write_text(json.dumps(value))
        writer.add(f"{role}.json", role, 1)
        writer.totals = {"verdict": "keep"} if name == "gate" else {}


@pytest.fixture
def old_gate(store: Store) -> str:
    """The gate snapshot that version 2 of the stage made of EVALUATION."""
    settings = Gate().model_dump(mode="json", exclude=stage.WITHOUT_EFFECT)
    snapshot = snapshot_id("gate", 2, inputs=[EVALUATION], settings=settings)
    scores = {"perplexity": 30.0, "bits_per_byte": 1.5}
    write_json(store, EVALUATION, "summary", {"models": {"base": scores, "challenger": scores}})
    write_json(store, snapshot, "decision", OLD, version=2)
    return snapshot


def test_old_words_are_read_and_written_for_one_release() -> None:
    assert with_new_names(OLD) == {"decision": "reject", "reason": "It is worse.", "refused": ["test"]}
    assert with_new_names({"verdict": "promote"}) == {"decision": "promote"}
    assert with_new_names({"decision": "reject"}) == {"decision": "reject"}
    assert with_old_key({"decision": "reject"}) == {"decision": "reject", "verdict": "keep"}
    assert with_old_key({"decision": "nothing-new"}) == {"decision": "nothing-new", "verdict": "nothing-new"}


def test_a_decision_of_version_2_stands(store: Store, old_gate: str) -> None:
    assert stage.run_gate(store, EVALUATION, Gate(), as_of="2026-01-09") == old_gate
    assert read_decision(store, old_gate)["decision"] == stage.REJECT
    assert {node.stage: node.output for node in ancestry(store, [old_gate]).nodes}["gate"] == "reject"


def test_tags_of_version_0_1_are_read(store: Store, old_gate: str, capsys: pytest.CaptureFixture[str]) -> None:
    with store.write(FINETUNE, stage="finetune", version=1, parents=[], settings={}) as writer:
        writer.path("log.jsonl").write_text(json.dumps({"step": 1, "loss": 4.0}) + "\n")
        writer.add("log.jsonl", "log", 1)
    registry = Registry.open(store.url)
    assert registry.record("house", FINETUNE, EVALUATION, old_gate) == 1
    (today,) = registry.list_versions("house")
    assert (today.gate, today.decision) == (old_gate, "reject")

    client = MlflowClient(f"sqlite:///{store.root}/mlflow.db")
    client.delete_model_version_tag("house", "1", "prosemill.gate")
    client.set_model_version_tag("house", "1", "prosemill.decision", old_gate)
    client.set_model_version_tag("house", "1", "prosemill.verdict", "keep")
    assert registry.list_versions("house") == [today]

    for command in ("decision", "verdict"):
        assert run([command, "house/1", "--store", store.url, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["decision"], answer["verdict"], answer["reason"]) == ("reject", "keep", "It is worse.")
    assert run(["decision", "house/1", "--store", store.url]) == 0
    assert capsys.readouterr().out.startswith("house/1: reject\n")
    assert run(["models", "house", "--store", store.url, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["decision"], row["verdict"]) == ("reject", "keep")


def test_the_old_command_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    printed = capsys.readouterr().out
    assert "decision" in printed
    assert "verdict" not in printed


def test_logs_of_runs_are_read(store: Store) -> None:
    begun = asdict(RunLog("0b64", "retrain", "docs", "docs", "2026-01-05", "2026-01-05T02:00:00.000+00:00"))
    begun = {"verdict": begun.pop("decision"), **begun}
    folder = Path(store.root, "runs", "0b64")
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(json.dumps({"begin": begun}))
    (folder / "2.json").write_text(json.dumps({"set": {"verdict": "keep", "model": "docs/2"}}))
    log = run_log.read(store, "0b64")
    assert log is not None
    assert (log.decision, log.model) == ("reject", "docs/2")
