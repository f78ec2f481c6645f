"""What is used of torch and transformers beside their documented interface; `tests/test_compat.py` checks each of it.

torch's own compiler (Inductor) writes these calls into what it compiles for a CPU. Needs torch and transformers.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel


class TiedModel(PreTrainedModel):  # type: ignore[misc]
    """A model of our own as transformers wants it: `lm_head` shares the weight of `model.embedding`."""

    _tied_weights_keys = {"lm_head.weight": "model.embedding.weight"}  # noqa: RUF012 - transformers reads it so
    _no_split_modules: list[str] = []  # noqa: RUF012
    _supports_sdpa = True
    _supports_attention_backend = True

    def _init_weights(self, module: nn.Module) -> None:
        """Weights come from `baselines.folders`; a model made without them has torch's."""


def pack_linear_weight(weight: torch.Tensor) -> torch.Tensor:
    """A float32 weight (out, in) in oneDNN's order of this processor; AttributeError where this torch has none."""
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
    return packed


def packed_linear(inputs: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """inputs (…, in) times the transpose of what was packed, plus `bias` (out): (…, out), without gradients."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, packed, bias, "none", [], "")
    return product
