"""What is used of torch and transformers beside their documented interface; `tests/test_compat.py` checks each of it.

Needs torch and transformers, no more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer


def softmax_backward(gradient: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """The gradient of a softmax over the last dimension, from that of its output and the output; shapes all alike.

    The kernel that autograd uses: one pass, where the formula in tensors takes three.
    """
    return torch._softmax_backward_data(gradient, probabilities, -1, probabilities.dtype)


def attention_of(model: Any) -> str | None:
    """The attention that a transformers model computes ("sdpa", "eager" …); None for a model without any."""
    name: str | None = model.config._attn_implementation
    return name


class HookedTrainer(Trainer):  # type: ignore[misc]
    """transformers' Trainer, where a subclass says how it saves, resumes and clips.

    The Trainer has no public place for any of these: it pickles the state of optimizer and random generators.
    """

    def write_checkpoint(self) -> None:
        """Write a checkpoint of this moment."""
        raise NotImplementedError

    def load_weights(self, checkpoint: Path) -> None:
        raise NotImplementedError

    def load_optimizer(self, checkpoint: Path) -> None:
        """The state of the optimizer and of the schedule of its rates."""
        raise NotImplementedError

    def load_random(self, checkpoint: Path) -> None:
        """The state of the random generators."""
        raise NotImplementedError

    def clip_gradients(self, model: Any) -> Any:
        """Clip to `max_grad_norm`; the norm before that, which is then logged."""
        return super()._clip_grad_norm(model)

    def use_schedule(self, schedule: Any) -> Any:
        """From now on take this schedule of learning rates, and not one that the arguments name."""
        self.lr_scheduler = schedule
        self._created_lr_scheduler = True
        return schedule

    def on_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch where the model is."""
        moved: dict[str, torch.Tensor] = self._prepare_inputs(batch)
        return moved

    # --- as the Trainer calls them -----------------------------------------------------------------------------------

    def _clip_grad_norm(self, model: Any) -> Any:
        return self.clip_gradients(model)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.write_checkpoint()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.load_weights(Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.load_optimizer(Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.load_random(Path(checkpoint))
