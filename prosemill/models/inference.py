"""A model's layers made faster for scoring and writing: the same function, in float32 as before.

torch gives float32 products to MKL, which on processors that are not Intel's stays at AVX2: on an AMD EPYC with AVX-512
a core made 105 GFLOP/s of 1,024 rows and 80 of 16; oneDNN's products of packed weights, 240 and 220. And transformers
spells GPT-2's GELU out in eight operations, where torch has one. Sums are added in another order, hence differ in the
last digits. Needs torch and transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from prosemill.models.compat import pack_linear_weight, packed_linear

log = logging.getLogger(__name__)

PROBE_IDS = 8
AGREE = 1e-4  # relative to the largest logit; float32 sums in another order differ by far less


class PackedLinear(nn.Module):
    """inputs (…, in) times the transpose of `weight` (out, in), plus `bias`, in float32 on a CPU; without gradients."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.bias = bias
        self.packed = pack_linear_weight(weight)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return packed_linear(inputs, self.packed, self.bias)


def for_inference(model: Any) -> Any:
    """The same model with faster layers where they work here. It can no longer be trained or saved.

    Linear layers stay as they are on another device than a CPU, in another type than float32, within torch's own
    blocks (which read their children's weights), and where the model would say something else afterwards.
    """
    fuse_activations(model)
    kinds = {(parameter.device.type, parameter.dtype) for parameter in model.parameters()}
    if kinds != {("cpu", torch.float32)}:
        return model
    layers = list(_linear_layers(model))
    with torch.inference_mode():
        expected = _probe(model)
        try:
            for parent, name, layer in layers:
                setattr(parent, name, _packed(layer))
            output = _probe(model)
        except (AttributeError, RuntimeError) as error:  # an operator that this torch lacks; a model that reads weights
            log.info("linear layers are not packed: %s", str(error).splitlines()[0])
        else:
            if float((output - expected).abs().max()) <= AGREE * float(expected.abs().max()):
                return model
            log.warning("linear layers are not packed: on this machine the model would write something else")
    for parent, name, layer in layers:
        setattr(parent, name, layer)
    return model


def fuse_activations(model: nn.Module) -> None:
    """One kernel for GPT-2's GELU instead of eight: the same function (its tanh approximation) but for rounding."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(parent, name, nn.GELU(approximate="tanh"))


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear | Conv1D]]:
    """(parent, attribute, layer) of each plain linear layer that nothing but a call uses."""
    for parent in model.modules():
        if type(parent).__module__.startswith("torch.nn.") and not isinstance(parent, nn.ModuleList | nn.Sequential):
            continue
        for name, layer in parent.named_children():
            if type(layer) in (nn.Linear, Conv1D):
                yield parent, name, layer


def _packed(layer: nn.Linear | Conv1D) -> PackedLinear:
    weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight  # Conv1D's is (in, out)
    return PackedLinear(weight, layer.bias)


def _probe(model: Any) -> torch.Tensor:
    """Logits (1, ids, vocabulary) of a few ids."""
    ids = torch.arange(PROBE_IDS)[None] % model.config.vocab_size
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits
