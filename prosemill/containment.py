"""Which documents hold another one whole, or nearly: what Jaccard similarity does not see when one is much longer.

Reads the index that dedup keeps of all keepers; nothing is tokenised again. Two looks, both by sampled shingles first
and by all shingles then:

- `holding`: new documents that hold a held-out one. Every held-out document is known by its LEAST smallest shingle
  hashes (a sketch, Broder 1997); whatever holds it has these among its own.
- `entangled`: new documents that must not be held out, because they lie within a training document or hold one. The
  index has one shingle in 16 of every document; those of the smaller one are among those of the larger. A document so
  short that none of its shingles was sampled is not found.

Memory and time follow what is new, and what is held out; a shingle that very many documents have is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prosemill.dedup.index import SAMPLED, History, Segment, parameters_of, segments_of
from prosemill.dedup.shingles import Hashes, let_go
from prosemill.errors import StoreError
from prosemill.storage import Store

CONTAINED = 0.8  # share of a document's shingles that make another one hold it; a word changed costs five of them
LEAST = 8  # hashes by which a held-out document is known; at CONTAINED, all but 1 in 1,000 share at least FEW of them
FEW = 3
MOST_COMMON = 1000  # documents; a shingle that more of them have says nothing
LET_GO_EVERY = 200  # documents: each look at shingles maps 64 KB of their file
BLOCK_SKETCHES = 1000  # documents: 64 KB of the file each
BLOCK_SHINGLES = 1 << 20  # looked up at once: some tens of megabytes
FILTER_BITS = 22  # 4 MB, which the second-level cache holds; of a million hashes looked up, most end there

Ordinals = NDArray[np.int64]


@dataclass(frozen=True)
class Holding:
    """`container` has `share` of the shingles of `contained`; both are ordinals."""

    container: int
    contained: int
    share: float


def read_index(store: Store, dedup: str, num_keepers: int) -> History:
    """The index of a dedup snapshot, its rows in the order of the keepers. StoreError where it has other rows."""
    segments = segments_of(store.manifest(dedup))
    history = History([Segment.read(store, path, parameters_of(store, path)) for path in segments])
    if len(history) != num_keepers:
        raise StoreError(
            f"{store.url}: the index of {dedup} has {len(history)} documents, not {num_keepers}; "
            "make the corpus anew with `prosemill retrain RECIPE --refresh`"
        )
    return history


# --- new documents that hold a held-out one -------------------------------------------------------------------------


def holding(history: History, new: Ordinals, held_out: Ordinals) -> list[Holding]:
    """For each document of `new` that holds one of `held_out`, the one that it holds most of; both ascend."""
    known = _Sketches.of(history, held_out)
    if not len(known.hashes) or not len(new):
        return []
    is_new = np.zeros(len(history), bool)
    is_new[new] = True
    found: dict[int, Holding] = {}
    for first, owners, hashes in _blocks(history, int(new[0])):
        for document, other in known.candidates(owners, hashes):
            container, contained = first + document, int(held_out[other])
            if is_new[container] and container != contained:
                share = _share(history.shingles(contained), history.shingles(container))
                if share >= max(CONTAINED, found[container].share if container in found else 0.0):
                    found[container] = Holding(container, contained, share)
    return list(found.values())


@dataclass(frozen=True)
class _Sketches:
    """The LEAST smallest hashes of some documents (or all, where there are fewer), ascending, and whose each is."""

    hashes: Hashes
    owners: NDArray[np.int64]
    sizes: NDArray[np.int64]  # hashes by which each document is known
    is_there: NDArray[np.bool_]  # by the lowest FILTER_BITS of a hash

    @classmethod
    def of(cls, history: History, ordinals: Ordinals) -> _Sketches:
        """`ordinals` ascend."""
        hashes, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        bounds = np.searchsorted(ordinals, history.firsts)
        for segment, first, start, end in zip(history.segments, history.firsts, bounds, bounds[1:], strict=False):
            offsets, found = np.asarray(segment.shingles.offsets), np.asarray(segment.shingles.hashes)
            for block in range(start, end, BLOCK_SKETCHES):
                rows = ordinals[block : min(end, block + BLOCK_SKETCHES)] - first
                sizes.append(np.minimum(offsets[rows + 1] - offsets[rows], LEAST))
                hashes.append(found[_spread(offsets[rows], sizes[-1])])
                let_go(segment.shingles.hashes)
        flat, of_each = np.concatenate(hashes), np.concatenate(sizes)
        order = np.argsort(flat, kind="stable")
        is_there = np.zeros(1 << FILTER_BITS, bool)
        is_there[_low(flat)] = True
        return cls(flat[order], np.repeat(np.arange(len(of_each)), of_each)[order], of_each, is_there)

    def candidates(self, owners: NDArray[np.int64], hashes: Hashes) -> Iterator[tuple[int, int]]:
        """Pairs of one of `owners`, whose the `hashes` are, and one of ours that have enough of them in common."""
        hits = np.flatnonzero(self.is_there[_low(hashes)])
        owners, hashes = owners[hits], hashes[hits]
        starts = np.searchsorted(self.hashes, hashes, "left")
        numbers = np.searchsorted(self.hashes, hashes, "right") - starts
        numbers[numbers > MOST_COMMON] = 0
        pairs = np.repeat(owners, numbers) * len(self.sizes) + self.owners[_spread(starts, numbers)]
        distinct, shared = np.unique(pairs, return_counts=True)
        theirs = distinct % len(self.sizes)
        enough = shared >= np.minimum(FEW, np.maximum(1, self.sizes[theirs] // 2))
        yield from zip((distinct[enough] // len(self.sizes)).tolist(), theirs[enough].tolist(), strict=True)


def _spread(starts: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1 … for each of `starts`, as many as `numbers` says, one after another."""
    places: NDArray[np.int64] = np.repeat(starts - np.cumsum(numbers) + numbers, numbers) + np.arange(numbers.sum())
    return places


