"""The rule of `words` as tables of characters, for code that is compiled."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from prosemill.text.scripts import NUM_CODE_POINTS, kinds, unsettled

LEFT = 5  # a class beside those of `scripts`: a text with such a character is left to `words`
# "İ" becomes two characters, and capital sigma one that depends on its place in the word.
_SPECIAL = (0x130, 0x3A3)
_CASED_END = 0x20000  # no letter above has a small one


@functools.cache
def tables(is_nfc: bool) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """For each code point its class and its small letter [0x110000]; `is_nfc` says that all texts are in NFC.

    Where they may not be, characters that NFC may change are LEFT.
    """
    lower = np.arange(NUM_CODE_POINTS, dtype=np.int32)
    letters = "".join(map(chr, range(_CASED_END))).translate(dict.fromkeys(_SPECIAL, " "))
    lower[:_CASED_END] = np.frombuffer(letters.lower().encode("utf-32-le", "surrogatepass"), np.int32)
    classes = kinds()[lower]
    classes[list(_SPECIAL)] = LEFT
    if not is_nfc:
        classes[unsettled()] = LEFT
    return classes, lower
