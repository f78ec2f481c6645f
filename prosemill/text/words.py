"""A text's words: runs of letters, marks and digits; in scripts that put no spaces between them, letters with marks.

NFC first, then small letters as `str.lower` makes them, which `casefold` would not always: ß stays ß, the last sigma of
a word its own letter; I becomes i and İ becomes i with a dot in any language, ı stays ı. Plain Latin and Han give what
`\\w+` and single ideographs gave, so that signatures of such texts last.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from prosemill.text.scripts import ALONE, IGNORED, LETTER, MARK, kinds

# For ASCII, the same by a byte table: small letters, everything else a space.
_ASCII = bytes(ord(chr(byte).lower()) if re.match(r"\w", chr(byte), re.ASCII) else 32 for byte in range(256))


def words(text: str) -> list[str]:
    """The words of `text`, in order; [] where it has none."""
    return joined_words(text).split()


def joined_words(text: str) -> str:
    """The words of `text` with one space between two of them."""
    if text.isascii():
        return b" ".join(text.encode().translate(_ASCII).split()).decode()
    small = unicodedata.normalize("NFC", text).lower()
    codes = np.frombuffer(small.encode("utf-32-le", "surrogatepass"), np.uint32)
    kind = kinds()[codes]
    if (is_ignored := kind == IGNORED).any():
        codes, kind = codes[~is_ignored], kind[~is_ignored]
    # A mark goes with what stands before it and the marks between; one behind a separator is none.
    is_base = kind != MARK
    base = np.maximum.accumulate(np.where(is_base, np.arange(len(kind)), 0))
    kind = np.where(is_base[base], kind[base], 0)
    is_first = is_base & ((kind == ALONE) | ((kind == LETTER) & (np.concatenate([[0], kind[:-1]]) != LETTER)))
    is_kept = (kind == ALONE) | (kind == LETTER)
    codes, is_first = codes[is_kept], is_first[is_kept]
    spaced = np.full(len(codes) + int(np.count_nonzero(is_first)), 32, np.uint32)
    spaced[np.arange(len(codes)) + np.cumsum(is_first)] = codes
    return spaced[1:].tobytes().decode("utf-32-le")
