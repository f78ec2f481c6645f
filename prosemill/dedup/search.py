"""Which documents stay: greedy keep-first in order of arrival, candidates from the bands, decided by exact Jaccard.

Joining whole connected components instead loses text: in 30 % of what that removes, no kept document is a twin of it.
Here every removed document has a kept twin, and a keeper stays a keeper for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prosemill.dedup.index import Candidates, History
from prosemill.dedup.minhash import Signed
from prosemill.dedup.shingles import Hashes, jaccard, let_go
from prosemill.progress import report
from prosemill.settings import Dedup

REPORT_EVERY = 1000
LET_GO_EVERY = 200  # documents: each look at the shingles of a candidate maps 64 KB of the file around them
BLOCK_DOCUMENTS = 10_000  # some megabytes of bucket numbers
# A candidate is compared exactly unless its signature says it lies this many standard deviations below the loose
# threshold: one pair in 30,000 is missed that way, 60 times fewer than by the bands.
SIGMAS = 4.0


@dataclass(frozen=True)
class Removal:
    row: int
    keeper: int  # ordinal: history first, then the keepers of this night
    similarity: float
    reason: str  # exact | near


@dataclass
class Choice:
    """What became of the documents of a night, by their row."""

    kept: list[int] = field(default_factory=list)
    removed: list[Removal] = field(default_factory=list)
    pairs: list[tuple[int, int, float]] = field(default_factory=list)  # ordinals of two keepers, the newer one last


def choose(signed: Signed, history: History, settings: Dedup, stay: Container[int] = ()) -> Choice:
    """Keep or remove each document of `signed`, in order, against `history` and what was kept before it.

    `stay`: rows that are kept whatever they resemble; their pairs are listed all the same.
    """
    return _Search(signed, history, settings, stay).run()


class _Search:
    def __init__(self, signed: Signed, history: History, settings: Dedup, stay: Container[int]) -> None:
        self.signed, self.history, self.settings, self.stay = signed, history, settings, stay
        loose = settings.loose_threshold
        self.least_equal = settings.num_perm * (
            loose - SIGMAS * float(np.sqrt(loose * (1 - loose) / settings.num_perm))
        )
        self.choice = Choice()
        self.kept_texts: dict[int, int] = {}  # text hash -> ordinal
        self.buckets: dict[int, list[int]] = defaultdict(list)  # shared band key -> positions in choice.kept
        self.shared = _shared_keys(signed)
        # Shares a bucket with another document of the night: few do.
        self.meets: NDArray[np.bool_] = np.any(self.shared >= 0, axis=1)

    def run(self) -> Choice:
        exact = self.history.exact(self.signed.texts)
        old = self.history.look_up(self.signed.keys)
        for row in range(len(self.signed)):
            if row % LET_GO_EVERY == 0:
                for shingles in (self.signed.shingles, *(segment.shingles for segment in self.history.segments)):
                    let_go(shingles.hashes)
            if row % REPORT_EVERY == 0:
                report("comparing documents", row, len(self.signed))
            twin = int(exact[row]) if exact[row] >= 0 else self.kept_texts.get(int(self.signed.texts[row]), -1)
            if twin >= 0 and row not in self.stay:
                self.choice.removed.append(Removal(row, twin, 1.0, "exact"))
            else:
                self._near(row, old)
        return self.choice

    def _near(self, row: int, old: Candidates) -> None:
        similar = self._similar(row, old)
        best = max(similar, key=lambda found: (found[1], -found[0]), default=(-1, 0.0))
        if best[1] >= self.settings.threshold and row not in self.stay:
            self.choice.removed.append(Removal(row, best[0], best[1], "near"))
        else:
            self._keep(row, similar)

    def _keep(self, row: int, similar: list[tuple[int, float]]) -> None:
        position = len(self.choice.kept)
        ordinal = len(self.history) + position
        self.choice.kept.append(row)
        self.choice.pairs.extend((other, ordinal, similarity) for other, similarity in similar)
        self.kept_texts[int(self.signed.texts[row])] = ordinal
        if self.meets[row]:
            for bucket in self.shared[row].tolist():
                if bucket >= 0:
                    self.buckets[bucket].append(position)

    def _similar(self, row: int, old: Candidates) -> list[tuple[int, float]]:
        """Keepers at least as similar as the loose threshold, with the similarity, in order of arrival."""
        if not self.meets[row] and not len(old.of(row)):
            return []
        shingles = self.signed.shingles[row]
        if not len(shingles):
            return []
        found = []
        for ordinal in self._candidates(row, old):
            similarity = self._compare(shingles, int(ordinal))
            if similarity >= self.settings.loose_threshold:
                found.append((int(ordinal), similarity))
        return found

    def _candidates(self, row: int, old: Candidates) -> NDArray[np.int64]:
        """Ordinals that share a bucket with `row` and whose signature does not rule them out, ascending."""
        before = old.of(row)
        lists = [self.buckets[bucket] for bucket in self.shared[row].tolist() if bucket in self.buckets]
        tonight = np.unique(np.concatenate([np.array(each, np.int64) for each in lists])) if lists else _NONE
        mine = self.signed.signatures[row]
        if len(before):
            before = before[self._may_be_similar(self.history.signatures(before), mine)]
        if len(tonight):
            rows = np.array([self.choice.kept[position] for position in tonight])
            tonight = tonight[self._may_be_similar(self.signed.signatures[rows], mine)]
        return np.concatenate([before, tonight + len(self.history)])

    def _may_be_similar(self, signatures: NDArray[np.uint32], mine: NDArray[np.uint32]) -> NDArray[np.bool_]:
        likely: NDArray[np.bool_] = np.count_nonzero(signatures == mine, axis=1) >= self.least_equal
        return likely

    def _compare(self, shingles: Hashes, ordinal: int) -> float:
        old = len(self.history)
        if ordinal < old:
            return jaccard(shingles, self.history.shingles(ordinal))
        return jaccard(shingles, self.signed.shingles[self.choice.kept[ordinal - old]])


_NONE = np.empty(0, np.int64)


def _shared_keys(signed: Signed) -> NDArray[np.int32]:
    """Bucket numbers [documents, bands]; -1 for a key that no other document of the night has: most of them.

    Sorted once and looked up block by block: half a million documents have sixteen million keys.
    """
    buckets = np.full(signed.keys.shape, -1, np.int32)
    ascending = np.sort(signed.keys, axis=None)
    repeated = np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
    del ascending
    if not len(repeated):
        return buckets
    for start in range(0, len(signed), BLOCK_DOCUMENTS):
        keys = signed.keys[start : start + BLOCK_DOCUMENTS]
        places = np.searchsorted(repeated, keys)
        places[places == len(repeated)] = 0  # beyond the end: compares unequal
        hits = repeated[places] == keys
        buckets[start : start + BLOCK_DOCUMENTS][hits] = places[hits]
    return buckets
