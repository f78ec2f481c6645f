"""Runs that go wrong: killed, out of memory, exploding, out of budget; and runs on several processes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from prosemill.config.settings import Finetune
from prosemill.errors import TrainingError
from prosemill.finetune import finetune, stage
from prosemill.finetune.chunks import Chunks
from prosemill.finetune.energy import Meter
from prosemill.finetune.plan import affordable, num_examples
from prosemill.finetune.replay import plan_replay
from prosemill.finetune.trainer import is_out_of_memory
from prosemill.finetune.training import train
from prosemill.models import loading
from prosemill.models.bases import Base
from prosemill.storage.store import Store
from tests.tiny import make_base, make_chunks, pack, sentences, texts

ROOT = Path(__file__).parent.parent
QUICK = Finetune(epochs=1, learning_rate=3e-3, batch_chunks=4, micro_batch_chunks=2, evals=2, precision="fp32")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def chunk(store: Store, base: Base) -> str:
    return make_chunks(store, base, texts(40), texts(8, seed=1))


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    monkeypatch.setattr("prosemill.finetune.energy._codecarbon", lambda: None)  # it looks at the machine for seconds


def job_in(folder: Path, store: Store, chunk: str, base: Base, settings: Finetune, **more: Any) -> dict[str, Any]:
    for part in ("work", "output"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    more = {"start": "", **more}
    job = stage.job_of(store, chunk, base, settings, work=folder / "work", output=folder / "output", **more)
    return dict(json.loads(json.dumps(job)))


# --- killed ----------------------------------------------------------------------------------------------------------

# One interpreter that has everything loaded, and a fork of it for each run: starting Python anew costs ten times more.
KILLS = """
import json, os, signal, sys
from prosemill.finetune import energy
from prosemill.finetune.training import train
from prosemill.runtime import subprocesses
import torch
torch.set_num_threads(1)
energy._codecarbon = lambda: None
job, steps = json.loads(sys.argv[1]), json.loads(sys.argv[2])
died_at = []
for step in [*steps, None]:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        subprocesses._out = os.fdopen(write, "w")
        subprocesses.send(result=train(job))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as messages:
        for message in map(json.loads, messages):
            if step is not None and message.get("step", 0) >= step and not message.get("resumed"):
                os.kill(pid, signal.SIGKILL)
                died_at.append(message["step"])
                break
            totals = message.get("result")
    os.waitpid(pid, 0)
