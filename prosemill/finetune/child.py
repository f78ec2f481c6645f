"""The process that trains: plan, train or go on, keep the best weights. Started by `prosemill.finetune.stage`."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers.utils.logging as chatter
from safetensors.torch import load_file
from transformers import TrainerState

from prosemill import children, models
from prosemill.errors import StoreFull, TrainingError
from prosemill.finetune import checkpoints
from prosemill.finetune.data import Chunks, collate, training_order
from prosemill.finetune.plan import Plan, make_plan, num_examples
from prosemill.finetune.trainer import ChunkTrainer, LogRow, best_step, is_over
from prosemill.settings import Finetune

log = logging.getLogger(__name__)

LOCK_SECONDS = 10.0  # a predecessor that is being killed is gone by then


def work(job: children.Message) -> None:
    """Train what `job` says (see `stage.job_of`): model/ and log.jsonl go to job["output"], the totals are told."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    with hold(Path(job["work"])):
        try:
            children.tell(result=train(job))
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise _out_of_memory(job) from error
        except Exception as error:
            if "can't allocate memory" in str(error) or "out of memory" in str(error):
                raise _out_of_memory(job) from error
            if "No space left" in str(error) or "StorageFull" in str(error):  # OSError, and safetensors' own
                raise StoreFull(f"{job['work']}: no space left for checkpoints; free some and run it again") from error
            raise


def train(job: children.Message) -> dict[str, Any]:
    """The totals of the manifest, the model and its log being written."""
    settings, folder = Finetune(**job["settings"]), Path(job["work"])
    model = models.load_model(Path(job["start"]), dropout=settings.dropout)
    num_chunks = len(Chunks(job["train"]))
    order = training_order(num_chunks, num_examples(settings, num_chunks), settings.seed)
    train = Chunks(job["train"], order)
    validation = Chunks(job["validation"]) if job["validation"] else None
    micro = min(settings.micro_batch_chunks, settings.batch_chunks)
    batch = collate([train[row % len(train)] for row in range(micro)])
    plan = make_plan(folder, settings, num_chunks, model, batch)
    torch.set_num_threads(plan.threads)
    if models.device() == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it only costs
    trainer = ChunkTrainer(model, train, validation, plan, settings, folder / "checkpoints")
    history = _run(trainer, folder / "checkpoints", settings)
    _keep_best(model, history, folder / "checkpoints")
    return _save(model, Path(job["output"]), Path(job["tokenizer"]), history, plan)


def _run(trainer: ChunkTrainer, folder: Path, settings: Finetune) -> list[LogRow]:
    """Train to the end, from the newest checkpoint if there is one; the rows of the log."""
    found = checkpoints.complete(folder)
    newest = found[-1] if found else None
    if newest is not None:
        state = TrainerState.load_from_json(str(newest / "trainer_state.json"))
        log.info("going on from step %d of %d", state.global_step, trainer.plan.steps)
        children.tell(step=state.global_step, steps=trainer.plan.steps, resumed=True)
        if state.global_step >= trainer.plan.steps or is_over(state.log_history, settings.patience):
            trainer.model.load_state_dict(load_file(newest / "model.safetensors"), strict=False)
            return list(state.log_history)
    trainer.run(newest)
    return list(trainer.state.log_history)


def _keep_best(model: Any, history: list[LogRow], folder: Path) -> None:
    """Load the weights with the lowest validation loss; without validation the last ones stay."""
    best = best_step(history)
    if best is not None and best != _last_step(history):
        checkpoint = folder / f"{checkpoints.PREFIX}{best}"
        model.load_state_dict(load_file(checkpoint / "model.safetensors"), strict=False)  # tied weights are stored once


def _save(model: Any, output: Path, tokenizer: Path, history: list[LogRow], plan: Plan) -> dict[str, Any]:
    """Write `output`/model and `output`/log.jsonl; the totals of the manifest."""
    folder = output / "model"
    model.config.use_cache = True  # it was off for training
    model.save_pretrained(folder)
    for name in models.TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, folder / name)
    rows = log_rows(history)
    (output / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    steps = _last_step(history)
    trained = [row for row in history if "loss" in row]
    measured = {row["step"]: row["validation_loss"] for row in history if "validation_loss" in row}
    best = best_step(history) or steps
    tokens = sum(row["tokens"] for row in trained)
    seconds = sum(row["tokens"] / row["tokens_per_second"] for row in trained if row["tokens"])
    return {
        "steps": steps,
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 1) if seconds else 0.0,
        "precision": plan.precision,
        "train_loss": trained[-1]["loss"],
        "validation_loss_before": measured.get(0),
        "validation_loss": measured.get(best),
        "best_step": best,
        "stopped_early": steps < plan.steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": weights_sha256(folder),
    }


def log_rows(history: list[LogRow]) -> list[LogRow]:
    """One row a step of what is worth keeping of the Trainer's log, in order."""
    kept = ("loss", "learning_rate", "grad_norm", "validation_loss", "tokens_per_second")
    rows: dict[int, LogRow] = {}
    for entry in history:
        found = {name: entry[name] for name in kept if name in entry}
        if found:
            rows.setdefault(entry["step"], {"step": entry["step"]}).update(found)
    return [rows[step] for step in sorted(rows)]


def weights_sha256(folder: Path) -> str:
    """Digest of the weight files of a model, in the order of their names."""
    files = sorted(folder.glob("*.safetensors"))
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()


def _last_step(history: list[LogRow]) -> int:
    return max(int(row["step"]) for row in history)


def _out_of_memory(job: children.Message) -> TrainingError:
    micro = job["settings"]["micro_batch_chunks"]
    return TrainingError(
        f"the {'GPU' if models.device() == 'cuda' else 'machine'} ran out of memory with finetune.micro_batch_chunks "
        f"{micro}; " + ("halve it" if micro > 1 else "choose a smaller base or chunk.chunk_tokens")
    )


@contextlib.contextmanager
def hold(folder: Path, patience_seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the work folder; TrainingError when another process trains in it."""
    deadline = time.monotonic() + patience_seconds
    with open(folder / "lock", "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TrainingError(
                        f"{folder}: another process is training this very model; wait for it and run the command again"
                    ) from None
                time.sleep(0.1)
        yield


if __name__ == "__main__":
    children.serve(work)
