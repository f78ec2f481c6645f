"""What the held-out documents are known by: the LEAST smallest shingle hashes of each (a sketch, Broder 1997).

Whatever holds a document whole has these among its own. Sketches are kept with the split that held their documents out
(role `sketches`, sorted segments, merged as those of the index are): to look them up in the index anew costs a page of
the disk for each document, every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prosemill.dedup.index import History
from prosemill.dedup.shingles import Hashes, release_memory
from prosemill.storage import segments
from prosemill.storage.manifest import Shard
from prosemill.storage.segments import ascending
from prosemill.storage.store import SnapshotWriter, Store

ROLE = "sketches"
LEAST = 8  # hashes by which a held-out document is known; of what holds it, all but 1 in 1,000 share at least FEW
FEW = 3
MOST_COMMON = 1000  # documents; a shingle that more of them have says nothing
BLOCK_SKETCHES = 1000  # documents: 64 KB of the index each
FILTER_BITS = 22  # 4 MB, which the second-level cache holds; of a million hashes looked up, most end there

Ordinals = NDArray[np.int64]


@dataclass(frozen=True)
class SketchSegment:
    """Hashes of the sketches of some documents, ascending, and the ordinal of the document that each is of."""

    hashes: Hashes
    owners: NDArray[np.uint32]
    path: str = ""  # "<snapshot id>/<name>" of one that was read

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def of(cls, history: History, ordinals: Ordinals) -> SketchSegment:
        """`ordinals` ascend."""
        hashes, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        bounds = np.searchsorted(ordinals, history.firsts)
        for segment, first, start, end in zip(history.segments, history.firsts, bounds, bounds[1:], strict=False):
            offsets, shingles = np.asarray(segment.shingles.offsets), np.asarray(segment.shingles.hashes)
            for block in range(start, end, BLOCK_SKETCHES):
                rows = ordinals[block : min(end, block + BLOCK_SKETCHES)] - first
                sizes.append(np.minimum(offsets[rows + 1] - offsets[rows], LEAST))
                hashes.append(shingles[spread(offsets[rows], sizes[-1])])
                release_memory(segment.shingles.hashes)
        owners = np.repeat(ordinals, np.concatenate(sizes)).astype(np.uint32)
        return cls(*ascending(np.concatenate(hashes), owners))

    @classmethod
    def merge(cls, segments: Sequence[SketchSegment]) -> SketchSegment:
        hashes, owners = ([getattr(segment, name) for segment in segments] for name in ("hashes", "owners"))
        return cls(*ascending(np.concatenate(hashes), np.concatenate(owners)))

    @classmethod
    def read(cls, store: Store, path: str) -> SketchSegment:
        """The segment in the folder `path`, memory-mapped."""
        hashes, owners = (np.asarray(segments.read_array(store, path, part)) for part in ("hashes", "owners"))
        return cls(hashes, owners, path)

    def only(self, is_wanted: NDArray[np.bool_]) -> SketchSegment:
        """Of the documents that are wanted [all keepers]."""
        chosen = is_wanted[self.owners]
        return SketchSegment(self.hashes[chosen], self.owners[chosen])

    def write(self, writer: SnapshotWriter, name: str, parameters: dict[str, int]) -> None:
        """Add the segment to a snapshot as a folder `name`; `parameters` are those of the index."""
        arrays = {"hashes": self.hashes, "owners": self.owners}
        segments.write(writer, ROLE, name, len(self), {"parameters": parameters}, arrays)


class Sketches:
    """All segments as one."""

    def __init__(self, history: History, segments: Iterable[SketchSegment]) -> None:
        self.history, self.segments = history, list(segments)

    @classmethod
    def read(cls, store: Store, shards: Sequence[Shard], history: History) -> Sketches | None:
        """Of an earlier split; None where it has none, or of an index that was made otherwise."""
        paths = segments.folders(shards)
        expected = {"parameters": parameters_of(history)}
        if not paths or any(segments.read_header(store, path) != expected for path in paths):
            return None
        return cls(history, (SketchSegment.read(store, path) for path in paths))

    def write(self, writer: SnapshotWriter, added: SketchSegment, shards: Sequence[Shard]) -> None:
        """Add those of this run; `shards`: of the segments that were read, which are inherited or merged."""
        parameters = parameters_of(self.history)
        segments.extend(
            writer, ROLE, shards, self.segments, added,
            merge=SketchSegment.merge, write=lambda segment, name: segment.write(writer, name, parameters),
        )  # fmt: skip

    def filter(self) -> NDArray[np.bool_]:
        """Which hashes may be among them, by their lowest FILTER_BITS."""
        is_there = np.zeros(1 << FILTER_BITS, bool)
        for segment in self.segments:
            is_there[low_bits(segment.hashes)] = True
        return is_there

    def candidates(
        self, is_there: NDArray[np.bool_], owners: NDArray[np.int64], hashes: Hashes
    ) -> Iterator[tuple[int, int]]:
        """Pairs of one of `owners`, whose the `hashes` are, and a document of ours that shares enough of them."""
        hits = np.flatnonzero(is_there[low_bits(hashes)])
        owners, hashes = owners[hits], hashes[hits]
        spans = []
        for segment in self.segments:
            starts = np.searchsorted(segment.hashes, hashes, "left")
            spans.append((starts, np.searchsorted(segment.hashes, hashes, "right") - starts))
        is_common = sum((numbers for _, numbers in spans), np.zeros(len(hashes), np.int64)) > MOST_COMMON
        pairs = [np.empty(0, np.int64)]
        for segment, (starts, numbers) in zip(self.segments, spans, strict=True):
            numbers[is_common] = 0
            theirs = segment.owners[spread(starts, numbers)].astype(np.int64)
            pairs.append(np.repeat(owners, numbers) * len(self.history) + theirs)
        distinct, shared = np.unique(np.concatenate(pairs), return_counts=True)
        theirs = distinct % len(self.history)
        sizes = np.minimum(self.history.num_shingles(theirs), LEAST)
        enough = shared >= np.minimum(FEW, np.maximum(1, sizes // 2))
        yield from zip((distinct[enough] // len(self.history)).tolist(), theirs[enough].tolist(), strict=True)


def parameters_of(history: History) -> dict[str, int]:
    return history.segments[0].parameters.to_dict()


def spread(starts: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1 … for each of `starts`, as many as `numbers` says, one after another."""
    places: NDArray[np.int64] = np.repeat(starts - np.cumsum(numbers) + numbers, numbers) + np.arange(numbers.sum())
    return places


def low_bits(hashes: Hashes) -> NDArray[np.int64]:
    return (hashes & np.uint64((1 << FILTER_BITS) - 1)).astype(np.int64)
