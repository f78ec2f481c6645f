"""The loss of a language model without its logits: they are made, used and dropped a few rows at a time.

GPT-2's logits for four chunks are 820 MB in fp32, their gradient as much again. Here the gradient is computed in the
forward pass, where the probabilities are at hand (Wijmans et al. 2024, Liger kernel; plain torch). The vocabulary is
padded to a multiple of 64 in the copy of the head that the products read: no parameter changes its shape, the padded
columns weigh nothing in the softmax, and ids and files stay as they were.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

IGNORED = -100  # the label that is not scored, as in torch's cross-entropy
VOCABULARY_MULTIPLE = 64  # 50,257 is not a multiple of 64; matrix kernels want one (Karpathy, nanoGPT: + 25 %)
LOGITS_BYTES = {"cpu": 64 << 20, "cuda": 256 << 20}  # of one run of rows


class ChunkedLoss(torch.autograd.Function):
    """`scale` x the summed cross-entropy of `targets` (rows) after `hidden` (rows, width) with the head `weight`.

    Products are in the type of `hidden`, sums in fp32. Rows whose target is IGNORED weigh nothing.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, scale: float) -> Any:
        size = len(weight)
        head = functional.pad(weight.to(hidden.dtype), (0, 0, 0, -size % VOCABULARY_MULTIPLE))
        rows = _rows_at_once(hidden.device, len(head) * hidden.element_size())
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=hidden.device)
        for first in range(0, len(hidden), rows):
            some, wanted = hidden[first : first + rows], targets[first : first + rows]
            is_scored = (wanted != IGNORED)[:, None]
            index = wanted.clamp(min=0)[:, None]
            logits = some @ head.t()
            if len(head) > size:
                logits[:, size:] = float("-inf")
            shares = torch.softmax(logits, -1)
            del logits
            likelihood = shares.gather(1, index)
            # bf16 has fp32's range: a share is 0 only where the loss is beyond 87 nats
            nats = -likelihood.float().clamp(min=1e-37).log()
            total += torch.where(is_scored, nats, 0.0).sum()
            shares.scatter_(1, index, likelihood - 1)
            torch.mul(shares @ head, is_scored * scale, out=grad_hidden[first : first + rows])
            grad_weight.add_((shares.t() @ (some * is_scored))[:size], alpha=scale)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_type = weight.dtype
        return total * scale

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        (grad,) = gradients
        if grad.device.type != "cpu" or float(grad) != 1.0:  # asking a GPU would stop it
            grad_hidden, grad_weight = grad_hidden * grad.to(grad_hidden.dtype), grad_weight * grad
        return grad_hidden, grad_weight.to(ctx.weight_type), None, None


def exact_nats(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The summed cross-entropy, the softmax in fp32: for measuring, without gradients."""
    rows = _rows_at_once(hidden.device, len(weight) * 4)
    head = weight.to(hidden.dtype)
    total = torch.zeros((), dtype=torch.float64, device=hidden.device)
    for first in range(0, len(hidden), rows):
        logits = (hidden[first : first + rows] @ head.t()).float()
        total += functional.cross_entropy(
            logits, targets[first : first + rows], ignore_index=IGNORED, reduction="sum"
        ).double()
    return total


def _rows_at_once(device: torch.device, row_bytes: int) -> int:
    return max(64, LOGITS_BYTES.get(device.type, LOGITS_BYTES["cuda"]) // row_bytes)


def next_tokens(labels: torch.Tensor) -> torch.Tensor:
    """What each position is asked to predict, of the same shape: the label behind it, nothing at the end."""
    return functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
