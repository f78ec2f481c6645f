"""The fastest compute mode on this machine: each is checked against the plain mode first, then timed.

Needs torch and transformers, no more.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from prosemill.finetune.attention import BLOCKS, MASKED, VARLEN
from prosemill.finetune.loss_wrapper import CHUNKED, LINEAR, LOGITS, Batch, ComputeMode, SummedLoss

log = logging.getLogger(__name__)

PROBE_ROWS = 1  # on a CPU: enough to tell one mode from another; a GPU is timed on a whole micro-batch, or it idles
PROBE_SECONDS = 2.0  # for each mode; one pass to warm up and one that counts are made in any case
# A mode must save a tenth of the time to displace the one before it: 10 % is above timing noise, so that the same
# machine makes the same choice tomorrow.
WORTH_IT = 0.9
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-3}  # of the loss, relative: rounding, not another function
PEAK_SIZE = {"cpu": 1024, "cuda": 8192}  # of the square matrices whose product is a machine's peak
CHECKED_TOKENS = 512  # of a chunk, on a CPU: two blocks of queries
# Timing takes as long as some ten chunks of training: too much of a shorter run than this, where rules choose.
TIMED_CHUNKS = 100
# By how much bf16 must multiply matrices faster for the rule to choose it: a step has other work too.
BF16_GAIN = 1.5


@dataclass(frozen=True)
class Probe:
    """The chosen mode, seconds of a chunk (forward and backward), and the speed of matrix products."""

    mode: ComputeMode
    seconds_per_chunk: float | None  # wall-clock seconds, on a machine that may be busy; None where nothing was timed
    peak_flops: float
    timings: dict[str, float]  # seconds of a chunk for every mode that was timed, as `_now` counts them


def choose(
    learner: SummedLoss, batch: Batch, *, precision: str, dropout: float, num_chunks: int | None = None
) -> Probe:
    """The mode for this machine; `learner` is set to it. `precision`: fp32, bf16 or, to have modes timed, auto.

    Where a precision is named, the other choices are made by rule alone, so that two runs make the same ones. So they
    are on a CPU for a run of few chunks, `num_chunks`, where a product of matrices tells whether bf16 pays.
    """
    device = batch["input_ids"].device
    on_gpu = device.type == "cuda"
    batch = batch if on_gpu else {name: tensor[:PROBE_ROWS] for name, tensor in batch.items()}
    is_timed = on_gpu or num_chunks is None or num_chunks >= TIMED_CHUNKS
    learner.train()
    preferred, is_as_plain = _first_faithful(learner, batch, dropout, on_gpu=on_gpu)
    timings: dict[str, float] = {}
    wall_seconds: dict[ComputeMode, float] = {}

    def seconds(mode: ComputeMode, again: bool = False) -> float:
        name = f"{mode.precision} {mode.attention} {mode.loss}"
        if name not in timings or again:
            fastest, wall_seconds[mode] = _seconds_per_chunk(learner, mode, batch)
            timings[name] = min(fastest, timings.get(name, math.inf))
        return timings[name]

    def in_precision(name: str) -> ComputeMode:
        mode = replace(preferred, precision=name)
        return mode if mode == preferred or is_as_plain(mode) else ComputeMode(name, MASKED, LOGITS)

    if precision != "auto":
        mode = in_precision(precision)
    elif on_gpu:
        mode = in_precision("bf16" if torch.cuda.is_bf16_supported() else "fp32")
    elif not is_timed:
        pays = peak_flops(device, "bf16") > BF16_GAIN * peak_flops(device, "fp32")
        mode = in_precision("bf16" if pays else "fp32")
    else:
        mode = faster(preferred, [in_precision("bf16")], seconds)
        losses = [replace(mode, loss=loss) for loss in (LINEAR, LOGITS)]
        others = [replace(mode, attention=MASKED), *losses]
        mode = faster(mode, [other for other in others if other != mode and is_as_plain(other)], seconds)
    learner.follow(mode)
    if is_timed:
        seconds(mode)
    probe = Probe(mode, wall_seconds.get(mode), peak_flops(device, mode.precision), timings)
    learner.zero_grad(set_to_none=True)
    durations = ", ".join(f"{name} {1000 * duration:.0f} ms" for name, duration in timings.items()) or "(not timed)"
    log.info("probe: a chunk takes %s; chosen: %s", durations, mode)
    return probe


def _first_faithful(
    learner: SummedLoss, batch: Batch, dropout: float, *, on_gpu: bool
) -> tuple[ComputeMode, Callable[[ComputeMode], bool]]:
    """The fastest mode of our measurements that computes the same loss as the plain one, in fp32.

    And the function that says whether another mode does.
    """
    plain = ComputeMode("fp32", MASKED, LOGITS)
    if not on_gpu:
        batch = {name: tensor[:, :CHECKED_TOKENS] for name, tensor in batch.items()}
    attention = VARLEN if on_gpu and _has_varlen() else MASKED if on_gpu else BLOCKS
    kinds = [MASKED] if dropout or attention == MASKED else [attention, MASKED]
    expected = _loss(learner, plain, batch)

    def is_as_plain(mode: ComputeMode) -> bool:
        return is_faithful(learner, mode, batch, expected)

    for kind in kinds:
        for loss in (CHUNKED, LOGITS):
            mode = ComputeMode("fp32", kind, loss)
            # flash attention computes in bf16 whatever it is given
            checked = replace(mode, precision="bf16") if kind == VARLEN else mode
            if is_as_plain(checked):
                return mode, is_as_plain
    return plain, is_as_plain


def is_faithful(learner: SummedLoss, mode: ComputeMode, batch: Batch, expected: float) -> bool:
    """Whether the loss computed in this mode is `expected` but for rounding; a model that cannot do it is not an error.

    Nor is one that cannot find its gradients.
    """
    try:
        loss = _loss(learner, mode, batch, backward=True)
        apart = mode.attention == MASKED or keeps_apart(learner, mode, batch)
    except Exception as error:  # noqa: BLE001 - a third-party model may raise anything in a mode it lacks
        log.info(
            "probe: %s is not for this model (%s)", mode, str(error).splitlines()[0] if str(error) else type(error)
        )
        return False
    return apart and abs(loss - expected) <= TOLERANCE[mode.precision] * abs(expected)


def keeps_apart(learner: SummedLoss, mode: ComputeMode, batch: Batch) -> bool:
    """Whether no document of `batch` feels what stands in the documents before it: not one bit of its loss changes."""
    learner.follow(mode)
    row = {name: tensor[:1].clone() for name, tensor in batch.items()}
    begins = torch.nonzero(row["position_ids"][0] == 0).flatten().tolist()
    if len(begins) < 2:  # made of two halves
        begins = [0, row["input_ids"].shape[1] // 2]
        positions = torch.arange(row["input_ids"].shape[1], device=row["input_ids"].device)
        row["position_ids"] = torch.where(positions < begins[1], positions, positions - begins[1])[None]
        row["labels"][0, begins[1]] = -100
    last = max(1, len(begins) // 2)
    row["labels"][:, : begins[last]] = -100
    changed = dict(row, input_ids=row["input_ids"].clone())
    changed["input_ids"][:, : begins[last]] = row["input_ids"][:, : begins[last]].flip(1)
    return bool(learner.measure(**row) == learner.measure(**changed))


def peak_flops(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of a large matrix product: what no step can exceed."""
    size = PEAK_SIZE[device.type]
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    one = torch.randn(size, size, device=device, dtype=kind)
    fastest = math.inf
    for _ in range(8):
        started = _now(device)
        one @ one
        fastest = min(fastest, _now(device) - started)
    return 2 * size**3 / fastest