print(json.dumps({"died_at": died_at, "totals": totals}))
"""


@pytest.mark.slow
def test_killed_at_ten_random_steps_it_ends_with_the_weights_of_an_unbroken_run(
    store: Store, base: Base, tmp_path: Path
) -> None:
    chunk = make_chunks(store, base, texts(60), texts(6, seed=1))
    settings = QUICK.model_copy(update={"epochs": 2, "dropout": 0.1, "evals": 3, "checkpoint_minutes": 1e-6})
    unbroken = train(job_in(tmp_path / "unbroken", store, chunk, base, settings))
    assert unbroken["steps"] >= 24
    steps = sorted(random.Random(11).sample(range(1, unbroken["steps"]), 10))
    job = job_in(tmp_path / "killed", store, chunk, base, settings)
    done = subprocess.run(
        [sys.executable, "-c", KILLS, json.dumps(job), json.dumps(steps)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["died_at"] == steps
    for name in ("weights_sha256", "validation_loss", "best_step", "steps", "tokens"):
        assert report["totals"][name] == unbroken[name], (name, steps)


# --- out of memory ---------------------------------------------------------------------------------------------------

LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
from transformers import TrainerCallback
from prosemill.finetune import energy, trainer, training
torch.set_num_threads(1)
energy._codecarbon = lambda: None

class Tighten(TrainerCallback):
    # From the third step on, memory for a fraction of the micro-batch: a real allocation has to fail.
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 2:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + (int(sys.argv[2]) << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

made = trainer.ChunkTrainer.__init__
def init(self, *arguments):
    made(self, *arguments)
    self.add_callback(Tighten())
trainer.ChunkTrainer.__init__ = init
print(json.dumps(training.train(json.loads(sys.argv[1]))))
"""


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(store: Store, base: Base, tmp_path: Path) -> None:
    chunk = make_chunks(store, base, sentences(1000, seed=3) * 4, [])
    settings = QUICK.model_copy(update={"batch_chunks": 256, "micro_batch_chunks": 256, "max_steps": 3, "epochs": 9.0})
    plenty = train(job_in(tmp_path / "plenty", store, chunk, base, settings))
    megabytes = "24"
    command = [sys.executable, "-c", LIMITED, json.dumps(job_in(tmp_path / "scarce", store, chunk, base, settings))]
    exact = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is gone, and has to be asked for again
    done = subprocess.run([*command, megabytes], cwd=ROOT, env=exact, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    scarce = json.loads(done.stdout.splitlines()[-1])
    assert (plenty["out_of_memory"], plenty["plan"]["micro_batch_chunks"]) == (0, 256)
    assert scarce["out_of_memory"] >= 1
    assert scarce["plan"]["micro_batch_chunks"] == 256 >> scarce["out_of_memory"]
    assert scarce["tokens"] == plenty["tokens"]
    assert scarce["train_loss"] == pytest.approx(plenty["train_loss"], rel=1e-4)


def test_what_torch_says_of_memory_is_understood() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_killed_child_is_tried_again_with_half_the_micro_batch(tmp_path: Path) -> None:
    assert stage._halve_micro_batch(tmp_path / "plan.json") == 0
    (tmp_path / "plan.json").write_text(json.dumps({"micro_batch_chunks": 3}))
    assert stage._halve_micro_batch(tmp_path / "plan.json") == 1
    assert stage._halve_micro_batch(tmp_path / "plan.json") == 0


# --- explosions and budgets ------------------------------------------------------------------------------------------


def test_an_explosion_stops_the_run_and_commits_nothing(store: Store, base: Base, tmp_path: Path) -> None:
    chunk = make_chunks(store, base, texts(40), [])
    learned = train(job_in(tmp_path / "first", store, chunk, base, QUICK.model_copy(update={"epochs": 12.0})))
    assert learned["train_loss"] < 4
    again = make_base(tmp_path / "base")
    loading.load_model(tmp_path / "first" / "output" / "model").save_pretrained(again.folder)
    wild = QUICK.model_copy(update={"learning_rate": 1.0, "max_grad_norm": 100.0, "warmup_share": 0.0, "epochs": 8.0})
    with pytest.raises(TrainingError, match="exploded; lower the rate") as raised:
        train(job_in(tmp_path / "second", store, chunk, again, wild))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "second" / "output" / "model").exists()


def test_budgets_shorten_the_run_before_it_begins(store: Store, chunk: str) -> None:
    files = [str(store.local(shard.path)) for shard in store.manifest(chunk).shards_of("train")]
    tokens = Chunks(files).num_tokens()
    assert affordable(QUICK, tokens, 1.0) == len(tokens)
    some = QUICK.model_copy(update={"max_tokens": int(tokens[:5].sum())})
    assert affordable(some, tokens, 1.0) == 5
    assert affordable(QUICK.model_copy(update={"max_tokens": 1}), tokens, 1.0) == 1
    hurried = QUICK.model_copy(update={"budget_hours": 10 / 3600})
    assert affordable(hurried, tokens, 1.0) == 8  # 9 of 10 seconds, a second a chunk: two steps of four
    assert affordable(hurried, tokens, 100.0) == 4


def test_a_token_budget_holds(store: Store, base: Base, chunk: str, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"max_tokens": 700, "epochs": 50.0})
    totals = train(job_in(tmp_path, store, chunk, base, settings))
    assert 600 < totals["tokens"] <= 700
    assert not totals["stopped_early"]


