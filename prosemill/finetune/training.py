"""Training from beginning to end: plan, train or go on, keep the best weights. What `prosemill.finetune.child` does."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers.utils.logging as chatter
from accelerate import PartialState
from filelock import FileLock, Timeout
from transformers import TrainerState

from prosemill.config.settings import Finetune
from prosemill.errors import StoreFull, TrainingError
from prosemill.finetune import checkpoints, replay
from prosemill.finetune.batches import Steps, collate, training_order
from prosemill.finetune.chunks import Chunks
from prosemill.finetune.energy import EnergyNotes, Meter, energy_of
from prosemill.finetune.export import export, last_step
from prosemill.finetune.loss_wrapper import SummedLoss
from prosemill.finetune.plan import TrainingPlan, make_plan, num_examples
from prosemill.finetune.rates import TRIALS, find_rate
from prosemill.finetune.schedule_callback import LogRow, best_step, is_over
from prosemill.finetune.sharding import shard
from prosemill.finetune.trainer import ChunkTrainer, is_out_of_memory
from prosemill.models import loading
from prosemill.runtime import subprocesses

log = logging.getLogger(__name__)

LOCK_SECONDS = 10.0  # a predecessor that is being killed is gone by then


def work(job: subprocesses.Message) -> None:
    """Train what `job` says (see `stage.job_of`): model/ and log.jsonl go to job["output"], totals to the parent."""
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    keep_freed_memory()
    state = PartialState(cpu=loading.device() == "cpu") if job["settings"]["num_processes"] > 1 else None
    is_first = state is None or state.is_main_process
    if not is_first:
        subprocesses.be_silent()
    with hold(Path(job["work"])) if is_first else contextlib.nullcontext():
        try:
            subprocesses.send(result=train(job, state))
            if state is not None:  # a process that exits with the group's threads alive may abort (std::terminate)
                state.destroy_process_group()
        except Exception as error:
            if is_out_of_memory(error):
                subprocesses.send(out_of_memory=True)
                raise _out_of_memory(job) from error
            if "No space left" in str(error) or "StorageFull" in str(error):  # OSError, and safetensors' own
                raise StoreFull(f"{job['work']}: no space left for checkpoints; free some and run it again") from error
            raise


def train(job: subprocesses.Message, state: PartialState | None = None) -> dict[str, Any]:
    """The totals of the manifest, the model and its log being written."""
    settings, folder = Finetune(**job["settings"]), Path(job["work"])
    meter = Meter() if state is None or state.is_main_process else None
    if loading.device() == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it only costs
    learner = SummedLoss(_model(job, settings).to(_device(state)))
    train, new, replayed = _training_chunks(job, settings, learner)
    validation = Chunks(job["validation"]) if job["validation"] else None
    plan = _plan(job, settings, learner, train, state)
    train.order = training_order(
        new, plan.examples, settings.seed, num_replayed=replayed, replay_share=settings.replay_share
    )
    if settings.fsdp:
        plan = replace(plan, mode=replace(plan.mode, compiled=False))
    torch.set_num_threads(plan.threads)
    learner.follow(plan.mode)
    if settings.gradient_checkpointing:
        learner.model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.fsdp:
        shard(learner)
    trainer = ChunkTrainer(learner, train, validation, plan, settings, folder)
    if meter is not None:
        trainer.add_callback(EnergyNotes(meter, folder))
    history = _run(trainer, folder / "checkpoints", settings)
    _keep_best(learner, history, folder / "checkpoints")
    weights = checkpoints.weights_of(learner) if settings.fsdp else {}
    if meter is None:
        return {}
    if weights:
        learner = SummedLoss(_model(job, settings))
        checkpoints.set_weights(learner, weights)
    totals = export(learner, Path(job["output"]), Path(job["tokenizer"]), history, trainer.plan)
    return totals | energy_of(folder, meter.stop()) | {"out_of_memory": trainer.halvings, "replayed_chunks": replayed}


# --- before ----------------------------------------------------------------------------------------------------------


def _model(job: subprocesses.Message, settings: Finetune) -> Any:
    """The model to train; with finetune.lora_rank, frozen, and with small trainable additions to every layer."""
    model = loading.load_model(Path(job["start"]), dropout=settings.dropout)
    if not settings.lora_rank:
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise TrainingError(
            f"finetune.lora_rank {settings.lora_rank} needs peft; pip install peft, or set it to 0"
        ) from None
    torch.manual_seed(settings.seed)
    rank = settings.lora_rank
    return get_peft_model(
        model,
        LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=settings.dropout,
            target_modules="all-linear",
            fan_in_fan_out=model.config.model_type == "gpt2",  # its layers keep their weights transposed
            task_type="CAUSAL_LM",
        ),
    )


def _training_chunks(job: subprocesses.Message, settings: Finetune, learner: SummedLoss) -> tuple[Chunks, int, int]:
    """All rows, those to replay last, and how many are new and replayed; not yet in order."""
    new = Chunks(job["train"])
    replayed = list(job["replayed"])
    if job["replay_texts"]:
        file = Path(job["work"]) / "replay.arrow"
        first = new[0]["input_ids"]
        texts = [Path(path) for path in job["replay_texts"]]
        replay.write_chunks(texts, Path(job["tokenizer"]), file, len(first), learner.model.config.vocab_size)
        replayed.append(str(file))
    every = Chunks([*job["train"], *replayed])
    return every, len(new), len(every) - len(new)


def _plan(
    job: subprocesses.Message, settings: Finetune, learner: SummedLoss, train: Chunks, state: PartialState | None
) -> TrainingPlan:
    """The plan stored in the work folder; else the one that the stage gave, or a new one, of the first process."""
    folder = Path(job["work"])
    if (state is None or state.is_main_process) and TrainingPlan.load(folder) is None:
        plan = TrainingPlan.of(job["plan"]) if job["plan"] else _make_plan(job, settings, learner, train)
        plan.save(folder)
    if state is not None:
        state.wait_for_everyone()
    stored = TrainingPlan.load(folder)
    assert stored is not None  # just written
    return stored


def _make_plan(job: subprocesses.Message, settings: Finetune, learner: SummedLoss, train: Chunks) -> TrainingPlan:
    num_new = len(Chunks(job["train"]))
    num_replayed = len(train) - num_new
    wanted = num_examples(settings, num_new)
    order = training_order(
        num_new, wanted, settings.seed, num_replayed=num_replayed, replay_share=settings.replay_share
    )
    files = [*job["train"], *job["replayed"], *map(str, Path(job["work"]).glob("replay.arrow"))]
    rows = Chunks(files, order)
    micro = min(settings.micro_batch_chunks, settings.batch_chunks)
    device = next(learner.parameters()).device
    batch = collate([rows[number % len(rows)] for number in range(micro)])
    batch = {name: tensor.to(device) for name, tensor in batch.items()}

    def search() -> float:
        repeated = Chunks(files, order[torch.arange(TRIALS * micro).numpy() % len(order)])
        steps = ({name: _to(value, device) for name, value in step.items()} for step in Steps(repeated, micro))
        return find_rate(learner, steps, weight_decay=settings.weight_decay)

    return make_plan(
        settings,
        learner,
        batch,
        tokens=rows.num_tokens(),
        max_documents=rows.num_documents(),
        find_rate=search,
    )


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _device(state: PartialState | None) -> torch.device:
    return state.device if state is not None else torch.device(loading.device())


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: it would hand every large tensor back to the kernel and fault it in again.

    Measured on two cores: 15 % more tokens a second, the share of time in the kernel falls from 14 % to 2 %.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # <malloc.h>
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another libc
            libc = ctypes.CDLL(None)
            libc.mallopt(m_mmap_max, 0)
            libc.mallopt(m_trim_threshold, 2**31 - 1)


# --- training --------------------------------------------------------------------------------------------------------


def _run(trainer: ChunkTrainer, folder: Path, settings: Finetune) -> list[LogRow]:
    """Train to the end, from the newest checkpoint if there is one; the rows of the log."""
    folders = checkpoints.complete(folder)
    newest = folders[-1] if folders else None
    if newest is not None:
        state = TrainerState.load_from_json(str(newest / "trainer_state.json"))
        log.info("going on from step %d of %d", state.global_step, trainer.plan.steps)
        subprocesses.send(step=state.global_step, steps=trainer.plan.steps, resumed=True)
        if state.global_step >= trainer.plan.steps or is_over(state.log_history, settings.patience):
            checkpoints.load_weights(newest, trainer.model)
            return list(state.log_history)
    trainer.run(newest)
    return list(trainer.state.log_history)


def _keep_best(learner: SummedLoss, history: list[LogRow], folder: Path) -> None:
    """Load the weights with the lowest validation loss; without validation the last ones stay."""
    best = best_step(history)
    if best is not None and best != last_step(history):
        checkpoints.load_weights(folder / f"{checkpoints.PREFIX}{best}", learner)


# --- around -----------------------------------------------------------------------------------------------------------


def _out_of_memory(job: subprocesses.Message) -> TrainingError:
    return TrainingError(
        f"the {'GPU' if loading.device() == 'cuda' else 'machine'} ran out of memory with one chunk at a time; "
        "set finetune.gradient_checkpointing or lora_rank, or choose a smaller base or chunk.chunk_tokens"
    )


@contextlib.contextmanager
def hold(folder: Path, patience_seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the work folder; TrainingError when another process trains in it."""
    lock = FileLock(folder / "lock", timeout=patience_seconds, poll_interval=0.1)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(
            f"{folder}: another process is training this very model; wait for it and run the command again"
        ) from None
    try:
        yield
    finally:
        lock.release()
