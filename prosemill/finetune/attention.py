"""Causal attention that keeps packed documents apart without a mask tensor. Needs torch and transformers, no more.

A micro-batch is a few rows of chunks; a row holds several documents, padding being one of them. With the masks that
transformers builds from restarting positions every layer reads a rows x tokens x tokens tensor, and torch leaves its
fast kernels. Here a document is a sequence of its own:

    blocks   CPU: plain matrix products over runs of queries, forward and backward (Dao et al. 2022, the tiling alone)
    varlen   GPU: torch's flash attention over sequences of different lengths, with a fixed number of boundaries, so
             that a compiled model is compiled once
    masked   what transformers does by itself; the reference that the two are checked against
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from prosemill.finetune.compat import attention_of, softmax_backward

BLOCKS, VARLEN, MASKED = "blocks", "varlen", "masked"
# Queries at once. On avx512_bf16 without AMX, 8 rows of 1,024 tokens, 4 heads of 64, tokens a second of the whole step:
# 64: 7,600, 128: 10,000, 256: 11,100. Documents shorter than that share a block.
BLOCK = 256

_varlen_attn: Callable[..., torch.Tensor] | None = None  # found once: a compiled model must not look for it

Span = tuple[int, int, int]  # row, first token, the token after the last


@dataclass(frozen=True)
class Layout:
    """Where the documents of a micro-batch lie. `spans`: a long document, or a run of short ones with its mask."""

    spans: Sequence[tuple[Span, torch.Tensor | None]]


def layout_of(position_ids: torch.Tensor) -> Layout:
    """The layout of a micro-batch (rows, tokens) on the CPU whose positions restart at each document."""
    spans: list[tuple[Span, torch.Tensor | None]] = []
    for row, positions in enumerate(position_ids):
        begins = [*torch.nonzero(positions == 0).flatten().tolist(), len(positions)]
        first = 0
        while first < len(begins) - 1:
            last = first + 1
            while last < len(begins) - 1 and begins[last + 1] - begins[first] <= BLOCK:
                last += 1
            span = (row, begins[first], begins[last])
            spans.append((span, None if last == first + 1 else _mask(positions[span[1] : span[2]])))
            first = last
    return Layout(spans)


def _mask(positions: torch.Tensor) -> torch.Tensor:
    """True where a query (line) must not look: at what follows it, and at another document."""
    at = torch.arange(len(positions))
    start = at - positions
    return (start[:, None] != start[None, :]) | (at[:, None] < at[None, :])


class BlockAttention(torch.autograd.Function):
    """softmax(q k' scale) v within each span, causal. q, k, v: (rows, heads, tokens, width); out as q.

    The probabilities are kept for the backward pass: half a triangle a document, in the type of q.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, layout: Layout
    ) -> torch.Tensor:
        rows, heads, tokens, width = query.shape
        out = query.new_empty(rows, tokens, heads, width).transpose(1, 2)  # contiguous for what comes next
        shares: list[torch.Tensor] = []
        future = torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu(1)
        for row, start, first, last, mask in _runs(layout):
            scores = query[row, :, first:last] @ key[row, :, start:last].transpose(-1, -2)
            scores.mul_(scale)
            hidden = future[: last - first, : last - first] if mask is None else mask
            scores[..., first - start :].masked_fill_(hidden, float("-inf"))
            share = torch.softmax(scores, -1)
            out[row, :, first:last] = share @ value[row, :, start:last]
            shares.append(share)
        ctx.save_for_backward(query, key, value, *shares)
        ctx.scale, ctx.layout = scale, layout
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *shares = ctx.saved_tensors
        grad_query = torch.empty_like(query)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        for (row, start, first, last, _), share in zip(_runs(ctx.layout), shares, strict=True):
            grad = gradients[0][row, :, first:last]
            grad_value[row, :, start:last] += share.transpose(-1, -2) @ grad
            grad_share = grad @ value[row, :, start:last].transpose(-1, -2)
            grad_scores = softmax_backward(grad_share, share).mul_(ctx.scale)
            grad_query[row, :, first:last] = grad_scores @ key[row, :, start:last]
            grad_key[row, :, start:last] += grad_scores.transpose(-1, -2) @ query[row, :, first:last]
        return grad_query, grad_key, grad_value, None, None


def _runs(layout: Layout) -> list[tuple[int, int, int, int, torch.Tensor | None]]:
    """Row, first key, first query, the token after the last, mask: the pieces of work, always in the same order."""
    return [
        (row, start, first, min(first + BLOCK, end), mask)
        for (row, start, end), mask in layout.spans
        for first in range(start, end, BLOCK)
    ]


# --- as transformers calls them --------------------------------------------------------------------------------------


def block_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    layout: Layout,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    # Under autocast rotary positions leave queries and keys in fp32; an operation unknown to autocast refuses a mix.
    query, key = query.to(value.dtype), key.to(value.dtype)
    key, value = _as_many_heads(query, key), _as_many_heads(query, value)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return BlockAttention.apply(query, key, value, scale, layout).transpose(1, 2), None  # type: ignore[no-untyped-call]


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    boundaries: torch.Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    rows, heads, tokens, width = query.shape
    if scaling is not None and scaling != width**-0.5:  # the first versions of torch's function take no other
        query = query * (scaling * width**0.5)
    key, value = _as_many_heads(query, key), _as_many_heads(query, value)
    flat = (tensor.transpose(1, 2).reshape(rows * tokens, heads, width) for tensor in (query, key, value))
    # Flash attention takes no fp32, which layer norms may leave behind under autocast.
    half = (tensor.to(torch.bfloat16) if tensor.dtype == torch.float32 else tensor for tensor in flat)
    assert _varlen_attn is not None  # set_attention found it
    out = _varlen_attn(*half, boundaries, boundaries, tokens, tokens)
    return out.reshape(rows, tokens, heads, width), None


def boundaries_of(position_ids: torch.Tensor, size: int) -> torch.Tensor:
    """Where documents begin in the rows laid end to end, then the end as often as it takes to make `size` + 1."""
    begins = torch.nonzero(position_ids.flatten() == 0).flatten()
    if len(begins) > size:
        raise ValueError(f"{len(begins)} documents in a micro-batch, but room for {size}")
    rest = begins.new_full((size + 1 - len(begins),), position_ids.numel())
    return torch.cat([begins, rest]).to(torch.int32)


def _as_many_heads(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Keys or values with a head for each of the queries' (grouped-query attention has fewer)."""
    return key if key.shape[1] == query.shape[1] else key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)


def _find_varlen() -> Callable[..., torch.Tensor]:
    """torch's function, asked for causal attention: by a flag in its first version, now by a window."""
    from torch.nn.attention.varlen import varlen_attn

    has_window = "window_size" in inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"window_size": (-1, 0)} if has_window else {"is_causal": True}
    return cast(Callable[..., torch.Tensor], functools.partial(varlen_attn, **causal))


def set_attention(model: Any, kind: str, original: str | None) -> None:
    """Let `model` compute its attention as `kind` (one of the three above); masked is `original`, its own."""
    if kind == MASKED:
        if attention_of(model) != original:  # a model without attention cannot be asked to set it
            model.set_attn_implementation(original)
        return
    if kind == VARLEN:
        global _varlen_attn
        _varlen_attn = _find_varlen()
    AttentionInterface.register(BLOCKS, block_attention)
    AttentionInterface.register(VARLEN, varlen_attention)
    for name in (BLOCKS, VARLEN):
        AttentionMaskInterface.register(name, lambda *_, **__: None)
    model.set_attn_implementation(kind)
