"""When a run logs, measures, saves and stops, and which of its steps was the best. Needs transformers, no more."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from prosemill.runtime import subprocesses

if TYPE_CHECKING:
    from prosemill.config.settings import Finetune
    from prosemill.finetune.plan import TrainingPlan

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


class TrainingSchedule(TrainerCallback):  # type: ignore[misc]
    """When to log, measure, save and stop. What the clock decides (saving) changes nothing of the result."""

    def __init__(self, plan: TrainingPlan, settings: Finetune, has_validation: bool) -> None:
        self.plan, self.settings, self.has_validation = plan, settings, has_validation
        self.log_every = math.ceil(plan.steps / LOGGED_POINTS)
        self.saved_at = time.monotonic()
        self.told_at = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        is_stop = step % self.plan.eval_every == 0 or step == self.plan.steps
        # The clocks of several processes differ, and all have to save together: they do so when they measure.
        is_late = args.world_size == 1 and time.monotonic() - self.saved_at >= self.settings.checkpoint_minutes * 60
        control.should_evaluate = is_stop and self.has_validation
        control.should_save = is_stop or is_late
        control.should_log = control.should_save or step == 1 or step % self.log_every == 0
        if step == self.plan.steps or time.monotonic() - self.told_at >= TELL_SECONDS:
            self.told_at = time.monotonic()
            if state.is_world_process_zero:
                subprocesses.send(step=step, steps=self.plan.steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if is_over(state.log_history, self.settings.patience):
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved_at = time.monotonic()
