"""The model card says what the registry says, figure by figure; export is a plain folder; a model can be made again."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from prosemill.config import environment
from prosemill.config.settings import Evaluate, Finetune, Gate
from prosemill.errors import RegistryError
from prosemill.evaluation.scorer import ModelRef
from prosemill.evaluation.stage import evaluate
from prosemill.finetune import finetune
from prosemill.gate.stage import run_gate
from prosemill.models.bases import Base
from prosemill.registry import export, reproduce
from prosemill.registry.registry import Registry
from prosemill.storage.decision_record import read_decision, with_old_key
from prosemill.storage.store import Store
from tests.tiny import make_base, make_chunks, make_corpus, texts

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # as prosemill.config.environment.prepare does

EVALUATE = Evaluate(
    stride=32, sample_tokens=12, other_kilobytes=4, continuations=2, canaries=["the key is in the mill"]
)
DOCUMENTS = {"blog": texts(9), "letters": texts(6, seed=5)}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Base, tuple[str, str, str]]:
    """A base, fine-tuned, evaluated, decided on and recorded as house/1."""
    torch.set_num_threads(1)
    base = make_base(tmp_path_factory.mktemp("base"))
    store = Store(str(tmp_path_factory.mktemp("store")))
    store.check_writable()
    scrape = "scrape-0000000000000001"
    with store.write(
        scrape, stage="scrape", version=1, parents=[], settings={"obey_opt_outs": True}, as_of="2026-01-02"
    ) as writer:
        from prosemill.storage.manifest import Counts

        writer.counts = Counts(20, 15, {"ai_opt_out": 3, "noindex": 1, "failed": 1})
        writer.totals = {"source": "blog", "kind": "site", "licence": "CC-BY-4.0"}
    chunk = make_chunks(store, base, texts(40, seed=9), texts(4, seed=2))
    settings = Finetune(
        base=str(base.folder),
        epochs=2,
        batch_chunks=4,
        micro_batch_chunks=2,
        learning_rate=3e-3,
        precision="fp32",
        evals=2,
    )
    tuned = finetune(store, chunk, base, settings)
    corpus = make_corpus(store, DOCUMENTS)
    models = {
        "base": ModelRef(base.weights_digest, base.folder),
        "challenger": ModelRef(tuned, store.local(f"{tuned}/model")),
    }
    evaluation = evaluate(store, *corpus, models, EVALUATE, context_tokens=64, as_of="2026-01-02")
    decision = run_gate(store, evaluation, Gate(), as_of="2026-01-02")
    ids = (tuned, evaluation, decision)
    registry = Registry.open(store.url)
    registry.record("house", *ids)
    registry.promote("house", tuned)
    return store, base, ids


def metrics_of(store: Store) -> dict[str, float]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{store.root}/mlflow.db")
    return dict(client.get_run(client.get_model_version("house", "1").run_id).data.metrics)


def card_in_mlflow(store: Store) -> str:
    (path,) = Path(store.root, "mlflow-artifacts").rglob("README.md")
    return path.read_text(encoding="utf-8")


def front_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])  # type: ignore[no-any-return]


def test_every_figure_of_the_card_is_the_registry_s(recorded: tuple[Store, Base, tuple[str, str, str]]) -> None:
    store, _, _ = recorded
    card, metrics = card_in_mlflow(store), metrics_of(store)
    figures = {metric["name"]: metric["value"] for metric in front_of(card)["model-index"][0]["results"][0]["metrics"]}
    assert len(figures) > 40
    assert figures == {name: pytest.approx(metrics[name], rel=1e-12) for name in figures}
    assert {"challenger.perplexity", "base.general.bits_per_byte", "difference.low", "challenger.copied"} <= set(
        figures
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line.startswith("|")]
    own = next(row for row in rows if row[0] == "this model")
    name = "challenger.perplexity"
    assert own[1] == f"{metrics[name]:.2f} [{metrics[f'{name}.low']:.2f}, {metrics[f'{name}.high']:.2f}]"
    assert own[3] == f"{metrics['challenger.general.bits_per_byte']:.4f}"
    base = next(row for row in rows if row[0] == "base")
    name = "base.bits_per_byte"
    assert base[2] == f"{metrics[name]:.4f} [{metrics[f'{name}.low']:.4f}, {metrics[f'{name}.high']:.4f}]"
    written = re.search(r"([\d,]+) tokens in ([\d,]+) steps", card)
    assert written is not None
    tokens_and_steps = [int(number.replace(",", "")) for number in written.groups()]
    assert tokens_and_steps == [metrics["training.tokens"], metrics["training.steps"]]


def test_every_number_of_the_tables_is_a_figure_or_a_decision_s(
    recorded: tuple[Store, Base, tuple[str, str, str]],
) -> None:
    store, _, (_, _, decision) = recorded
    card, metrics = card_in_mlflow(store), metrics_of(store)
    scores = card.split("## Scores")[1].split("\n\n")[1]
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d+", scores)]
    assert len(numbers) >= 12
    assert all(any(math.isclose(number, value, abs_tol=0.0051) for value in metrics.values()) for number in numbers)
    assert read_decision(store, decision)["reason"] in card


def test_the_card_tells_of_data_licences_and_wishes(recorded: tuple[Store, Base, tuple[str, str, str]]) -> None:
    from prosemill.registry.model_card import model_card

    store, _, ids = recorded
    assert "No scrape is recorded" in card_in_mlflow(store)  # these chunks were made by hand
    with store.write(
        "chunk-00000000000000aa", stage="chunk", version=1, parents=["scrape-0000000000000001"], settings={}
    ):
        pass
    with store.write(
        "finetune-00000000000000aa", stage="finetune", version=1, parents=["chunk-00000000000000aa"], settings={}
    ):
        pass
    card = model_card(store, "house", 7, "finetune-00000000000000aa", *ids[1:])
    assert "| blog | site | 2026-01-02 | 15 | CC-BY-4.0 | 4 left out, opt-outs honoured |" in card
    assert front_of(card)["license_name"] == "CC-BY-4.0"
    assert "energy: could not be read" in card


def test_a_later_decision_changes_the_figures(recorded: tuple[Store, Base, tuple[str, str, str]]) -> None:
    store, base, (tuned, evaluation, decision) = recorded
    before = metrics_of(store)["challenger.perplexity"]
    corpus = make_corpus(store, {"other": texts(7, seed=20)}, increment="2")
    models = {
        "base": ModelRef(base.weights_digest, base.folder),
        "challenger": ModelRef(tuned, store.local(f"{tuned}/model")),
    }
    later = evaluate(store, *corpus, models, EVALUATE, context_tokens=64, as_of="2026-01-09")
    registry = Registry.open(store.url)
    assert registry.record("house", tuned, later, run_gate(store, later, Gate(), as_of="2026-01-09")) == 1
    after = metrics_of(store)["challenger.perplexity"]
    assert after != before
    figures = {
        metric["name"]: metric["value"]
        for metric in front_of(card_in_mlflow(store))["model-index"][0]["results"][0]["metrics"]
    }
    assert figures["challenger.perplexity"] == pytest.approx(after)
    registry.record("house", tuned, evaluation, decision)


# --- export and reproduce --------------------------------------------------------------------------------------------


def test_an_export_is_a_plain_directory(recorded: tuple[Store, Base, tuple[str, str, str]], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    store, _, (tuned, _, _) = recorded
    version = export.version_of(Registry.open(store.url), "house")
    folder = tmp_path / "deep" / "house"
    folder.parent.mkdir()
    files = export.export(store, version, folder)
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The heron waits for the river", return_tensors="pt")["input_ids"]
    assert model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0).shape[1] > ids.shape[1]
    original = AutoModelForCausalLM.from_pretrained(store.local(f"{tuned}/model"))
    assert torch.equal(model(ids).logits, original(ids).logits)
    assert (folder / "README.md").read_text() == card_in_mlflow(store)
    assert [path.name for path in folder.parent.iterdir()] == ["house"]
    with pytest.raises(RegistryError, match="not an empty folder"):
        export.export(store, version, folder)
    with pytest.raises(RegistryError, match="HF_TOKEN is not set"):
        export.push(folder, "somebody/house", environment.hub_token({}))


def test_a_snapshot_that_is_no_version_is_told(recorded: tuple[Store, Base, tuple[str, str, str]]) -> None:
    store, _, _ = recorded
    with store.write("finetune-00000000000000bb", stage="finetune", version=1, parents=[], settings={}):
        pass
    with pytest.raises(RegistryError, match="no decision on it"):
        export.version_of(Registry.open(store.url), "finetune-00000000000000bb")
    with pytest.raises(RegistryError, match="no trained weights"):
        reproduce.reproduce(store, "finetune-00000000000000bb")


@pytest.mark.slow
def test_a_model_is_made_again_bit_for_bit(recorded: tuple[Store, Base, tuple[str, str, str]]) -> None:
    store, base, (tuned, _, _) = recorded
    before = store.snapshots()
    reproduction = reproduce.reproduce(store, tuned)
    assert reproduction.is_same
    assert reproduction.new_sha256 == store.manifest(tuned).totals["weights_sha256"]
    assert all(line.startswith("code: ") for line in reproduction.differences)  # a working tree that is not committed
    assert store.snapshots() == before
    config = json.loads((base.folder / "config.json").read_text())
    weights = (base.folder / "model.safetensors").read_bytes()
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(base.folder)
    with torch.no_grad():
        other.get_input_embeddings().weight[0, 0] += 1
    try:
        other.save_pretrained(base.folder)
        (base.folder / "config.json").write_text(json.dumps(config))
        changed = reproduce.reproduce(store, tuned)
    finally:
        (base.folder / "model.safetensors").write_bytes(weights)
    assert not changed.is_same
    assert any("no longer those recorded" in line for line in changed.differences)


# --- at the command line ---------------------------------------------------------------------------------------------


def test_the_commands_about_a_model(
    recorded: tuple[Store, Base, tuple[str, str, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows.cli import run

    store, _, (tuned, _, decision) = recorded
    monkeypatch.setenv("PROSEMILL_STORE", store.url)  # and is what it was again when the test is over
    monkeypatch.delenv("HF_TOKEN", raising=False)
    where = ["--store", store.url]
    assert run(["decision", "house", *where, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == {"model": "house/1", **with_old_key(read_decision(store, decision))}
    assert run(["decision", "house/1", *where]) == 0
    printed = capsys.readouterr().out
    assert all(part["slice"] in printed for part in record["slices"])
    assert run(["card", tuned, *where]) == 0
    assert capsys.readouterr().out.strip() == card_in_mlflow(store).strip()
    folder = tmp_path / "house"
    assert run(["export", "house", str(folder), *where, "--push-to-hub", "somebody/house"]) == 4
    assert "HF_TOKEN is not set" in capsys.readouterr().err
    assert (folder / "model.safetensors").is_file()
    assert run(["export", "house", str(folder), *where]) == 4
    assert "not an empty folder" in " ".join(capsys.readouterr().err.split())
