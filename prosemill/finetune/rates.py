"""The learning rate: how it climbs and falls, and its peak, where the recipe gives none. Needs torch, no more."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from prosemill.finetune.loss_wrapper import SummedLoss

log = logging.getLogger(__name__)

LOWEST, HIGHEST = 1e-6, 1e-1  # AdamW's useful rates, from a large model's to a tiny one's, lie well within
TRIALS = 50  # steps of the search, each at 1.26 times the rate of the one before
SMOOTHING = 0.8  # of the losses, each of another micro-batch
LOST_NATS = 0.5  # above the lowest: beyond that, rates are too high
SHARE = 0.25  # of the rate at the lowest loss: there the loss is about to rise (Smith 2017 took a third to a quarter)


def rate_share(step: int, *, steps: int, warmup: int) -> float:
    """Share of the peak learning rate in the step after `step` steps: a climb, then half a cosine to (nearly) nothing.

    Unlike transformers' cosine schedule it does not begin with a step at rate 0, which a short run cannot spare.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def find_rate(learner: SummedLoss, batches: Iterable[dict[str, Any]], *, weight_decay: float) -> float:
    """A peak rate for AdamW, by a range test (Smith 2017): a step a batch while the rate rises, until the loss does.

    The weights are as before afterwards. `batches` are as `Steps` yields them, of one micro-batch each.
    """
    kept = {name: weight.detach().clone() for name, weight in learner.named_parameters() if weight.requires_grad}
    growth = (HIGHEST / LOWEST) ** (1 / (TRIALS - 1))
    optimizer = torch.optim.AdamW(learner.parameters(), lr=LOWEST, weight_decay=weight_decay, fused=True)
    losses: list[float] = []
    learner.train()
    for trial, batch in zip(range(TRIALS), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = LOWEST * growth**trial
        loss = learner(**{name: batch[name] for name in batch if name != "scored"}, scale=1 / max(1, batch["scored"]))
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]) or smooth(losses)[-1] > min(smooth(losses)) + LOST_NATS:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, weight in learner.named_parameters():
            if name in kept:
                weight.copy_(kept[name])
    learner.zero_grad(set_to_none=True)
    rate = best_rate(losses, growth)
    log.info("learning rate: %.2g, after %d steps from %.0e up", rate, len(losses), LOWEST)
    return rate


def best_rate(losses: list[float], growth: float) -> float:
    """A quarter of the rate whose smoothed loss was lowest, two digits of it: more are noise."""
    smoothed = [loss if math.isfinite(loss) else math.inf for loss in smooth(losses)]
    lowest = min(range(len(smoothed)), key=lambda trial: smoothed[trial])
    return float(f"{SHARE * LOWEST * growth**lowest:.1e}")


def smooth(losses: list[float]) -> list[float]:
    """Exponential means, freed of the weight that the first would have."""
    mean, smoothed = 0.0, []
    for number, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**number))
    return smoothed
