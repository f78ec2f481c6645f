"""What of a generated text stands word for word in the training text: runs, their sources, copied 13-grams.

13-grams as in Brown et al. 2020 (appendix C), who took them for a sign of contamination. The generated text is small
and the training text may be huge, so the index is of the former and the latter streams past it, a document at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from prosemill.text.words import words

Hashes = npt.NDArray[np.uint64]

COPIED_WORDS = 13
SEED_WORDS = 6  # shorter runs ("at the end of the day") are common phrases and are not looked for
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: a polynomial hash modulo 2^64


@dataclass(frozen=True)
class CopiedRun:
    """`size` words of text `text` from word `start` on that stand in a document of `source`."""

    text: int
    start: int
    size: int
    source: str


class CopyFinder:
    """Looks for word runs of `texts` in the documents it is shown."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = [words(text) for text in texts]
        self.runs: list[CopiedRun] = []
        self._hashes: dict[str, int] = {}
        self._begins = np.cumsum([0, *map(len, self.texts)])
        keys, places = [], []
        for begin, text_words in zip(self._begins, self.texts, strict=False):
            grams = self._grams(text_words)
            keys.append(grams)
            places.append(begin + np.arange(len(grams)))
        joined = np.concatenate(keys) if keys else np.zeros(0, np.uint64)
        order = np.argsort(joined, kind="stable")
        self._keys = joined[order]
        self._places: npt.NDArray[np.int64] = (np.concatenate(places) if places else np.zeros(0, np.int64))[order]

    def read(self, documents: Iterable[dict[str, Any]]) -> None:
        """Note the runs that the texts share with these training documents (rows with text and source)."""
        if not len(self._keys):
            return
        for document in documents:
            self._read(words(document["text"]), document["source"])

    def longest(self, texts: Iterable[int]) -> CopiedRun | None:
        """The longest run of those texts."""
        wanted = set(texts)
        return max((run for run in self.runs if run.text in wanted), key=lambda run: run.size, default=None)

    def copied(self, texts: Iterable[int], source: str = "") -> float:
        """Share of the 13-grams of those texts that stand in a training document (of `source`). 0 without any."""
        wanted = set(texts)
        total = sum(max(0, len(self.texts[text]) - COPIED_WORDS + 1) for text in wanted)
        copied: dict[int, set[int]] = {}
        for run in self.runs:
            if run.text in wanted and run.size >= COPIED_WORDS and source in ("", run.source):
                copied.setdefault(run.text, set()).update(range(run.start, run.start + run.size - COPIED_WORDS + 1))
        return sum(map(len, copied.values())) / total if total else 0.0

    def quote(self, run: CopiedRun) -> str:
        return " ".join(self.texts[run.text][run.start : run.start + run.size])

    def _read(self, text_words: list[str], source: str) -> None:
        grams = self._grams(text_words)
        low = np.searchsorted(self._keys, grams, "left")
        counts = np.searchsorted(self._keys, grams, "right") - low
        hits = np.flatnonzero(counts)
        if not len(hits):
            return
        repeated = np.repeat(hits, counts[hits])
        within = np.arange(len(repeated)) - np.repeat(np.cumsum(counts[hits]) - counts[hits], counts[hits])
        places = self._places[np.repeat(low[hits], counts[hits]) + within]
        self._join(repeated, places, source)

    def _join(self, here: npt.NDArray[np.int64], there: npt.NDArray[np.int64], source: str) -> None:
        """Neighbouring hits on one diagonal are one run."""
        diagonal = there - here
        order = np.lexsort((here, diagonal))
        here, there, diagonal = here[order], there[order], diagonal[order]
        breaks = np.flatnonzero((np.diff(diagonal) != 0) | (np.diff(here) != 1)) + 1
        for hits in np.split(there, breaks):
            text = int(np.searchsorted(self._begins, hits[0], "right")) - 1
            start = int(hits[0] - self._begins[text])
            self.runs.append(CopiedRun(text, start, len(hits) + SEED_WORDS - 1, source))

    def _grams(self, text_words: Sequence[str]) -> Hashes:
        """Hashes of all runs of SEED_WORDS words."""
        count = len(text_words) - SEED_WORDS + 1
        if count <= 0:
            return np.zeros(0, np.uint64)
        hashes = np.array([self._hash(word) for word in text_words], dtype=np.uint64)
        mixed = np.zeros(count, np.uint64)
        with np.errstate(over="ignore"):
            for place in range(SEED_WORDS):
                mixed = mixed * _MIX + hashes[place : place + count]
        return mixed

    def _hash(self, word: str) -> int:
        value = self._hashes.get(word)
        if value is None:
            value = self._hashes[word] = xxhash.xxh3_64_intdigest(word.encode())
        return value
