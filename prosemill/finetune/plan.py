"""What a run will do, decided once: a run that is killed and resumed goes on with the same plan.

The plan is in the totals of the model's manifest, and `stage.finetune` takes one: so a model can be made again although
a later probe might choose another compute mode.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prosemill.finetune.autotune import choose, flops_per_token
from prosemill.finetune.loss_wrapper import Batch, ComputeMode, SummedLoss
from prosemill.storage import atomic

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from prosemill.config.settings import Finetune

log = logging.getLogger(__name__)

COMPILE_SECONDS = 300.0  # a GPU run shorter than this does not earn the minute that compiling takes
KEPT_FREE = 0.1  # of a time budget: for measuring, checkpoints and a machine that is busier than in the probe


@dataclass(frozen=True)
class TrainingPlan:
    """`examples` chunks (some of them several times) in `steps` steps of `batch_chunks`."""

    steps: int
    examples: int
    batch_chunks: int
    micro_batch_chunks: int  # of one process; halved when memory runs out
    eval_every: int  # steps
    learning_rate: float  # peak
    mode: ComputeMode
    threads: int  # sums of floats depend on it
    max_documents: int  # of a chunk
    flops_per_token: float
    peak_flops: float  # measured

    def save(self, folder: Path) -> None:
        atomic.write(folder / "plan.json", json.dumps(self.as_dict(), indent=1))

    def as_dict(self) -> dict[str, Any]:
        """As it stands in plan.json and in manifests, where the mode is called `mode`."""
        return {("way" if key == "mode" else key): value for key, value in asdict(self).items()}

    @classmethod
    def load(cls, folder: Path) -> TrainingPlan | None:
        """The plan stored in `folder`, None where there is none yet."""
        path = folder / "plan.json"
        return cls.of(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> TrainingPlan:
        fields = {key: value for key, value in stored.items() if key != "way"}
        return cls(**fields, mode=ComputeMode(**stored["way"]))

    def halved(self) -> TrainingPlan:
        """With half of the micro-batch: as many chunks a step."""
        return replace(self, micro_batch_chunks=max(1, self.micro_batch_chunks // 2))


def make_plan(
    settings: Finetune,
    learner: SummedLoss,
    batch: Batch,
    *,
    tokens: npt.NDArray[np.int64],
    max_documents: int,
    find_rate: Callable[[], float],
) -> TrainingPlan:
    """A new plan. `batch`: a micro-batch to time; `tokens`: of each example that the epochs ask for, in order."""
    length = None if settings.budget_hours else len(tokens)  # a time budget wants to know what a chunk takes
    probe = choose(learner, batch, precision=settings.precision, dropout=settings.dropout, num_chunks=length)
    mode = probe.mode
    examples = min(len(tokens), affordable(settings, tokens, probe.seconds_per_chunk))
    on_gpu = batch["input_ids"].device.type == "cuda"
    seconds = examples * (probe.seconds_per_chunk or 0.0)
    if on_gpu and seconds > COMPILE_SECONDS and not settings.gradient_checkpointing:
        mode = replace(mode, compiled=True)
    steps = math.ceil(examples / settings.batch_chunks)
    return TrainingPlan(
        steps=steps,
        examples=examples,
        batch_chunks=settings.batch_chunks,
        micro_batch_chunks=min(settings.micro_batch_chunks, math.ceil(settings.batch_chunks / settings.num_processes)),
        eval_every=math.ceil(steps / settings.evals),
        learning_rate=settings.learning_rate or find_rate(),
        mode=mode,
        threads=torch.get_num_threads(),
        max_documents=max_documents,
        flops_per_token=flops_per_token(learner, batch["input_ids"].shape[1]),
        peak_flops=round(probe.peak_flops),
    )


def num_examples(settings: Finetune, num_chunks: int) -> int:
    """How many chunks are trained on, repetitions and replayed ones counted: at least one, `max_steps` batches at most.

    `replay_share` of them are replayed: so many come on top of what the epochs ask for.
    """
    wanted = max(1, math.ceil(num_chunks * settings.epochs / (1 - settings.replay_share)))
    return min(wanted, settings.max_steps * settings.batch_chunks) if settings.max_steps else wanted


def affordable(settings: Finetune, tokens: npt.NDArray[np.int64], seconds_per_chunk: float | None) -> int:
    """How many examples the budgets of tokens and hours allow: at least one."""
    count = len(tokens)
    if settings.max_tokens:
        count = int(tokens.cumsum().searchsorted(settings.max_tokens, side="right"))
    if settings.budget_hours and seconds_per_chunk:
        seconds = settings.budget_hours * 3600 * (1 - KEPT_FREE)
        steps = int(seconds / seconds_per_chunk * settings.num_processes) // settings.batch_chunks
        count = min(count, max(1, steps) * settings.batch_chunks)
    return max(1, count)
