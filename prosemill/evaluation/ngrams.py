"""Words of a text, in any language, and two measures of how much a text repeats itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A character of its own where no spaces stand between words (Thai, Lao, kana, Han); else a run of letters and digits.
_UNSPACED = "\u0e00-\u0eff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """Words (for Chinese, Japanese, Thai: characters) in lower case, punctuation left out."""
    return _WORD.findall(text.lower())


def repetition(texts: Sequence[str], n: int = 4) -> float:
    """Share of word n-grams that stood in the same text before: seq-rep-4 of Welleck et al. 2020. 0 without any."""
    total = different = 0
    for text in texts:
        grams = _grams(words(text), n)
        total += len(grams)
        different += len(set(grams))
    return 1 - different / total if total else 0.0


def distinct(texts: Sequence[str], n: int) -> float:
    """Different word n-grams over all n-grams of the texts together: distinct-n of Li et al. 2016. 0 without any."""
    grams = [gram for text in texts for gram in _grams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _grams(found: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(found[start : start + n]) for start in range(len(found) - n + 1)]
