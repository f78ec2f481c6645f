"""The model as training sees it: a micro-batch in, its share of the loss out, in the fastest compute mode here.

Needs torch and transformers, no more, so that `benchmarks/gpu.py` runs on a bare machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from prosemill.finetune import attention
from prosemill.finetune.attention import BLOCKS, MASKED, VARLEN
from prosemill.finetune.compat import attention_of
from prosemill.finetune.loss import IGNORED, ChunkedLoss, exact_nats, next_tokens
from prosemill.models.inference import fuse_activations

Batch = dict[str, torch.Tensor]

CHUNKED, LINEAR, LOGITS = "chunked", "linear", "logits"


@dataclass(frozen=True)
class ComputeMode:
    """How a step is computed. The model learned is the same but for rounding."""

    precision: str = "fp32"  # fp32 | bf16: of matrix products; weights, sums and the optimizer are fp32 always
    attention: str = MASKED  # blocks | varlen | masked
    loss: str = LOGITS  # chunked | linear (torch's own) | logits
    compiled: bool = False


class SummedLoss(nn.Module):
    """Wraps a causal language model: `learner(**batch, scale=1 / number)` is the summed loss of `batch` x `scale`.

    A batch has `input_ids`, `position_ids` and `labels`, each (rows, tokens); IGNORED labels are not scored.
    """

    def __init__(self, model: Any, mode: ComputeMode | None = None) -> None:
        super().__init__()
        self.model = model
        model.config.use_cache = False
        self.original_attention = attention_of(self._inner())
        fuse_activations(model)
        self.follow(mode or ComputeMode())

    def follow(self, mode: ComputeMode) -> None:
        """From now on compute in this mode."""
        self.mode = mode
        attention.set_attention(self._inner(), mode.attention, self.original_attention)
        if mode.compiled:
            self.backbone().compile(dynamic=False)

    def restore(self) -> Any:
        """The model as it came, attention included, and the layers of LoRA merged into it."""
        attention.set_attention(self._inner(), MASKED, self.original_attention)
        model = self.model.merge_and_unload() if hasattr(self.model, "merge_and_unload") else self.model
        model.config.use_cache = True
        return model

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        boundaries: torch.Tensor | None = None,
        scale: float = 1.0,
    ) -> torch.Tensor:
        targets = next_tokens(labels).flatten()
        with self._autocast(input_ids):
            if self.mode.loss == LOGITS:
                logits = self.model(
                    input_ids=input_ids, **self._where(position_ids, boundaries), use_cache=False
                ).logits
                return scale * functional.cross_entropy(
                    logits.flatten(0, 1).float(), targets, ignore_index=IGNORED, reduction="sum"
                )
            hidden = self._hidden(input_ids, position_ids, boundaries)
        if self.mode.loss == LINEAR:
            return scale * functional.linear_cross_entropy(
                hidden, self._head().to(hidden.dtype), targets, ignore_index=IGNORED, reduction="sum"
            )
        return ChunkedLoss.apply(hidden, self._head(), targets, scale)  # type: ignore[no-any-return, no-untyped-call]

    @torch.no_grad()
    def measure(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        boundaries: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The summed loss in nats (float64), the softmax in fp32 whatever the mode."""
        targets = next_tokens(labels).flatten()
        if self.mode.loss == LOGITS:
            return self(input_ids, position_ids, labels, boundaries).double()  # type: ignore[no-any-return]
        with self._autocast(input_ids):
            hidden = self._hidden(input_ids, position_ids, boundaries)
        return exact_nats(hidden, self._head(), targets)

    def backbone(self) -> Any:
        """The model without its head."""
        inner = self._inner()
        return getattr(inner, inner.base_model_prefix)

    def _inner(self) -> Any:
        """The transformers model, also inside a LoRA wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def _head(self) -> torch.Tensor:
        head = self._inner().get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            raise ValueError("a head with a bias has its logits made whole")
        weight: torch.Tensor = head.weight
        return weight

    def _hidden(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, boundaries: torch.Tensor | None
    ) -> torch.Tensor:
        """The last hidden states, a row a token, in the type of the products."""
        where = self._where(position_ids, boundaries)
        outputs = self.backbone()(input_ids=input_ids, **where, use_cache=False)
        states: torch.Tensor = outputs.last_hidden_state.flatten(0, 1)
        return states.to(torch.bfloat16) if self.mode.precision == "bf16" else states

    def _where(self, position_ids: torch.Tensor, boundaries: torch.Tensor | None) -> dict[str, Any]:
        """What tells the model where documents begin. `boundaries`: so that nobody has to ask a GPU, and stop it."""
        where: dict[str, Any] = {"position_ids": position_ids}
        if self.mode.attention == BLOCKS:
            where["layout"] = attention.layout_of(position_ids)
        if self.mode.attention == VARLEN:
            if boundaries is None:
                boundaries = attention.boundaries_of(position_ids, int((position_ids == 0).sum()))
            where["boundaries"] = boundaries
        return where

    def _autocast(self, like: torch.Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=self.mode.precision == "bf16")
