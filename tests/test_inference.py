"""Faster layers for scoring and writing: the same logits, and the plain layers wherever the fast ones do not fit."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig
from transformers.pytorch_utils import Conv1D

from prosemill.models.bases import resolve
from prosemill.models.inference import PackedLinear, for_inference
from prosemill.models.loading import load_model

IDS = torch.randint(0, 90, (3, 40), generator=torch.Generator().manual_seed(0))
GPT2 = GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=2, n_positions=64)
LLAMA = LlamaConfig(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, head_dim=16
)


def build_model(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits.clone()


def kinds(model: nn.Module) -> set[type]:
    return {type(module) for module in model.modules()}


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_every_linear_layer_is_packed_and_the_logits_stay(config: Any) -> None:
    model = build_model(config)
    expected = logits(model)
    fast = for_inference(model)
    assert PackedLinear in kinds(fast)
    assert not kinds(fast) & {nn.Linear, Conv1D}
    torch.testing.assert_close(logits(fast), expected, rtol=1e-5, atol=1e-6)


def test_torchs_own_blocks_keep_their_layers() -> None:
    """nn.TransformerEncoderLayer reads the weights of its children."""
    model = load_model(resolve("transformer").folder)
    expected = logits(model)
    fast = for_inference(model)
    block = next(module for module in fast.modules() if isinstance(module, nn.TransformerEncoderLayer))
    assert type(block.linear1) is nn.Linear
    torch.testing.assert_close(logits(fast), expected, rtol=1e-4, atol=1e-5)


def test_another_type_than_float32_keeps_its_layers() -> None:
    assert PackedLinear not in kinds(for_inference(build_model(LLAMA).bfloat16()))


def test_a_model_that_would_say_something_else_keeps_its_layers(caplog: pytest.LogCaptureFixture) -> None:
    model = build_model(GPT2)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = type(self).forward(self, *args, **kwargs)
        output.logits += 1.0 * isinstance(self.lm_head, PackedLinear)
        return output

    model.forward = forward.__get__(model)
    expected = logits(model)
    with caplog.at_level(logging.WARNING, "prosemill.models.inference"):
        plain = for_inference(model)
    assert "would write something else" in caplog.text
    assert PackedLinear not in kinds(plain)
    torch.testing.assert_close(logits(plain), expected)


def test_a_model_that_reads_its_weights_keeps_its_layers() -> None:
    model = build_model(GPT2)

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        assert self.lm_head.weight.shape == (96, 32)
        return type(self).forward(self, *args, **kwargs)

    model.forward = forward.__get__(model)
    assert PackedLinear not in kinds(for_inference(model))
