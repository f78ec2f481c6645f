"""Negative log-likelihood of documents under one model, in float32, many windows at once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from prosemill.evaluation.windows import Window, windows_of
from prosemill.models import loading
from prosemill.runtime import progress

# At once, on a CPU: of more, what one layer leaves in the cache is pushed out before the next one reads it.
# Articles of 500 tokens, a model of 4 x 256: 6,800 tokens a second one by one, 5,100 in eights.
CPU_TOKENS = 1024


def score(
    model: Any,
    documents: Sequence[Sequence[int]],
    *,
    context_tokens: int,
    stride: int,
    batch_windows: int,
    what: str = "evaluate",
) -> list[float]:
    """Nats of each document, given as ids with an end-of-text first, summed over all ids but that first one.

    Windows are padded on the right, which a causal model cannot see, to the longest of their batch; batches are cut
    from the windows in order of length. So the same documents meet every model in the same shapes.
    """
    cut = [
        window
        for number, ids in enumerate(documents)
        for window in windows_of(number, len(ids), context_tokens, stride)
    ]
    cut.sort(key=lambda window: (-window.num_inputs, window.scored - window.begin, window.document, window.begin))
    device = loading.device()
    model = model.to(device)
    batches = list(_batches(cut, batch_windows, CPU_TOKENS if device == "cpu" else None))
    keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
    nats = np.zeros(len(documents))
    with torch.inference_mode():
        for batch in progress.track(what, batches, len(batches)):
            for window, value in zip(batch, _nats(model, batch, documents, device, keeps_logits), strict=True):
                nats[window.document] += value
    return [float(value) for value in nats]


def _batches(windows: Sequence[Window], most: int, most_tokens: int | None) -> Iterator[Sequence[Window]]:
    """The windows, longest first, `most` at once or as many as have `most_tokens` together; one at least."""
    first = 0
    while first < len(windows):
        size = most if most_tokens is None else min(most, max(1, most_tokens // windows[first].num_inputs))
        yield windows[first : first + size]
        first += size


def _nats(
    model: Any, batch: Sequence[Window], documents: Sequence[Sequence[int]], device: str, keeps_logits: bool
) -> list[float]:
    """Nats of the scored ids of each window. Only positions that some window scores go through the model's head."""
    length = max(window.num_inputs for window in batch)
    inputs = torch.zeros((len(batch), length), dtype=torch.int64)
    for row, window in enumerate(batch):
        inputs[row, : window.num_inputs] = torch.tensor(documents[window.document][window.begin : window.end - 1])
    low = min(window.scored - window.begin - 1 for window in batch)
    options = {"logits_to_keep": torch.arange(low, length, device=device)} if keeps_logits else {}
    logits = model(input_ids=inputs.to(device), use_cache=False, **options).logits
    offset = low if keeps_logits else 0
    nats = []
    for row, window in enumerate(batch):
        targets = torch.tensor(documents[window.document][window.scored : window.end], device=device)
        scored = logits[row, window.scored - window.begin - 1 - offset : window.num_inputs - offset].float()
        losses = torch.nn.functional.cross_entropy(scored, targets, reduction="none")
        nats.append(float(losses.double().sum()))
    return nats