# --- what is told and kept -------------------------------------------------------------------------------------------


def test_a_run_tells_how_it_is_going_and_its_plan_makes_the_same_model_again(
    store: Store, base: Base, tmp_path: Path
) -> None:
    chunk = make_chunks(store, base, texts(40), texts(8, seed=1))
    heard: list[dict[str, Any]] = []
    settings = QUICK.model_copy(update={"precision": "auto", "learning_rate": 0.0})
    totals = store.manifest(finetune(store, chunk, base, settings, listener=heard.append)).totals
    live = [message for message in heard if "loss" in message]
    assert live
    assert all(
        message["tokens_per_second"] > 0 and 0 < message["utilisation"] < 1 and message["seconds_left"] >= 0
        for message in live
    )
    assert live[-1]["seconds_left"] == 0
    assert 1e-6 < totals["learning_rate"] < 0.1
    assert (totals["energy_kwh"] is None) == (totals["energy_source"] is None)
    again = train(job_in(tmp_path, store, chunk, base, settings, plan=totals["plan"]))
    assert again["plan"] == totals["plan"]
    assert again["weights_sha256"] == totals["weights_sha256"]


def test_energy_is_read_from_a_counter_that_turns_over_and_is_none_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prosemill.finetune.energy._nvml", lambda: None)
    monkeypatch.setattr("prosemill.finetune.energy._codecarbon", lambda: None)
    nothing = Meter(tmp_path).stop()
    assert (nothing.kwh, nothing.source) == (None, None)
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "max_energy_range_uj").write_text("10000000000")
    (zone / "energy_uj").write_text("9000000000")
    meter = Meter(tmp_path)
    (zone / "energy_uj").write_text("2600000000")  # 3,600 J later
    assert (meter.read().kwh, meter.read().source) == (pytest.approx(0.001), "RAPL")


# --- LoRA, replay, processes -----------------------------------------------------------------------------------------


def test_lora_trains_little_and_leaves_a_plain_model(store: Store, base: Base, chunk: str, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"lora_rank": 4, "learning_rate": 0.02, "epochs": 6.0})
    totals = train(job_in(tmp_path, store, chunk, base, settings))
    assert totals["validation_loss"] < totals["validation_loss_before"] - 0.1  # of a base that knows nothing
    plain, before = loading.load_model(tmp_path / "output" / "model"), loading.load_model(base.folder)
    assert totals["parameters"] == sum(weight.numel() for weight in before.parameters())
    assert torch.equal(plain.transformer.wte.weight, before.transformer.wte.weight)
    assert not torch.equal(plain.transformer.h[0].attn.c_attn.weight, before.transformer.h[0].attn.c_attn.weight)
    checkpoint = max((tmp_path / "work" / "checkpoints").glob("checkpoint-*"))
    trained = sum(path.stat().st_size for path in checkpoint.glob("model.safetensors"))
    assert trained < 0.5 * 4 * totals["parameters"]


def test_gradient_checkpointing_gives_the_same_model(store: Store, base: Base, chunk: str, tmp_path: Path) -> None:
    plain = train(job_in(tmp_path / "plain", store, chunk, base, QUICK))
    saving = train(
        job_in(tmp_path / "saving", store, chunk, base, QUICK.model_copy(update={"gradient_checkpointing": True}))
    )
    assert saving["validation_loss"] == pytest.approx(plain["validation_loss"], rel=1e-5)


