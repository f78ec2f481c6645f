"""Chunks as the model takes them: memory-mapped, in a fixed order, documents kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset, concatenate_datasets

IGNORED = -100  # the label that torch's cross-entropy leaves out

Row = dict[str, Any]


class Chunks(torch.utils.data.Dataset[Row]):
    """Rows of Arrow files, in `order` (one may come more than once); nothing is read before it is asked for."""

    def __init__(self, files: Sequence[str], order: npt.NDArray[np.int64] | None = None) -> None:
        self.rows = concatenate_datasets([Dataset.from_file(file) for file in files]).with_format("numpy")
        self.order = np.arange(len(self.rows)) if order is None else order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Row:
        return self.rows[int(self.order[index])]  # type: ignore[no-any-return]

    def num_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens (without padding) of each row, in order."""
        column: npt.NDArray[np.int64] = self.rows.data.column("num_tokens").to_numpy().astype(np.int64)
        return column[self.order]


def training_order(num_chunks: int, num_examples: int, seed: int) -> npt.NDArray[np.int64]:
    """`num_examples` row numbers: one shuffling of all chunks after another, each epoch a new one.

    A function of its arguments alone, so that a resumed run continues it.
    """
    epochs = -(-num_examples // num_chunks)
    shuffled = [np.random.default_rng([seed, epoch]).permutation(num_chunks) for epoch in range(epochs)]
    return np.concatenate(shuffled)[:num_examples]


def collate(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """int64 tensors `input_ids`, `position_ids`, `labels`, each of shape (rows, chunk_tokens).

    Positions restart where a document begins; from that (and without an attention mask or a cache) transformers builds
    the block-diagonal causal mask. No label at a document's first token, which its neighbour must not be asked to
    predict, nor on padding, which is a sequence of its own.
    """
    input_ids = np.stack([row["input_ids"] for row in rows]).astype(np.int64)
    columns = np.broadcast_to(np.arange(input_ids.shape[1]), input_ids.shape)
    begins = columns == 0
    is_padding = columns >= np.array([[int(row["num_tokens"])] for row in rows])
    for row, begin in zip(rows, begins, strict=True):
        begin[np.asarray(row["starts"], dtype=np.int64)] = True
    begins |= is_padding & ~np.roll(is_padding, 1, axis=1)
    positions = columns - np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
    labels = np.where(begins | is_padding, IGNORED, input_ids)
    return {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(positions),
        "labels": torch.from_numpy(labels),
    }
