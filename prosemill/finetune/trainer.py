"""transformers' Trainer, with an exact validation loss, checkpoints that resume to the bit, and no silent nan."""

from __future__ import annotations

import functools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from prosemill import children, models
from prosemill.errors import TrainingError
from prosemill.finetune import checkpoints
from prosemill.finetune.data import IGNORED, Chunks, collate
from prosemill.finetune.plan import Plan
from prosemill.settings import Finetune

TELL_SECONDS = 0.25  # a person sees no more often how far it is
LOGGED_POINTS = 200  # of a loss curve: more are not seen on a screen, and each costs a GPU a synchronisation

LogRow = dict[str, Any]


def best_step(log_history: list[LogRow]) -> int | None:
    """The step (the first of equals) with the lowest validation loss; the untrained model does not count."""
    measured = [
        (row["validation_loss"], row["step"]) for row in log_history if "validation_loss" in row and row["step"]
    ]
    return min(measured)[1] if measured else None


def is_over(log_history: list[LogRow], patience: int) -> bool:
    """True when the last `patience` measurements brought no gain."""
    best = best_step(log_history)
    return best is not None and sum("validation_loss" in row and row["step"] > best for row in log_history) >= patience


def rate_share(step: int, *, steps: int, warmup: int) -> float:
    """Share of the peak learning rate in the step after `step` steps: a climb, then half a cosine to (nearly) nothing.

    Unlike transformers' cosine schedule it does not begin with a step at rate 0, which a short run cannot spare.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Rhythm(TrainerCallback):  # type: ignore[misc]
    """When to log, measure, save and stop. What the clock decides (saving) changes nothing of the result."""

    def __init__(self, plan: Plan, settings: Finetune, has_validation: bool) -> None:
        self.plan, self.settings, self.has_validation = plan, settings, has_validation
        self.log_every = math.ceil(plan.steps / LOGGED_POINTS)
        self.saved_at = time.monotonic()
        self.told_at = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        is_stop = step % self.plan.eval_every == 0 or step == self.plan.steps
        is_late = time.monotonic() - self.saved_at >= self.settings.checkpoint_minutes * 60
        control.should_evaluate = is_stop and self.has_validation
        control.should_save = is_stop or is_late
        control.should_log = control.should_save or step == 1 or step % self.log_every == 0
        if step == self.plan.steps or time.monotonic() - self.told_at >= TELL_SECONDS:
            self.told_at = time.monotonic()
            children.tell(step=step, steps=self.plan.steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if is_over(state.log_history, self.settings.patience):
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved_at = time.monotonic()


class ChunkTrainer(Trainer):  # type: ignore[misc]
    """Trains on `train` in its order; `validation` may be None."""

    def __init__(
        self, model: Any, train: Chunks, validation: Chunks | None, plan: Plan, settings: Finetune, folder: Path
    ) -> None:
        self.plan, self.settings = plan, settings
        self.tokens_after = np.concatenate([[0], np.cumsum(train.num_tokens())])
        self.clock, self.logged_step = time.monotonic(), 0
        rhythm = Rhythm(plan, settings, validation is not None)
        super().__init__(
            model=model,
            args=training_arguments(plan, settings, folder),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=collate,
            callbacks=[rhythm],
        )
        self.pop_callback(_printer())

    def run(self, checkpoint: Path | None) -> None:
        """Train to the end, from `checkpoint` or from the beginning, where the untrained model is measured first."""
        self.args.eval_on_start = checkpoint is None and self.eval_dataset is not None
        self.logged_step = 0 if checkpoint is None else checkpoints.step_of(checkpoint)
        self.clock = time.monotonic()
        self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        warmup = math.ceil(num_training_steps * self.settings.warmup_share)
        share = functools.partial(rate_share, steps=num_training_steps, warmup=warmup)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validation loss in nats a token over all tokens (the Trainer's is a mean of means), logged."""
        nats, tokens = 0.0, 0
        self.model.eval()
        size = self.plan.micro_batch_chunks
        for first in range(0, len(self.eval_dataset), size):
            rows = [self.eval_dataset[row] for row in range(first, min(first + size, len(self.eval_dataset)))]
            inputs = self._prepare_inputs(collate(rows))
            num_scored = int((inputs["labels"][:, 1:] != IGNORED).sum())
            if num_scored:
                with torch.no_grad():
                    nats += float(self.model_wrapped(**inputs).loss.double()) * num_scored
                tokens += num_scored
        metrics = {"validation_loss": nats / max(tokens, 1)}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.clock = time.monotonic()
        return metrics

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*arguments, **named)
        if loss.device.type == "cpu":  # a GPU is asked when the loss is logged: asking stops it
            self._check_finite(float(loss), self.state.global_step + 1)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with tokens_per_second since the last log; raises TrainingError on nan."""
        step = self.state.global_step
        for name in ("loss", "grad_norm", "validation_loss"):
            self._check_finite(logs.get(name, 0.0), step, name)
        if "loss" in logs:
            tokens = self._tokens(step) - self._tokens(self.logged_step)
            logs["tokens"] = tokens
            logs["tokens_per_second"] = tokens / max(time.monotonic() - self.clock, 1e-9)
            self.clock, self.logged_step = time.monotonic(), step
        super().log(logs, start_time)
        told = {name: logs[name] for name in ("loss", "validation_loss", "tokens_per_second") if name in logs}
        if told:
            children.tell(step=step, steps=self.plan.steps, **told)

    def _tokens(self, step: int) -> int:
        """Tokens seen after `step` steps."""
        return int(self.tokens_after[min(step * self.settings.batch_chunks, self.plan.examples)])

    def _check_finite(self, value: float, step: int, name: str = "loss") -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"{name.replace('_', ' ')} became {value} at step {step} of {self.plan.steps} with "
                f"finetune.learning_rate {self.settings.learning_rate:g} in {self.plan.precision}; "
                "lower the rate or set finetune.precision to fp32"
            )

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        aside = checkpoints.new_aside(Path(self.args.output_dir))
        self.model.save_pretrained(aside)
        checkpoints.save_optimizer(aside, self.optimizer, self.lr_scheduler)
        checkpoints.save_random(aside)
        self.state.save_to_json(str(aside / "trainer_state.json"))
        checkpoints.commit(aside, self.state.global_step, best_step(self.state.log_history))
        self.clock = time.monotonic()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_random(Path(checkpoint))


def training_arguments(plan: Plan, settings: Finetune, folder: Path) -> TrainingArguments:
    """The Trainer's arguments; logging, measuring and saving are left to `Rhythm`."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.micro_batch_chunks,
        gradient_accumulation_steps=plan.accumulation,
        train_sampling_strategy="sequential",  # `Chunks` is in order already
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=plan.precision == "bf16",
        tf32=True if models.device() == "cuda" else None,
        use_cpu=models.device() == "cpu",
        seed=settings.seed,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # it would synchronise every step, and hide what is wrong
        dataloader_pin_memory=models.device() == "cuda",
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )


def _printer() -> type:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback  # type: ignore[no-any-return]