def test_replayed_text_is_mixed_in_and_part_of_the_id(store: Store, base: Base, chunk: str, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "one.txt").write_text(" ".join(sentences(30, seed=9)))
    (tmp_path / "old" / "more.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts(9, seed=9)))
    settings = QUICK.model_copy(update={"replay_share": 0.25, "replay": str(tmp_path / "old")})
    first = finetune(store, chunk, base, settings)
    manifest = store.manifest(first)
    num_new = sum(shard.rows for shard in store.manifest(chunk).shards_of("train"))
    assert manifest.totals["plan"]["examples"] == num_examples(settings, num_new) == -(-num_new * 4 // 3)
    assert manifest.totals["replayed_chunks"] >= 5
    assert len(manifest.totals["replay_sha256"]) == 64
    moved = tmp_path / "elsewhere"
    (tmp_path / "old").rename(moved)
    assert finetune(store, chunk, base, settings.model_copy(update={"replay": str(moved)})) == first
    (moved / "one.txt").write_text("Other words.")
    assert (
        plan_replay(store, chunk, settings.model_copy(update={"replay": str(moved)}), "").digest
        != (manifest.totals["replay_sha256"])
    )
    with pytest.raises(TrainingError, match="no text to replay; give a file or folder"):
        plan_replay(store, chunk, settings.model_copy(update={"replay": str(tmp_path / "nothing")}), "")


def test_earlier_chunks_are_replayed_when_training_goes_on_from_a_model_that_saw_them(store: Store, base: Base) -> None:
    old = make_chunks(store, base, texts(20), [])
    seen = store.manifest(old).shards_of("train")
    with store.write("finetune-0000000000000001", stage="finetune", version=2, parents=[old], settings={}):
        pass
    with store.write("chunk-1111111111111111", stage="chunk", version=1, parents=[old], settings={}) as writer:
        table = pack(base, texts(10, seed=4), 64)
        with (
            pa.OSFile(str(writer.path("train-00000.arrow")), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as to,
        ):
            to.write_table(table)
        new = writer.add("train-00000.arrow", "train", table.num_rows)
        writer.inherit(seen)
    settings = QUICK.model_copy(update={"replay_share": 0.2})
    plan = plan_replay(store, "chunk-1111111111111111", settings, "finetune-0000000000000001")
    assert (plan.train, plan.replayed) == ([new], seen)
    from_base = plan_replay(store, "chunk-1111111111111111", settings, "")
    assert {shard.path for shard in from_base.train} == {new.path, *(shard.path for shard in seen)}
    named = plan_replay(store, "chunk-1111111111111111", settings.model_copy(update={"replay": old}), "")
    assert (named.replayed, named.parents) == (seen, [old])


def test_two_processes_learn_what_one_does(store: Store, base: Base, tmp_path: Path) -> None:
    chunk = make_chunks(store, base, texts(40), texts(8, seed=1))
    alone = train(job_in(tmp_path, store, chunk, base, QUICK))
    together = store.manifest(finetune(store, chunk, base, QUICK.model_copy(update={"num_processes": 2}))).totals
    assert together["steps"] == alone["steps"]
    assert together["tokens"] == alone["tokens"]
    for name in ("train_loss", "validation_loss", "validation_loss_before"):
        assert together[name] == pytest.approx(alone[name], rel=1e-4), name


# --- the benchmark of a GPU ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_gpu_benchmark_runs_where_only_torch_transformers_and_accelerate_are(tmp_path: Path) -> None:
    banned = ["prefect", "mlflow", "datasets", "pydantic", "pyarrow"]
    program = (
        f"import sys\nsys.modules.update(dict.fromkeys({banned!r}))\n"
        "sys.argv = ['gpu.py', '--shape', 'tiny', '--device', 'cpu', '--out', 'figures.json']\n"
        f"import runpy\nrunpy.run_path({str(ROOT / 'benchmarks' / 'gpu.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    failed = {
        name: part for name, part in figures.items() if isinstance(part, dict) and part.keys() & {"error", "skipped"}
    }
    assert failed == {}
    assert figures["checks"]["keeps_documents_apart"]
    assert figures["checks"]["nats"]["chosen"] == pytest.approx(figures["checks"]["nats"]["plain"], rel=1e-4)
    assert figures["resume"]["largest_difference"] == 0
    assert all(figures["ratios"].values())
