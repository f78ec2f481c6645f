"""What a run will do, decided once: a run that is killed and resumed goes on with the same plan."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from prosemill import models
from prosemill.settings import Finetune

log = logging.getLogger(__name__)

PROBE_SECONDS = 4.0  # enough for ten passes of a small model; a large one gets two of each kind
WORTH_IT = 0.9  # bf16 is less exact: it has to save a tenth of the time


@dataclass(frozen=True)
class Plan:
    """`examples` chunks (some of them several times) in `steps` steps."""

    steps: int
    examples: int
    micro_batch_chunks: int
    accumulation: int  # micro-batches a step
    eval_every: int  # steps
    precision: str  # fp32 | bf16
    threads: int  # sums of floats depend on it


def make_plan(folder: Path, settings: Finetune, num_chunks: int, model: Any, batch: dict[str, torch.Tensor]) -> Plan:
    """The plan stored in `folder`, or a new one, which is stored there. `batch` is a micro-batch to time."""
    path = folder / "plan.json"
    if path.exists():
        return Plan(**json.loads(path.read_text(encoding="utf-8")))
    micro = min(settings.micro_batch_chunks, settings.batch_chunks)
    examples = num_examples(settings, num_chunks)
    steps = math.ceil(examples / settings.batch_chunks)
    plan = Plan(
        steps=steps,
        examples=examples,
        micro_batch_chunks=micro,
        accumulation=settings.batch_chunks // micro,
        eval_every=math.ceil(steps / settings.evals),
        precision=choose_precision(settings.precision, model, batch),
        threads=torch.get_num_threads(),
    )
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(asdict(plan), indent=1), encoding="utf-8")
    os.replace(aside, path)
    return plan


def num_examples(settings: Finetune, num_chunks: int) -> int:
    """How many chunks are trained on, repetitions counted: at least one, `max_steps` batches at most."""
    wanted = max(1, math.ceil(num_chunks * settings.epochs))
    return min(wanted, settings.max_steps * settings.batch_chunks) if settings.max_steps else wanted


def choose_precision(wanted: str, model: Any, batch: dict[str, torch.Tensor]) -> str:
    """fp32 or bf16. On a GPU bf16 if it has it; on a CPU (only AMX and avx512_bf16 gain) the faster one, timed."""
    if wanted != "auto":
        return wanted
    if models.device() == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    model.train()
    fp32, bf16 = math.inf, math.inf
    started = time.monotonic()
    for attempt in range(6):
        seconds = _time_pass(model, batch, in_bf16=False), _time_pass(model, batch, in_bf16=True)
        if attempt:  # the first pass of each kind warms up
            fp32, bf16 = min(fp32, seconds[0]), min(bf16, seconds[1])
        if attempt and time.monotonic() - started > PROBE_SECONDS:
            break
    model.zero_grad(set_to_none=True)
    chosen = "bf16" if bf16 < WORTH_IT * fp32 else "fp32"
    log.info("probe: %.0f ms a pass in fp32, %.0f ms in bf16: %s", fp32 * 1000, bf16 * 1000, chosen)
    return chosen


def _time_pass(model: Any, batch: dict[str, torch.Tensor], *, in_bf16: bool) -> float:
    """Seconds of one forward and backward pass."""
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bf16):
        loss = model(**batch, use_cache=False).loss
    loss.backward()
    return time.perf_counter() - started
