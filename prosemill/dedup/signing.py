"""The kernel with its tables and the room that it works in."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosemill.dedup.shingles import Hashes
from prosemill.runtime import kernel_cache
from prosemill.text import scripts, tables

Counts = NDArray[np.int64]
Signatures = NDArray[np.uint32]

HERE = Path(__file__).parent
SIGN_TEXTS = kernel_cache.Kernel(
    "prosemill.dedup.kernel",
    "sign_texts",
    "uint8* int64* int64 int64 uint8* int32* uint32* uint32* int64 "
    "uint8* int64* uint64* int64* uint64* uint64* int64* uint32*",
    (HERE / "kernel.py", Path(scripts.__file__), Path(tables.__file__)),
)
_room = threading.local()


def sign_batch(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    words: int,
    factors: Signatures,
    terms: Signatures,
    *,
    is_nfc: bool,
) -> tuple[Hashes, Hashes, Counts, Signatures]:
    """Hashes of whole texts; shingle hashes, distinct and ascending, end to end; how many each text has (-1: left to
    Python); signatures. The shingle hashes are good until the same thread signs the next batch.

    data: UTF-8 of all texts end to end [bytes]. offsets [texts + 1]. words: tokens a shingle. factors, terms: the
    permutations [num_perm]. is_nfc: whether all texts are in NFC; else those that may not be are left.
    """
    texts, size = len(offsets) - 1, int(offsets[-1] - offsets[0]) + len(offsets)
    longest = int(np.diff(offsets).max(initial=0))
    hashes = _of_size("hashes", size, np.uint64)
    room = (
        _of_size("out", 2 * longest + 16, np.uint8),  # a small letter takes at most half as much again, a token a space
        _of_size("firsts", longest + 1, np.int64),
        _of_size("spare", longest + 1, np.uint64),
        _of_size("ends", 2 * longest + 4, np.int64),  # a bucket for each shingle, rounded up to a power of two
    )
    whole, counts = np.empty(texts, np.uint64), np.empty(texts, np.int64)
    signatures = np.full((texts, len(factors)), 0xFFFFFFFF, np.uint32)
    permutations = (factors, terms, len(factors))
    kernel_cache.function(SIGN_TEXTS)(
        data,
        offsets,
        texts,
        words,
        *tables.tables(is_nfc),
        *permutations,
        *room,
        whole,
        hashes,
        counts,
        signatures.ravel(),
    )
    return whole, hashes[: int(np.maximum(counts, 0).sum())], counts, signatures


def _of_size(name: str, size: int, kind: type[Any]) -> NDArray[Any]:
    """An array of this thread, at least so long.

    Allocated anew for each batch, tens of megabytes that come and go between small arrays that stay would leave the
    heap in pieces: three times the memory.
    """
    array: NDArray[Any] | None = getattr(_room, name, None)
    if array is None or len(array) < size:
        array = np.empty(size + size // 4, kind)
        setattr(_room, name, array)
    return array
