"""Which documents stay: greedy keep-first in order of arrival, candidates from the bands, decided by exact Jaccard.

Joining whole connected components instead loses text: in 30 % of what that removes, no kept document is a twin of it.
Here every removed document has a kept twin, and a keeper stays a keeper for ever.
"""

from __future__ import annotations

from array import array
from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prosemill.config.settings import Dedup
from prosemill.dedup.index import Candidates, History
from prosemill.dedup.minhash import SignedDocuments
from prosemill.dedup.shingles import Hashes, jaccard, release_memory
from prosemill.runtime.progress import report

REPORT_EVERY = 1000
RELEASE_EVERY = 200  # documents: each look at the shingles of a candidate maps 64 KB of the file around them
BLOCK_DOCUMENTS = 10_000  # some megabytes of bucket numbers
# A candidate is compared exactly unless its signature says it lies this many standard deviations below the loose
# threshold: one pair in 30,000 is missed that way, 60 times fewer than by the bands.
SIGMAS = 4.0


@dataclass(frozen=True)
class Removal:
    row: int
    keeper: int  # ordinal: history first, then the keepers of this run
    similarity: float
    reason: str  # exact | near


@dataclass
class KeeperChoice:
    """What became of the documents of a run, by their row."""

    kept: list[int] = field(default_factory=list)
    removed: list[Removal] = field(default_factory=list)
    pairs: list[tuple[int, int, float]] = field(default_factory=list)  # ordinals of two keepers, the newer one last


def choose(signed: SignedDocuments, history: History, settings: Dedup, stay: Container[int] = ()) -> KeeperChoice:
    """Keep or remove each document of `signed`, in order, against `history` and what was kept before it.

    `stay`: rows that are kept whatever they resemble; their pairs are listed all the same.
    """
    return _Search(signed, history, settings, stay).run()


class _Search:
    def __init__(self, signed: SignedDocuments, history: History, settings: Dedup, stay: Container[int]) -> None:
        self.signed, self.history, self.settings, self.stay = signed, history, settings, stay
        loose = settings.loose_threshold
        self.least_equal = settings.num_perm * (
            loose - SIGMAS * float(np.sqrt(loose * (1 - loose) / settings.num_perm))
        )
        self.choice = KeeperChoice()
        self.shared = _SharedBands.of(signed)
        _, groups = np.unique(signed.texts, return_inverse=True)
        self.groups: NDArray[np.int32] = groups.astype(np.int32)  # documents with the same text have the same number
        self.kept_texts = array("i", [-1]) * len(signed)  # group -> ordinal

    def run(self) -> KeeperChoice:
        exact = self.history.exact(self.signed.texts)
        old = self.history.look_up(self.signed.keys)
        is_alone = ~(self.shared.meets | old.any)  # most
        for row in range(len(self.signed)):
            if row % RELEASE_EVERY == 0:
                for shingles in (self.signed.shingles, *(segment.shingles for segment in self.history.segments)):
                    release_memory(shingles.hashes)
            if row % REPORT_EVERY == 0:
                report("comparing documents", row, len(self.signed))
            twin = int(exact[row]) if exact[row] >= 0 else self.kept_texts[self.groups[row]]
            if twin >= 0 and row not in self.stay:
                self.choice.removed.append(Removal(row, twin, 1.0, "exact"))
            elif is_alone[row]:
                self._keep(row, [])
            else:
                self._near(row, old)
        return self.choice

    def _near(self, row: int, old: Candidates) -> None:
        similar = self._similar(row, old)
        best = max(similar, key=lambda match: (match[1], -match[0]), default=(-1, 0.0))
        if best[1] >= self.settings.threshold and row not in self.stay:
            self.choice.removed.append(Removal(row, best[0], best[1], "near"))
        else:
            self._keep(row, similar)

    def _keep(self, row: int, similar: list[tuple[int, float]]) -> None:
        position = len(self.choice.kept)
        ordinal = len(self.history) + position
        self.choice.kept.append(row)
        self.choice.pairs.extend((other, ordinal, similarity) for other, similarity in similar)
        self.kept_texts[self.groups[row]] = ordinal
        self.shared.keep(row, position)

    def _similar(self, row: int, old: Candidates) -> list[tuple[int, float]]:
        """Keepers at least as similar as the loose threshold, with the similarity, in order of arrival."""
        candidates = self._candidates(row, old)
        shingles = self.signed.shingles[row]
        if not len(candidates) or not len(shingles):
            return []
        similar = []
        for ordinal in candidates:
            similarity = self._compare(shingles, ordinal)
            if similarity >= self.settings.loose_threshold:
                similar.append((ordinal, similarity))
        return similar

    def _candidates(self, row: int, old: Candidates) -> list[int]:
        """Ordinals that share a bucket with `row` and whose signature does not rule them out, ascending."""
        before, added = old.of(row), self.shared.candidates(row)
        mine = self.signed.signatures[row]
        if len(before):
            before = before[self._may_be_similar(self.history.signatures(before), mine)]
        if added:
            rows = [self.choice.kept[position] for position in added]
            likely = self._may_be_similar(self.signed.signatures[rows], mine).tolist()
            added = [position for position, is_likely in zip(added, likely, strict=True) if is_likely]
        return [*before.tolist(), *(position + len(self.history) for position in added)]

    def _may_be_similar(self, signatures: NDArray[np.uint32], mine: NDArray[np.uint32]) -> NDArray[np.bool_]:
        likely: NDArray[np.bool_] = np.count_nonzero(signatures == mine, axis=1) >= self.least_equal
        return likely

    def _compare(self, shingles: Hashes, ordinal: int) -> float:
        old = len(self.history)
        if ordinal < old:
            return jaccard(shingles, self.history.shingles(ordinal))
        return jaccard(shingles, self.signed.shingles[self.choice.kept[ordinal - old]])


