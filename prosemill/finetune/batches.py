"""Chunks as the model takes them: in a fixed order, documents kept apart, read ahead. Needs numpy and torch alone."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from prosemill.finetune.loss import IGNORED

READ_AHEAD = 2  # steps: the next is ready when one ends, and no memory goes to waste

Row = dict[str, Any]  # input_ids (uint16 or int32, chunk_tokens), starts, num_tokens


class Rows(Protocol):
    """Chunks by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row: ...

    def num_tokens(self) -> npt.NDArray[np.int64]: ...


def training_order(
    num_chunks: int, num_examples: int, seed: int, *, num_replayed: int = 0, replay_share: float = 0.0
) -> npt.NDArray[np.int64]:
    """`num_examples` row numbers: one shuffling of all chunks after another, each epoch a new one.

    With `num_replayed` chunks to replay (their numbers follow those of the others), every 1/`replay_share`-th is one of
    them. A function of its arguments alone, so that a resumed run continues it.
    """
    if not num_replayed or not replay_share:
        return _shufflings(num_chunks, num_examples, [seed])
    turns = np.floor(np.arange(num_examples + 1) * replay_share)
    is_replayed = np.diff(turns) > 0
    order = np.empty(num_examples, dtype=np.int64)
    order[~is_replayed] = _shufflings(num_chunks, int((~is_replayed).sum()), [seed])
    order[is_replayed] = num_chunks + _shufflings(num_replayed, int(is_replayed.sum()), [seed, 1])
    return order


def _shufflings(size: int, wanted: int, seeds: list[int]) -> npt.NDArray[np.int64]:
    epochs = math.ceil(wanted / size)
    shuffled = [np.random.default_rng([*seeds, epoch]).permutation(size) for epoch in range(epochs)]
    return np.concatenate([np.empty(0, dtype=np.int64), *shuffled])[:wanted]


def collate(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """int64 tensors `input_ids`, `position_ids`, `labels`, each of shape (rows, chunk_tokens).

    Positions restart where a document begins, and padding is a document of its own; from that alone attention keeps
    them apart. No label at a document's first token, which its neighbour must not be asked to predict, nor on padding.
    """
    input_ids = np.stack([row["input_ids"] for row in rows]).astype(np.int64)
    columns = np.broadcast_to(np.arange(input_ids.shape[1]), input_ids.shape)
    begins = columns == 0
    is_padding = columns >= np.array([[int(row["num_tokens"])] for row in rows])
    for row, begin in zip(rows, begins, strict=True):
        starts = np.asarray(row["starts"], dtype=np.int64)
        begin[starts[starts < len(begin)]] = True
    begins |= is_padding & ~np.roll(is_padding, 1, axis=1)
    positions = columns - np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
    labels = np.where(begins | is_padding, IGNORED, input_ids)
    return {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(positions),
        "labels": torch.from_numpy(labels),
    }


def num_scored(batch: dict[str, torch.Tensor]) -> int:
    """How many tokens of a batch are predicted."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


class Steps:
    """The batch of each step from `first` on, as this process's part of it, made by a thread while the model works.

    Yields `collate`'s tensors and `scored`, the number of predicted tokens in the whole batch. Every process gets as
    many rows; what the last batch lacks is made up with rows that are not scored.
    """

    def __init__(
        self, rows: Rows, batch_chunks: int, *, first: int = 0, rank: int = 0, ranks: int = 1, pinned: bool = False
    ) -> None:
        self.rows, self.batch_chunks, self.first = rows, batch_chunks, first
        self.rank, self.ranks, self.pinned = rank, ranks, pinned

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.batch_chunks)

    def batch(self, step: int) -> dict[str, Any]:
        begin = step * self.batch_chunks
        numbers = range(begin, min(begin + self.batch_chunks, len(self.rows)))
        whole = collate([self.rows[number] for number in numbers])
        scored = num_scored(whole)
        part = math.ceil(len(numbers) / self.ranks)
        mine = {name: _part(tensor, self.rank * part, part) for name, tensor in whole.items()}
        mine["labels"][max(0, len(numbers) - self.rank * part) :] = IGNORED
        return {name: tensor.pin_memory() if self.pinned else tensor for name, tensor in mine.items()} | {
            "scored": scored
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        ready: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue(READ_AHEAD)
        gone = threading.Event()

        def read() -> None:
            try:
                for step in range(self.first, len(self)):
                    _put(ready, self.batch(step), gone)
                _put(ready, None, gone)
            except BaseException as error:  # noqa: BLE001 - raised again by the reader's caller
                _put(ready, error, gone)

        thread = threading.Thread(target=read, name="read-ahead", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            gone.set()


def _part(tensor: torch.Tensor, begin: int, size: int) -> torch.Tensor:
    """`size` rows from `begin` on; where there are none, the last row again."""
    index = torch.arange(begin, begin + size).clamp(max=len(tensor) - 1)
    return tensor[index]


def _put(ready: queue.Queue[Any], item: Any, gone: threading.Event) -> None:
    while not gone.is_set():
        try:
            ready.put(item, timeout=0.5)
        except queue.Full:
            continue
        return