def _blocks(history: History, since: int) -> Iterator[tuple[int, NDArray[np.int64], Hashes]]:
    """All documents from the ordinal `since` on, some at a time: the first ordinal, and for each shingle the document
    (counted from it) and the hash."""
    for first, segment in zip(history.firsts[:-1].tolist(), history.segments, strict=True):
        offsets, hashes = np.asarray(segment.shingles.offsets), segment.shingles.hashes
        row = max(0, since - first)
        while row < len(segment):
            end = max(row + 1, int(np.searchsorted(offsets, offsets[row] + BLOCK_SHINGLES, "right")) - 1)
            yield (
                first + row,
                np.repeat(np.arange(end - row), np.diff(offsets[row : end + 1])),
                np.array(hashes[offsets[row] : offsets[end]]),
            )
            let_go(hashes)
            row = end


def _low(hashes: Hashes) -> NDArray[np.int64]:
    return (hashes & np.uint64((1 << FILTER_BITS) - 1)).astype(np.int64)


# --- new documents that share a text with a training document -------------------------------------------------------


def entangled(
    history: History, drawn: Ordinals, may_hold: NDArray[np.bool_], may_lie_within: NDArray[np.bool_]
) -> list[int]:
    """Those of `drawn` that lie within a document of `may_hold`, or hold one of `may_lie_within` [all keepers]."""
    num_samples = np.concatenate([np.empty(0, np.int64), *map(_sample_sizes, history.segments)])
    found = []
    for number, ordinal in enumerate(drawn.tolist()):
        if number % LET_GO_EVERY == 0:
            for segment in history.segments:
                let_go(segment.shingles.hashes)
        shingles = np.array(history.shingles(ordinal))
        others, shared = _sharing(history, shingles[: np.searchsorted(shingles, SAMPLED)])
        within = may_hold[others] & (2 * shared >= num_samples[ordinal])
        holds = may_lie_within[others] & (2 * shared >= num_samples[others])
        candidates = ((other, history.shingles(other)) for other in others[within | holds].tolist() if other != ordinal)
        if any(
            (may_hold[other] and _share(shingles, its) >= CONTAINED)
            or (may_lie_within[other] and _share(its, shingles) >= CONTAINED)
            for other, its in candidates
        ):
            found.append(ordinal)
    return found


def _sample_sizes(segment: Segment) -> NDArray[np.int64]:
    """How many samples each document has; by blocks, because numpy counts in a copy."""
    sizes = np.zeros(len(segment), np.int64)
    for start in range(0, len(segment.sample_rows), BLOCK_SHINGLES):
        block = np.bincount(segment.sample_rows[start : start + BLOCK_SHINGLES])
        sizes[: len(block)] += block
    return sizes


def _sharing(history: History, sample: Hashes) -> tuple[Ordinals, NDArray[np.int64]]:
    """Documents with some of `sample`, and how many each has."""
    parts = [np.empty(0, np.int64)]
    for first, segment in zip(history.firsts[:-1], history.segments, strict=True):
        starts = np.searchsorted(segment.samples, sample, "left")
        numbers = np.searchsorted(segment.samples, sample, "right") - starts
        numbers[numbers > MOST_COMMON] = 0
        parts.append(first + segment.sample_rows[_spread(starts, numbers)].astype(np.int64))
    return np.unique(np.concatenate(parts), return_counts=True)


def _share(small: Hashes, large: Hashes) -> float:
    """Share of the shingles of `small` that are in `large`; both ascend."""
    if not len(small) or not len(large):
        return 0.0
    places = np.minimum(np.searchsorted(large, small), len(large) - 1)
    return float(np.count_nonzero(large[places] == small)) / len(small)
