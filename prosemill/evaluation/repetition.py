"""Two measures of how much a text repeats itself, in any language."""

from __future__ import annotations

from collections.abc import Sequence

from prosemill.text.ngrams import ngrams
from prosemill.text.words import words


def repetition(texts: Sequence[str], n: int = 4) -> float:
    """Share of word n-grams that stood in the same text before: seq-rep-4 of Welleck et al. 2020. 0 without any."""
    total = different = 0
    for text in texts:
        grams = list(ngrams(words(text), n))
        total += len(grams)
        different += len(set(grams))
    return 1 - different / total if total else 0.0


def distinct(texts: Sequence[str], n: int) -> float:
    """Different word n-grams over all n-grams of the texts together: distinct-n of Li et al. 2016. 0 without any."""
    grams = [gram for text in texts for gram in ngrams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0
