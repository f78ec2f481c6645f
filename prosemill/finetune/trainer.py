"""transformers' Trainer, with an exact validation loss, checkpoints that resume to the bit, and no silent nan.

It steps over whole batches; the micro-batches are made here, so that one that does not fit into the memory can be
halved while the batch stays what it was. Needs torch, transformers and accelerate, no more.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments

from prosemill.errors import TrainingError
from prosemill.finetune import checkpoints
from prosemill.finetune.attention import VARLEN, boundaries_of
from prosemill.finetune.batches import Rows, Steps, collate, num_scored
from prosemill.finetune.compat import HookedTrainer
from prosemill.finetune.loss import IGNORED
from prosemill.finetune.loss_wrapper import SummedLoss
from prosemill.finetune.plan import TrainingPlan
from prosemill.finetune.rates import rate_share
from prosemill.finetune.schedule_callback import TrainingSchedule, best_step
from prosemill.finetune.sharding import whole
from prosemill.runtime import subprocesses

if TYPE_CHECKING:
    from prosemill.config.settings import Finetune

log = logging.getLogger(__name__)

# A loss this far above the first one is an explosion: a model that guesses among 50,000 tokens has 10.8 nats, one that
# has learned to write 3 to 5, and batches differ from one another by less.
EXPLODED_NATS = 2.0
REPORTED = ("loss", "validation_loss", "learning_rate", "grad_norm")  # of what is logged


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: of a GPU, or of the machine (where torch has no error class of its own for it)."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(sign in text for sign in ("can't allocate memory", "out of memory", "not enough memory"))
    )


class ChunkTrainer(HookedTrainer):
    """Trains `learner` on `train` in its order; `validation` may be None. `work` holds the plan and the checkpoints."""

    def __init__(
        self,
        learner: SummedLoss,
        train: Rows,
        validation: Rows | None,
        plan: TrainingPlan,
        settings: Finetune,
        work: Path,
    ) -> None:
        self.plan, self.settings, self.work, self.rows = plan, settings, work, train
        self.clock, self.logged_step, self.first_step = time.monotonic(), 0, 0
        self.halvings = 0
        schedule = TrainingSchedule(plan, settings, validation is not None)
        super().__init__(
            model=learner,
            args=training_arguments(plan, settings, work / "checkpoints", learner),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=collate,
            callbacks=[schedule],
        )
        self.tokens_after = [0, *_running_sum(train.num_tokens())]
        self.model_accepts_loss_kwargs = False  # the loss is scaled here, by the tokens of the whole batch
        self.pop_callback(_printer())

    def run(self, checkpoint: Path | None) -> None:
        """Train to the end, from `checkpoint` or from the beginning, where the untrained model is measured first."""
        self.args.eval_on_start = checkpoint is None and self.eval_dataset is not None
        self.first_step = self.logged_step = 0 if checkpoint is None else checkpoints.step_of(checkpoint)
        self.clock = time.monotonic()
        self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    def get_train_dataloader(self) -> Any:
        return Steps(
            self.rows,
            self.plan.batch_chunks,
            first=self.first_step,
            rank=self.args.process_index,
            ranks=self.args.world_size,
            pinned=self.args.device.type == "cuda",
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], None]:
        return [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)], None

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        warmup = math.ceil(num_training_steps * self.settings.warmup_share)
        share = functools.partial(rate_share, steps=num_training_steps, warmup=warmup)
        return self.use_schedule(torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share))

    # --- a step ------------------------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Loss and gradients of a whole batch, in micro-batches; halved, for good, when they do not fit."""
        model.train()
        while True:
            try:
                loss = self._accumulate(model, inputs)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.plan.micro_batch_chunks == 1 or self.args.world_size > 1:
                    raise
            # Only here: while the error is being handled, its traceback holds on to the tensors of the step.
            self._halve(model)
        if loss.device.type == "cpu":  # a GPU is asked when the loss is logged: asking stops it
            self._check_finite(float(loss), self.state.global_step + 1)
        return loss

    def _accumulate(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        size, rows = self.plan.micro_batch_chunks, len(inputs["input_ids"])
        # Gradients of several processes are averaged, the loss is a mean over the tokens of them all.
        scale = self.args.world_size / max(1, inputs["scored"])
        total = torch.zeros((), device=self.args.device)
        for first in range(0, rows, size):
            piece = self.on_device(self._piece(inputs, first, size))
            is_last = first + size >= rows
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                loss = model(**piece, scale=scale)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _piece(self, inputs: dict[str, Any], first: int, size: int) -> dict[str, torch.Tensor]:
        """A micro-batch; of the full size where a compiled model would be compiled again for another."""
        piece = {name: inputs[name][first : first + size] for name in ("input_ids", "position_ids", "labels")}
        lacking = size - len(piece["labels"])
        if lacking and self.plan.mode.compiled:
            piece = {name: torch.cat([tensor, tensor[-1:].expand(lacking, -1)]) for name, tensor in piece.items()}
            piece["labels"][-lacking:] = -100
        if self.plan.mode.attention == VARLEN:
            piece["boundaries"] = boundaries_of(piece["position_ids"], self.plan.max_documents * len(piece["labels"]))
        return piece

    def clip_gradients(self, model: Any) -> Any:
        return whole(super().clip_gradients(model))

    def _halve(self, model: Any) -> None:
        """Out of memory: forget this step's gradients and make it again in smaller pieces."""
        model.zero_grad(set_to_none=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.plan = self.plan.halved()
        self.plan.save(self.work)
        self.halvings += 1
        log.warning("out of memory: micro-batches of %d chunks from here on", self.plan.micro_batch_chunks)
        subprocesses.send(micro_batch_chunks=self.plan.micro_batch_chunks)

    # --- measuring and logging ---------------------------------------------------------------------------------------

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validation loss in nats a token over all tokens (the Trainer's is a mean of means), logged."""
        size, rank, ranks = self.plan.micro_batch_chunks, self.args.process_index, self.args.world_size
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        learner: SummedLoss = self.model
        learner.eval()
        for first in range(0, len(self.eval_dataset), size * ranks):
            number = first + rank * size
            rows = [self.eval_dataset[index] for index in range(number, min(number + size, len(self.eval_dataset)))]
            batch = collate(rows or [self.eval_dataset[0]])  # every process takes as many turns
            if not rows:
                batch["labels"][:] = IGNORED
            sums[0] += learner.measure(**self.on_device(self._piece(batch, 0, size)))
            sums[1] += num_scored(batch)
        nats, tokens = self.accelerator.reduce(sums, "sum").tolist() if ranks > 1 else sums.tolist()
        metrics = {"validation_loss": nats / max(tokens, 1)}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.clock = time.monotonic()
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with speed and time left since the last log; TrainingError on nan or an explosion."""
        step = self.state.global_step
        for name in ("loss", "grad_norm", "validation_loss"):
            self._check_finite(logs.get(name, 0.0), step, name)
        facts: dict[str, float] = {name: logs[name] for name in REPORTED if name in logs}
        if "loss" in logs:
            self._check_explosion(logs["loss"], step)
            facts |= self._add_speed(logs, step)
        super().log(logs, start_time)
        if facts and self.is_world_process_zero():
            subprocesses.send(step=step, steps=self.plan.steps, **facts)

    def _add_speed(self, logs: dict[str, float], step: int) -> dict[str, float]:
        """Put tokens and tokens_per_second since the last log into `logs`; what is told of it."""
        tokens = self.num_tokens(step) - self.num_tokens(self.logged_step)
        speed = tokens / max(time.monotonic() - self.clock, 1e-9)
        logs["tokens"], logs["tokens_per_second"] = tokens, speed
        self.clock, self.logged_step = time.monotonic(), step
        left = self.num_tokens(self.plan.steps) - self.num_tokens(step)
        used = speed * self.plan.flops_per_token / (self.plan.peak_flops * self.args.world_size)
        return {"tokens_per_second": speed, "utilisation": used, "seconds_left": left / speed if speed else 0.0}

    def num_tokens(self, step: int) -> int:
        """Tokens seen after `step` steps."""
        return int(self.tokens_after[min(step * self.plan.batch_chunks, self.plan.examples)])

    def _check_finite(self, value: float, step: int, name: str = "loss") -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"{name.replace('_', ' ')} became {value} at step {step} of {self.plan.steps} with "
                f"finetune.learning_rate {self.plan.learning_rate:g} in {self.plan.mode.precision}; "
                "lower the rate or set finetune.precision to fp32"
            )

    def _check_explosion(self, loss: float, step: int) -> None:
        first = next((row["loss"] for row in self.state.log_history if "loss" in row), loss)
        if loss > first + EXPLODED_NATS:
            raise TrainingError(
                f"loss rose from {first:.2f} to {loss:.2f} at step {step} of {self.plan.steps} with "
                f"finetune.learning_rate {self.plan.learning_rate:g}: training exploded; lower the rate"
            )

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def write_checkpoint(self) -> None:
        weights, optimizer = checkpoints.weights_of(self.model), checkpoints.optimizer_state_of(self.optimizer)
        if self.is_world_process_zero():
            aside = checkpoints.new_aside(Path(self.args.output_dir))
            checkpoints.save(aside, weights, optimizer, self.lr_scheduler)
            checkpoints.save_random(aside)
            self.state.save_to_json(str(aside / "trainer_state.json"))
            checkpoints.commit(aside, self.state.global_step, best_step(self.state.log_history))
        self.accelerator.wait_for_everyone()
        self.clock = time.monotonic()

    def load_weights(self, checkpoint: Path) -> None:
        checkpoints.load_weights(checkpoint, self.model)

    def load_optimizer(self, checkpoint: Path) -> None:
        checkpoints.load_optimizer(checkpoint, self.optimizer, self.lr_scheduler)

    def load_random(self, checkpoint: Path) -> None:
        checkpoints.load_random(checkpoint)


def training_arguments(plan: TrainingPlan, settings: Finetune, folder: Path, learner: SummedLoss) -> TrainingArguments:
    """The Trainer's arguments; logging, measuring and saving are left to `TrainingSchedule`."""
    device = next(learner.parameters()).device.type
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.batch_chunks,
        ignore_data_skip=True,  # `Steps` begins where the checkpoint ends
        learning_rate=plan.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=False,  # autocast is the learner's
        tf32=True if device == "cuda" else None,
        use_cpu=device == "cpu",
        seed=settings.seed,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # it would synchronise every step, and hide what is wrong
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
    )


def _running_sum(numbers: Any) -> list[int]:
    return [int(number) for number in numbers.cumsum()]


def _printer() -> type:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback  # type: ignore[no-any-return]
