"""What is used of numpy beside its documented interface; `tests/test_compat.py` checks each of it."""

from __future__ import annotations

import mmap
from typing import Any

from numpy.typing import NDArray


def memory_map_of(values: NDArray[Any]) -> mmap.mmap | None:
    """The memory map of a `numpy.memmap`; None for an array in memory."""
    return getattr(values, "_mmap", None)
