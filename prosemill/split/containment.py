"""Which documents hold another one whole, or nearly: what Jaccard similarity does not see when one is much longer.

Reads the index that dedup keeps of all keepers; nothing is tokenised again. Two looks, both by sampled shingles first
and by all shingles then:

- `holding`: new documents that hold a held-out one. Every held-out document is known by its smallest shingle hashes
  (prosemill.split.sketches); whatever holds it has these among its own.
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

from prosemill.dedup.index import SAMPLED, History, IndexSegment, parameters_of, segments_of
from prosemill.dedup.shingles import Hashes, release_memory
from prosemill.errors import StoreError
from prosemill.split.sketches import MOST_COMMON, Ordinals, Sketches, spread
from prosemill.storage.store import Store

CONTAINED = 0.8  # share of a document's shingles that make another one hold it; a word changed costs five of them
RELEASE_EVERY = 200  # documents: each look at shingles maps 64 KB of their file
BLOCK_SHINGLES = 1 << 20  # looked up at once: some tens of megabytes


@dataclass(frozen=True)
class Containment:
    """`container` has `share` of the shingles of `contained`; both are ordinals."""

    container: int
    contained: int
    share: float


def read_index(store: Store, dedup: str, num_keepers: int) -> History:
    """The index of a dedup snapshot, its rows in the order of the keepers. StoreError where it has other rows."""
    segments = segments_of(store.manifest(dedup))
    history = History([IndexSegment.read(store, path, parameters_of(store, path)) for path in segments])
    if len(history) != num_keepers:
        raise StoreError(
            f"{store.url}: the index of {dedup} has {len(history)} documents, not {num_keepers}; "
            "make the corpus anew with `prosemill retrain RECIPE --refresh`"
        )
    return history


# --- new documents that hold a held-out one -------------------------------------------------------------------------


def holding(history: History, new: Ordinals, held_out: Sketches) -> list[Containment]:
    """For each document of `new`, which ascend, that holds one of `held_out`, the one that it holds most of."""
    if not any(map(len, held_out.segments)) or not len(new):
        return []
    is_there = held_out.filter()
    is_new = np.zeros(len(history), bool)
    is_new[new] = True
    by_container: dict[int, Containment] = {}
    for first, owners, hashes in _blocks(history, int(new[0])):
        for document, contained in held_out.candidates(is_there, owners, hashes):
            container = first + document
            if is_new[container] and container != contained:
                share = _share(history.shingles(contained), history.shingles(container))
                if share >= max(CONTAINED, by_container[container].share if container in by_container else 0.0):
                    by_container[container] = Containment(container, contained, share)
    return list(by_container.values())


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
            release_memory(hashes)
            row = end


# --- new documents that share a text with a training document -------------------------------------------------------


def entangled(
    history: History, drawn: Ordinals, may_hold: NDArray[np.bool_], may_lie_within: NDArray[np.bool_]
) -> list[int]:
    """Those of `drawn` that lie within a document of `may_hold`, or hold one of `may_lie_within` [all keepers]."""
    num_samples = np.concatenate([np.empty(0, np.int64), *map(_sample_sizes, history.segments)])
    ordinals = []
    for number, ordinal in enumerate(drawn.tolist()):
        if number % RELEASE_EVERY == 0:
            for segment in history.segments:
                release_memory(segment.shingles.hashes)
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
            ordinals.append(ordinal)
    return ordinals


def _sample_sizes(segment: IndexSegment) -> NDArray[np.int64]:
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
        parts.append(first + segment.sample_rows[spread(starts, numbers)].astype(np.int64))
    return np.unique(np.concatenate(parts), return_counts=True)


def _share(small: Hashes, large: Hashes) -> float:
    """Share of the shingles of `small` that are in `large`; both ascend."""
    if not len(small) or not len(large):
        return 0.0
    places = np.minimum(np.searchsorted(large, small), len(large) - 1)
    return float(np.count_nonzero(large[places] == small)) / len(small)
