"""What each character is to the kernel: its class and its lower case, as tables."""

from __future__ import annotations

import functools
import re

import numpy as np
from numpy.typing import NDArray

SEPARATOR, WORD, ALONE, BEYOND = 0, 1, 2, 3  # BEYOND: only Python's str.lower() knows
TABLE_SIZE = 0x20000  # both planes that hold letters; above them only ideographs, and what is left to Python
IDEOGRAPHS = (0x20000, 0x3FFFF)
# "İ" becomes two characters, and capital sigma one that depends on its place in the word.
SPECIAL = "\u0130\u03a3"


@functools.cache
def tables(alone: str) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """For each character its class and its lower case; `alone` is the character class of one-character tokens."""
    letters = "".join(map(chr, range(TABLE_SIZE))).translate(dict.fromkeys(map(ord, SPECIAL), " "))
    small = letters.lower()
    lower = np.frombuffer(small.encode("utf-32-le", "surrogatepass"), np.int32).copy()
    kinds = np.full(TABLE_SIZE, SEPARATOR, np.uint8)
    for expression, kind in ((r"\w+", WORD), (f"[{alone}]+", ALONE)):
        for run in re.finditer(expression, small):
            kinds[run.start() : run.end()] = kind
    for special in map(ord, SPECIAL):
        kinds[special], lower[special] = BEYOND, special
    return kinds, lower
