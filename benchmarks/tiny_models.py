"""Tiny GPT-2s with a tokenizer of their own, trained on passages in seconds: what the trials of the gate compare."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

CONTEXT = 96
EPOCHS = 3.0
RATE = 4e-3

Passages = list[str]


class TinyModels:
    """Makes a tokenizer once, and tiny models from text."""

    def __init__(self, folder: Path, text: Passages) -> None:
        self.folder = folder
        self.tokenizer = _tokenizer(text)

    def base(self, text: Passages, *, width: int, layers: int, epochs: float) -> Path:
        """A model trained on the passages from scratch; its folder."""
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=self.tokenizer.get_vocab_size(),
            n_positions=CONTEXT,
            n_embd=width,
            n_layer=layers,
            n_head=4,
            bos_token_id=0,
            eos_token_id=0,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
        return self._teach(GPT2LMHeadModel(config), f"base-{width}", text, seed=0, epochs=epochs, rate=0.25 / width)

    def tune(self, name: str, text: Passages, *, start: Path, seed: int, epochs: float = EPOCHS) -> Path:
        """The model of `start` fine-tuned on the passages, which the seed puts in order; its folder."""
        from transformers import GPT2LMHeadModel

        return self._teach(GPT2LMHeadModel.from_pretrained(start), name, text, seed=seed, epochs=epochs, rate=RATE)

    def _teach(self, model: Any, name: str, text: Passages, *, seed: int, epochs: float, rate: float) -> Path:
        from transformers import PreTrainedTokenizerFast

        folder, end = self.folder / name, "<|endoftext|>"
        pieces = [
            [*encoding.ids, 0][start : start + CONTEXT]
            for encoding in self.tokenizer.encode_batch_fast(text)
            for start in range(0, len(encoding.ids) + 1, CONTEXT)
        ]
        chunks = torch.zeros((len(pieces), CONTEXT), dtype=torch.int64)
        for row, piece in zip(chunks, pieces, strict=True):
            row[: len(piece)] = torch.tensor(piece)
        _train(model, chunks, seed, epochs, rate)
        model.save_pretrained(folder)
        fast = PreTrainedTokenizerFast(tokenizer_object=self.tokenizer, bos_token=end, eos_token=end)
        fast.save_pretrained(folder)
        return folder


def _tokenizer(text: Passages) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


def _train(model: Any, chunks: torch.Tensor, seed: int, epochs: float, rate: float, batch: int = 16) -> None:
    """AdamW with a warmed-up cosine schedule over chunks in an order that the seed draws, each epoch a new one."""
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(len(chunks)) for _ in range(math.ceil(epochs))])
    order = order[: round(len(chunks) * epochs)]
    steps = math.ceil(len(order) / batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.1)
    model.train()
    for step in range(steps):
        rows = chunks[order[step * batch : (step + 1) * batch]]
        labels = rows.masked_fill((rows == 0) & (rows.roll(1, dims=1) == 0), -100)  # padding
        model(rows, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