class _SharedBands:
    """The band keys that several documents of the run have, which few do, as numbered buckets; and who of those that
    were kept is in each.

    Plain arrays: a list for each of the million buckets of half a million documents would take a quarter of a gigabyte.
    """

    def __init__(
        self, rows: NDArray[np.int64], buckets: NDArray[np.int64], num_documents: int, num_buckets: int
    ) -> None:
        """`rows` ascend: document rows[i] is in bucket buckets[i], and is the entry i of a chain when it is kept."""
        self.buckets = array("i", buckets.astype(np.int32).tobytes())
        self.starts = np.searchsorted(rows, np.arange(num_documents + 1))
        self.meets: NDArray[np.bool_] = np.diff(self.starts) > 0
        self.last = array("i", [-1]) * num_buckets  # entry
        self.before = array("i", [-1]) * len(rows)  # the entry of the same bucket that was kept before
        self.position = array("i", [-1]) * len(rows)  # in choice.kept

    @classmethod
    def of(cls, signed: SignedDocuments) -> _SharedBands:
        """Sorted once and looked up block by block: half a million documents have sixteen million keys."""
        ascending = np.sort(signed.keys, axis=None)
        repeated = ascending[1:][ascending[1:] == ascending[:-1]]
        del ascending
        repeated = repeated[np.concatenate([repeated[:1] == repeated[:1], repeated[1:] != repeated[:-1]])]
        bits = max(16, len(repeated).bit_length() + 3)
        low = np.uint64((1 << bits) - 1)
        is_there = np.zeros(1 << bits, bool)  # by the lowest bits: most keys go no further
        is_there[repeated & low] = True
        rows, buckets = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start in range(0, len(signed), BLOCK_DOCUMENTS):
            keys = signed.keys[start : start + BLOCK_DOCUMENTS]
            flat = keys.ravel()
            hits = np.flatnonzero(is_there[flat & low])
            places = np.searchsorted(repeated, flat[hits])
            places[places == len(repeated)] = 0  # beyond the end: compares unequal
            same = repeated[places] == flat[hits]
            rows.append(start + hits[same] // keys.shape[1])
            buckets.append(places[same])
        return cls(np.concatenate(rows), np.concatenate(buckets), len(signed), len(repeated))

    def candidates(self, row: int) -> list[int]:
        """Positions in choice.kept of the documents that share a bucket with `row`, ascending."""
        positions = set()
        last, before, position = self.last, self.before, self.position
        for bucket in self.buckets[self.starts[row] : self.starts[row + 1]]:
            entry = last[bucket]
            while entry >= 0:
                positions.add(position[entry])
                entry = before[entry]
        return sorted(positions)

    def keep(self, row: int, position: int) -> None:
        start = int(self.starts[row])
        for entry, bucket in enumerate(self.buckets[start : self.starts[row + 1]], start):
            self.before[entry], self.position[entry] = self.last[bucket], position
            self.last[bucket] = entry