def flops_per_token(learner: SummedLoss, tokens: int) -> float:
    """6 N + 12 layers x width x context (Chowdhery et al. 2022, appendix B); position embeddings multiply nothing."""
    config = learner.model.config
    counted = sum(
        weight.numel() for name, weight in learner.named_parameters() if not name.endswith(("wpe.weight", "lora_A"))
    )
    # A model that names neither has no attention to count.
    layers, width = (int(getattr(config, name, 0)) for name in ("num_hidden_layers", "hidden_size"))
    return 6.0 * counted + 12.0 * layers * width * tokens


def _loss(learner: SummedLoss, mode: ComputeMode, batch: Batch, *, backward: bool = False) -> float:
    """The loss as training would see it in this mode, of the model as it is used; with `backward` its gradients too."""
    learner.follow(mode)
    learner.eval()
    scored = max(1, int((batch["labels"][:, 1:] != -100).sum()))
    try:
        with torch.set_grad_enabled(backward):
            loss = learner(**batch, scale=1 / scored)
            if backward:
                loss.backward()
            return float(loss.detach())
    finally:
        learner.train()


def faster(mode: ComputeMode, others: Iterable[ComputeMode], seconds: Callable[..., float]) -> ComputeMode:
    """The mode that `others` do not beat. One that seems to is timed again, after the one that it would displace."""
    for other in others:
        is_faster = seconds(other) < WORTH_IT * seconds(mode)
        if is_faster and WORTH_IT * seconds(mode, again=True) > seconds(other, again=True):
            mode = other
    return mode


def _seconds_per_chunk(learner: SummedLoss, mode: ComputeMode, batch: Batch) -> tuple[float, float]:
    """Of a forward and a backward pass, the fastest of several: as `_now` counts, and in wall-clock seconds."""
    learner.follow(mode)
    device, rows = batch["input_ids"].device, len(batch["input_ids"])
    fastest = wall = math.inf
    begun = _now(device)
    for attempt in range(6):
        started, at = _now(device), time.perf_counter()
        learner(**batch, scale=1e-3).backward()
        ended = _now(device)
        if attempt:  # the first pass warms up
            fastest, wall = min(fastest, ended - started), min(wall, time.perf_counter() - at)
            if ended - begun > PROBE_SECONDS:
                break
    return fastest / rows, wall / rows


def _now(device: torch.device) -> float:
    """Seconds; on a CPU those that its threads were at work, so that what else the machine does decides nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def _has_varlen() -> bool:
    return importlib.util.find_spec("torch.nn.attention.varlen") is not None
