"""The registry: versions are recorded once, one of them is the champion, and every name leads to a snapshot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prosemill.errors import RegistryError, SnapshotMissing
from prosemill.registry.mlflow_database import make_database
from prosemill.registry.registry import Registry
from prosemill.storage.store import Store

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # as prosemill.config.environment.prepare does


def snapshots_of(store: Store, number: int, says: str = "promote") -> tuple[str, str, str]:
    """finetune, evaluate and gate snapshots as the stages write them, as far as the registry reads them."""
    finetune, evaluation, decision = (f"{stage}-{number:016x}" for stage in ("finetune", "evaluate", "gate"))
    if not store.has(finetune):
        with store.write(finetune, stage="finetune", version=1, parents=[], settings={"seed": number}) as writer:
            rows = [{"step": step, "loss": 4.0 - step / 10, "learning_rate": 1e-4} for step in range(1, 6)]
            rows[-1]["validation_loss"] = 3.4
            writer.path("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            writer.add("log.jsonl", "log", len(rows))
            writer.totals = {"validation_loss": 3.4, "precision": "fp32"}
    scores = {"perplexity": 30.0 - number, "bits_per_byte": 1.5}
    _write_json(store, evaluation, "summary", {"models": {"base": scores, "challenger": scores}})
    _write_json(store, decision, "decision", {"decision": says, "reason": "It is better."})
    return finetune, evaluation, decision


def _write_json(store: Store, snapshot: str, role: str, value: Any) -> None:
    if store.has(snapshot):
        return
    stage = snapshot.split("-", maxsplit=1)[0]
    with store.write(snapshot, stage=stage, version=1, parents=[], settings={}, as_of="2026-01-02") as writer:
        writer.path(f"{role}.json").write_text(json.dumps(value))
        writer.add(f"{role}.json", role, 1)


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry.open(store.url)


def test_a_life_of_versions(store: Store, registry: Registry) -> None:
    first, second = snapshots_of(store, 1), snapshots_of(store, 2)
    assert registry.record("house", *first) == 1
    assert registry.record("house", *first) == 1  # again: nothing new
    assert registry.champion("house") is None
    registry.promote("house", first[0])
    registry.promote("house", first[0])
    champion = registry.champion("house")
    assert champion is not None
    assert (champion.version, champion.snapshot, champion.evaluation, champion.gate) == (1, *first)
    assert (champion.as_of, champion.decision) == ("2026-01-02", "promote")
    assert champion.metrics == {"perplexity": 29.0, "bits_per_byte": 1.5, "validation_loss": 3.4}
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        registry.roll_back("house")

    assert registry.record("house", *second) == 2
    registry.promote("house", second[0])
    aliases = {row["model"]: row["aliases"] for row in registry.describe("house")}
    assert aliases == {"house/2": ["challenger", "champion"], "house/1": ["previous"]}
    assert registry.roll_back("house").snapshot == first[0]
    assert registry.resolve("house@previous") == second[0]
    assert registry.roll_back("house").snapshot == second[0]
    assert [version.version for version in registry.list_versions("house")] == [2, 1]
    assert registry.list_models() == ["house"]

    again = Registry.open(store.url)  # another process would see the same
    assert again.resolve("house") == again.resolve("house@champion") == again.resolve("house/2") == second[0]
    assert again.resolve("house/1") == again.resolve(first[0]) == first[0]
    for wrong in ("house/7", "house@nobody", "cottage", "House", "it was a dark night", "https://a.example/"):
        assert again.resolve_or_none(wrong) is None
        with pytest.raises(RegistryError) as raised:
            again.resolve(wrong)
        assert "\n" not in str(raised.value)
    with pytest.raises(SnapshotMissing):
        again.resolve("finetune-00000000000000ff")
    with pytest.raises(RegistryError, match="is not a version of house"):
        again.promote("house", "finetune-00000000000000ff")


def test_a_version_that_is_decided_on_again_keeps_its_number(store: Store, registry: Registry) -> None:
    finetune, evaluation, decision = snapshots_of(store, 1, says="not-enough-evidence")
    _, later, promoted = snapshots_of(store, 3, says="promote")
    assert registry.record("house", finetune, evaluation, decision) == 1
    assert registry.record("house", finetune, later, promoted) == 1
    (version,) = registry.list_versions("house")
    assert (version.evaluation, version.decision) == (later, "promote")


def test_the_loss_curve_and_the_decision_are_in_mlflow(store: Store, registry: Registry) -> None:
    from mlflow.tracking import MlflowClient

    registry.record("house", *snapshots_of(store, 1))
    client = MlflowClient(f"sqlite:///{store.root}/mlflow.db")
    version = client.get_model_version("house", "1")
    assert version.source == f"{store.root}/snapshots/finetune-{1:016x}/model"
    curve = client.get_metric_history(version.run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(step, 4.0 - step / 10) for step in range(1, 6)]
    run = client.get_run(version.run_id)
    assert run.data.metrics["challenger.perplexity"] == 29.0
    assert run.data.params["seed"] == "1"
    stored = list(Path(store.root, "mlflow-artifacts").rglob("decision.json"))
    assert [json.loads(path.read_text())["decision"] for path in stored] == ["promote"]


def test_an_empty_registry_is_read_without_mlflow(store: Store) -> None:
    script = (
        "import sys; from prosemill.registry.registry import Registry; registry = Registry.open(sys.argv[1])\n"
        "assert registry.champion('house') is None and registry.list_models() == []\n"
        "assert registry.resolve_or_none('house') is None\n"
        "assert 'mlflow' not in sys.modules and 'torch' not in sys.modules"
    )
    here = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", script, store.url], cwd=here, check=True)
    assert not Path(store.root, "mlflow.db").exists()


def test_a_store_elsewhere_needs_a_server() -> None:
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI"):
        Registry.open("memory://bucket/store").list_models()


NO_NETWORK = """
import socket, sys

def refuse(self, address, *rest):
    if self.family != socket.AF_UNIX:
        print("connected to", address, file=sys.stderr)
        raise OSError("no network here")

socket.socket.connect = refuse
from prosemill.config import environment
environment.prepare(sys.argv[1])
from prosemill.registry.registry import Registry
registry = Registry.open(sys.argv[1])
registry.record("house", *sys.argv[2:5])
registry.promote("house", sys.argv[2])
"""


def test_it_calls_nobody_and_prints_nothing(store: Store, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", NO_NETWORK, store.url, *snapshots_of(store, 1)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    environ["PROSEMILL_CACHE"] = str(tmp_path / "cache")  # so that the database is made, not copied
    here = Path(__file__).parent.parent
    done = subprocess.run(arguments, cwd=here, env=environ, capture_output=True, text=True, check=True)
    assert "connected to" not in done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".db"]


def test_a_second_database_is_a_copy_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROSEMILL_CACHE", str(tmp_path / "cache"))
    paths = [tmp_path / name / "mlflow.db" for name in ("one", "other")]
    for path in paths:
        make_database(path)
        assert list(path.parent.iterdir()) == [path]
    (first,) = (tmp_path / "cache").iterdir()
    assert paths[0].read_bytes() == paths[1].read_bytes() == first.read_bytes()


def test_threads_that_make_the_same_database_leave_one(tmp_path: Path) -> None:
    make_database(tmp_path / "first.db")
    together = threading.Barrier(8)

    def make() -> None:
        together.wait()
        make_database(tmp_path / "store" / "mlflow.db")

    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(make) for _ in range(8)]:
            future.result()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["mlflow.db"]
    assert (tmp_path / "store" / "mlflow.db").read_bytes() == (tmp_path / "first.db").read_bytes()
