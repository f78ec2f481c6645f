"""Fine-tuning: documents do not see their neighbours, the best weights are kept, a killed run goes on to the bit."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from prosemill.config.settings import Finetune
from prosemill.errors import BaseModelError, CorpusEmpty, TrainingError
from prosemill.finetune import finetune, stage
from prosemill.finetune.batches import collate, training_order
from prosemill.finetune.chunks import Chunks
from prosemill.finetune.loss import IGNORED
from prosemill.finetune.plan import num_examples
from prosemill.finetune.rates import rate_share
from prosemill.finetune.schedule_callback import best_step, is_over
from prosemill.finetune.training import hold, train
from prosemill.models import bases, loading
from prosemill.models.bases import Base
from prosemill.runtime import progress, subprocesses
from prosemill.storage import stages
from prosemill.storage.store import Store
from tests.tiny import make_base, make_chunks, pack, sentences, texts

QUICK = Finetune(
    epochs=2, learning_rate=3e-3, batch_chunks=4, micro_batch_chunks=2, evals=4, precision="fp32", warmup_share=0.1
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def chunk(store: Store, base: Base) -> str:
    return make_chunks(store, base, texts(60), texts(12, seed=1))


def in_process(store: Store, chunk: str, base: Base, settings: Finetune, folder: Path) -> dict[str, object]:
    """What the child does, in this process."""
    for part in ("work", "output"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    job = stage.job_of(store, chunk, base, settings, start="", work=folder / "work", output=folder / "output")
    return train(json.loads(json.dumps(job)))


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here and in children: two threads that wait for each other are slow on a busy machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    monkeypatch.setattr("prosemill.finetune.energy._codecarbon", lambda: None)  # it looks at the machine for seconds


# --- data ------------------------------------------------------------------------------------------------------------


def test_collate_keeps_documents_apart() -> None:
    row = {"input_ids": np.arange(10, 18, dtype=np.uint16), "starts": np.array([0, 3], np.uint16), "num_tokens": 6}
    batch = collate([row])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 11, 12, IGNORED, 14, 15, IGNORED, IGNORED]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_document_in_a_packed_chunk_has_the_logits_it_has_alone(base: Base) -> None:
    documents = sentences(4, seed=5)
    table = pack(base, documents, 64)
    rows = [{name: np.array(table[name][index].as_py()) for name in table.column_names} for index in range(len(table))]
    assert len(rows[0]["starts"]) > 1
    model = loading.load_model(base.folder)
    batch = collate(rows)
    tokenizer = bases.load_tokenizer(base.folder)
    places = [(row, int(start)) for row, chunk in enumerate(rows) for start in chunk["starts"]]
    with torch.no_grad():
        packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        for text, (row, start) in zip(documents, places, strict=True):
            ids = tokenizer.encode(text).ids
            alone = model(input_ids=torch.tensor([ids])).logits[0]
            assert torch.allclose(packed[row, start : start + len(ids)], alone, atol=1e-5)


def test_the_order_is_a_new_shuffling_each_epoch_and_only_depends_on_the_seed() -> None:
    order = training_order(5, 12, seed=3)
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert order[:5].tolist() != order[5:10].tolist()
    assert order.tolist() == training_order(5, 15, seed=3)[:12].tolist()
    assert order.tolist() != training_order(5, 12, seed=4).tolist()


def test_steps_follow_epochs_and_max_steps() -> None:
    assert num_examples(Finetune(epochs=2.5), 3) == 8
    assert num_examples(Finetune(epochs=0.01), 3) == 1
    assert num_examples(Finetune(epochs=100, max_steps=2, batch_chunks=8), 3) == 16


def test_output_of_the_stage_has_not_changed(store: Store, chunk: str) -> None:
    files = [str(store.local(shard.path)) for shard in store.manifest(chunk).shards_of("train")]
    rows = Chunks(files, training_order(5, 6, seed=0))
    batch = collate([rows[index] for index in range(6)])
    digest = hashlib.sha256(b"".join(batch[name].numpy().tobytes() for name in sorted(batch))).hexdigest()[:16]
    assert (stages.of("finetune").version, digest) == (2, "1c5b33743972b3d2"), "output changed: raise the version"


# --- rules -----------------------------------------------------------------------------------------------------------


def test_the_best_step_is_the_first_lowest_and_patience_counts_from_it() -> None:
    losses = [(0, 1.0), (5, 3.0), (10, 2.0), (15, 2.5), (20, 2.0)]
    history = [{"step": step, "validation_loss": loss} for step, loss in losses]
    assert best_step(history) == 10
    assert is_over(history, 2)
    assert not is_over(history, 3)
    assert best_step([{"step": 3, "loss": 1.0}]) is None


def test_the_learning_rate_climbs_and_falls_and_is_never_0() -> None:
    shares = [rate_share(step, steps=10, warmup=2) for step in range(10)]
    assert shares[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert shares[2:] == sorted(shares[2:], reverse=True)
    assert 0 < shares[-1] < 0.05
    assert rate_share(0, steps=1, warmup=1) == 0.5


# --- training --------------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_model_that_is_better_and_can_be_loaded(store: Store, base: Base, chunk: str) -> None:
    reports: list[tuple[str, int, int | None]] = []
    progress.listen(lambda *report: reports.append(report))
    try:
        snapshot = finetune(store, chunk, base, QUICK, flow_run_id="run")
    finally:
        progress.listen(None)
    manifest = store.manifest(snapshot)
    totals = manifest.totals
    assert totals["validation_loss"] < totals["validation_loss_before"] - 0.5
    assert totals["precision"] == "fp32"
    assert totals["tokens_per_second"] > 0
    assert manifest.parents == [chunk]
    assert manifest.counts.seen == manifest.counts.kept == sum(s.rows for s in store.manifest(chunk).shards_of("train"))
    assert reports[-1] == ("finetune", totals["steps"], totals["steps"])
    folder = store.local(f"{snapshot}/model")
    assert bases.resolve(str(folder)).tokenizer_digest == base.tokenizer_digest
    assert loading.load_model(folder).config.use_cache
    assert {shard.path.split("/", 1)[1] for shard in manifest.shards_of("model")} == {
        f"model/{path.name}" for path in folder.iterdir()
    }
    rows = [json.loads(line) for line in store.open(f"{snapshot}/log.jsonl").read().splitlines()]
    assert rows[0]["step"] == 0
    assert min(row["validation_loss"] for row in rows[1:] if "validation_loss" in row) == totals["validation_loss"]
    assert all({"loss", "learning_rate", "tokens_per_second"} <= row.keys() for row in rows[1:])
    assert list((Path(store.root) / "unfinished").iterdir()) == []
    assert finetune(store, chunk, base, QUICK) == snapshot  # at once: it is there


def test_the_saved_model_is_the_best_one_and_training_stops_when_it_gets_worse(
    store: Store, base: Base, tmp_path: Path
) -> None:
    same = texts(3, seed=7)
    chunk = make_chunks(store, base, same, texts(12, seed=1))  # learned by heart, so that validation gets worse
    settings = QUICK.model_copy(update={"epochs": 150, "learning_rate": 0.02, "evals": 20, "patience": 2})
    totals = in_process(store, chunk, base, settings, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "output" / "log.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row and row["step"]}
    assert totals["stopped_early"]
    assert totals["best_step"] == min(losses, key=lambda step: losses[step]) < max(losses)
    files = [str(store.local(shard.path)) for shard in store.manifest(chunk).shards_of("validation")]
    rows_of = Chunks(files)
    batch = collate([rows_of[index] for index in range(len(rows_of))])
    with torch.no_grad():
        loss = loading.load_model(tmp_path / "output" / "model")(**batch, use_cache=False).loss
    assert float(loss) == pytest.approx(losses[totals["best_step"]], abs=1e-4)
    assert float(loss) < losses[max(losses)]


def test_without_validation_it_trains_to_the_end_even_if_the_batch_is_larger_than_the_corpus(
    store: Store, base: Base, tmp_path: Path
) -> None:
    chunk = make_chunks(store, base, texts(4), [])
    settings = QUICK.model_copy(update={"batch_chunks": 64, "micro_batch_chunks": 8, "epochs": 1.0})
    totals = in_process(store, chunk, base, settings, tmp_path)
    assert (totals["steps"], totals["best_step"], totals["stopped_early"]) == (1, 1, False)
    assert totals["validation_loss"] is None
    assert totals["tokens"] == int(pack(base, texts(4), 64)["num_tokens"].to_numpy().sum())


def test_a_loss_that_is_not_finite_stops_the_run(store: Store, base: Base, chunk: str, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"learning_rate": 1.0, "max_grad_norm": 100.0, "weight_decay": 0.0})
    broken = make_base(tmp_path / "base")
    model = loading.load_model(broken.folder)
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(1e38)
    model.save_pretrained(broken.folder)
    with pytest.raises(TrainingError, match=r"step \d.*learning_rate 1 ") as raised:
        in_process(store, chunk, broken, settings, tmp_path)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_loaded_is_a_base_model_error(store: Store, base: Base, chunk: str, tmp_path: Path) -> None:
    damaged = make_base(tmp_path / "base")
    (damaged.folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(BaseModelError, match="cannot be loaded") as raised:
        in_process(store, chunk, damaged, QUICK, tmp_path)
    assert "\n" not in str(raised.value)


def test_nothing_to_train_on_is_an_empty_corpus(store: Store, base: Base) -> None:
    with pytest.raises(CorpusEmpty, match="no chunk to train on"):
        finetune(store, make_chunks(store, base, [], texts(3)), base, QUICK)


def test_a_second_run_of_the_same_model_is_refused(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(TrainingError, match="another process is training"), hold(tmp_path, 0.2):
        pass
    with hold(tmp_path, 0.2):
        pass


def test_the_id_covers_what_decides_the_weights() -> None:
    assert stage.identity_settings(QUICK) == stage.identity_settings(QUICK.model_copy(update={"max_hours": 1.0}))
    assert stage.identity_settings(QUICK) != stage.identity_settings(QUICK.model_copy(update={"seed": 1}))


# --- killed and resumed ----------------------------------------------------------------------------------------------

RUN = """
import sys
from prosemill.config.settings import Finetune
from prosemill.finetune import finetune
from prosemill.models import bases
from prosemill.storage.store import Store
finetune(Store(sys.argv[1]), sys.argv[2], bases.resolve(sys.argv[3]), Finetune.model_validate_json(sys.argv[4]))
"""


def kill_at(store: Store, chunk: str, base: Base, settings: Finetune, step: int) -> int:
    """Start a run in another process, kill it with SIGKILL after the checkpoint of `step`; the step it had reached."""
    arguments = [store.url, chunk, str(base.folder), settings.model_dump_json()]
    parent = subprocess.Popen([sys.executable, "-c", RUN, *arguments], cwd=Path(__file__).parent.parent)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        checkpoints = Path(store.root).glob("unfinished/*/checkpoints/checkpoint-*")
        steps = [int(path.name.split("-")[1]) for path in checkpoints]
        if max(steps, default=0) >= step:
            break
        assert parent.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    return max(steps)


def test_killed_and_resumed_is_the_same_model_to_the_bit(store: Store, base: Base, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"epochs": 2, "dropout": 0.1, "checkpoint_minutes": 1e-6})
    chunk = make_chunks(store, base, texts(60), texts(12, seed=1))
    seldom = settings.model_copy(update={"checkpoint_minutes": 60.0})
    expected = in_process(store, chunk, base, seldom, tmp_path / "unbroken")
    assert kill_at(store, chunk, base, settings, 9) < expected["steps"]
    assert not [snapshot for snapshot in store.snapshots() if snapshot.startswith("finetune")]
    totals = store.manifest(finetune(store, chunk, base, settings)).totals
    for name in ("weights_sha256", "validation_loss", "best_step", "steps", "tokens"):
        assert totals[name] == expected[name], name


@pytest.mark.slow
def test_two_processes_with_a_share_each_go_on_after_a_kill_and_learn_what_one_does(
    store: Store, base: Base, tmp_path: Path
) -> None:
    settings = QUICK.model_copy(update={"epochs": 1, "evals": 2, "checkpoint_minutes": 1e-6})
    alone = Store(str(tmp_path / "alone"))
    expected = finetune(alone, make_chunks(alone, base, texts(40), texts(8, seed=1)), base, settings)
    chunk = make_chunks(store, base, texts(40), texts(8, seed=1))
    shared = settings.model_copy(update={"num_processes": 2, "fsdp": True})
    kill_at(store, chunk, base, shared, 2)
    steps: list[int] = []
    resumed = finetune(store, chunk, base, shared, listener=lambda message: steps.append(message["step"]))
    assert min(steps) >= 2
    one, two = alone.manifest(expected).totals, store.manifest(resumed).totals
    assert two["steps"] == one["steps"]
    for name in ("train_loss", "validation_loss", "validation_loss_before"):
        assert two[name] == pytest.approx(one[name], rel=1e-4), name
    learned = loading.load_model(store.local(f"{resumed}/model")).state_dict()
    for name, weight in loading.load_model(alone.local(f"{expected}/model")).state_dict().items():
        torch.testing.assert_close(learned[name], weight, rtol=1e-3, atol=1e-4)


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from prosemill.runtime.subprocesses import run_child\n"
        "run_child('tiny_child', {'pid_file': sys.argv[1]}, timeout_seconds=60, on_line=lambda line: None)"
    )
    child = "import os, sys, time\nfrom pathlib import Path\nfrom prosemill.runtime import subprocesses\n\n"
    child += "def work(job):\n    Path(job['pid_file']).write_text(str(os.getpid()))\n    time.sleep(60)\n\n"
    child += "subprocesses.serve(work)\n"
    (tmp_path / "tiny_child.py").write_text(child)
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    here = Path(__file__).parent.parent
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", script, str(pid_file)], cwd=here, env=environ)
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    pid = int(pid_file.read_text())
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


def run_script(folder: Path, body: str, **options: float) -> list[subprocesses.Message]:
    """Run a child whose work is `body`; what it told."""
    lines = [
        "import sys, time",
        "from prosemill import errors",
        "from prosemill.runtime import subprocesses",
        "def work(job):",
        f"    {body}",
    ]
    name = f"tiny_child_{folder.name}"
    (folder / f"{name}.py").write_text("\n".join([*lines, "subprocesses.serve(work)"]))
    heard: list[subprocesses.Message] = []
    subprocesses.run_child(name, {"answer": 42}, on_line=heard.append, **{"timeout_seconds": 30, **options})
    return heard


def test_a_child_answers_or_says_in_one_line_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    prints = "print('not a message'); subprocesses.send(answer=job['answer'])"
    assert run_script(tmp_path, prints) == [{"answer": 42}]
    with pytest.raises(CorpusEmpty, match="nothing here"):  # its own error is ours
        run_script(tmp_path, "raise errors.CorpusEmpty('nothing here')")
    with pytest.raises(subprocesses.ChildDied, match="exit code 1: ValueError: wrong") as raised:
        run_script(tmp_path, "raise ValueError('wrong')")
    assert "\n" not in str(raised.value)
    with pytest.raises(subprocesses.ChildDied) as raised:
        run_script(tmp_path, "subprocesses.send(started=True); time.sleep(60)", timeout_seconds=1.5)
    assert raised.value.timed_out


def test_a_training_process_that_died_is_explained(tmp_path: Path) -> None:
    killed = subprocesses.ChildDied("m", -9, "step 3")
    late = subprocesses.ChildDied("m", -15, "step 3", timed_out=True)
    other = subprocesses.ChildDied("m", 1, "IndexError: index out of range")
    assert "micro_batch_chunks (now 2)" in stage._explain(killed, QUICK, tmp_path)
    assert "finetune.max_hours 24" in stage._explain(late, QUICK, tmp_path)
    assert "IndexError: index out of range" in stage._explain(other, QUICK, tmp_path)
