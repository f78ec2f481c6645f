"""Sets of shingles, as sorted 64-bit hashes, and the exact Jaccard similarity of two sets."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh64_intdigest

from prosemill.dedup.compat import memory_map_of

Hashes = NDArray[np.uint64]

BLOCK_HASHES = 1 << 20  # 8 MB
BLOCK_SETS = 2000


def hash_set(shingles: Sequence[bytes]) -> Hashes:
    """The distinct xxh64 hashes of `shingles`, ascending. Two of a million shingles share one with p = 3e-8."""
    hashes = np.fromiter(map(xxh64_intdigest, shingles), dtype=np.uint64, count=len(shingles))
    hashes.sort()
    is_first = np.ones(len(hashes), bool)
    np.not_equal(hashes[1:], hashes[:-1], out=is_first[1:])
    return hashes[is_first]  # np.unique takes five times as long on some hundred values


def text_hash(text: str) -> int:
    """xxh64 of the text in UTF-8, ASCII letters small, ASCII white space collapsed: equal for exact copies."""
    return xxh64_intdigest(b" ".join(text.encode().lower().split()))


def jaccard(a: Hashes, b: Hashes) -> float:
    """Exact Jaccard similarity of two sorted sets; 0 when either is empty."""
    if not len(a) or not len(b):
        return 0.0
    both = np.concatenate((a, b))
    both.sort()  # of some hundred values: faster than to look up each
    common = int(np.count_nonzero(both[1:] == both[:-1]))
    return common / (len(both) - common)


@dataclass(frozen=True)
class ShingleSets:
    """The shingle sets of many documents, end to end: document i owns hashes[offsets[i]:offsets[i + 1]]."""

    hashes: Hashes
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, sets: Iterable[Hashes]) -> ShingleSets:
        parts = list(sets)
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return cls(np.concatenate(parts) if parts else np.empty(0, np.uint64), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Hashes:
        return self._plain[self.offsets[row] : self.offsets[row + 1]]

    @cached_property
    def _plain(self) -> Hashes:
        """The hashes, sliced in a third of the time that a `np.memmap` takes."""
        return np.asarray(self.hashes)

    def __iter__(self) -> Iterator[Hashes]:
        return (self[row] for row in range(len(self)))

    def blocks(self) -> Iterator[Hashes]:
        """All hashes, some megabytes at a time; of a memory map, what was read is let go of."""
        for start in range(0, len(self.hashes), BLOCK_HASHES):
            yield self.hashes[start : start + BLOCK_HASHES]
            release_memory(self.hashes)

    def take(self, rows: NDArray[Any], spill: BinaryIO) -> ShingleSets:
        """The sets of `rows`, in a file that `spill` is: empty, and open for reading and writing."""
        sizes = np.diff(self.offsets)[rows]
        for start in range(0, len(rows), BLOCK_SETS):
            for row in rows[start : start + BLOCK_SETS].tolist():
                spill.write(self[row].data)
            release_memory(self.hashes)
        return ShingleSets(mapped(spill), np.cumsum([0, *sizes.tolist()]))

    @classmethod
    def joined(cls, parts: Sequence[ShingleSets], spill: BinaryIO) -> ShingleSets:
        """All sets of `parts`, in order, in the file `spill`."""
        for part in parts:
            for block in part.blocks():
                spill.write(block.data)
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(mapped(spill), np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]))


def mapped(file: BinaryIO) -> Hashes:
    """What is in the file, as a memory map."""
    file.flush()
    return np.memmap(file, np.uint64, "r") if file.tell() else np.empty(0, np.uint64)


def release_memory(values: NDArray[Any]) -> None:
    """Give back the memory that reading a memory map has taken; it is read again from the disk when it is wanted."""
    memory = memory_map_of(values)
    if memory is not None:
        memory.madvise(mmap.MADV_DONTNEED)
