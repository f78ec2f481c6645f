"""Which documents are known, and what the keepers are called: looked up, not read, when a run brings little.

Segments in the role `names`, merged as those of the index are: the hashes of the ids of all documents that are known,
ascending, and which keeper each is; ids and URLs of the keepers as an Arrow file. All of it is memory-mapped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh64_intdigest

from prosemill.dedup.shingles import Hashes
from prosemill.storage import arrow, segments
from prosemill.storage.manifest import Manifest, Shard
from prosemill.storage.schemas import DOCUMENT, DROPPED, REMOVED
from prosemill.storage.store import SnapshotWriter, Store

ROLE = "names"
NAMES = pa.schema([DOCUMENT.field(name) for name in ("id", "url")])
WITH_SOURCE = pa.schema([*NAMES, DOCUMENT.field("source")])
NOT_KEPT, UNKNOWN = -1, -2  # instead of an ordinal: known and not kept; not known
BLOCK_IDS = 50_000  # Python strings held at once: four megabytes
_NO_ROW = np.uint32(2**32 - 1)


@dataclass(frozen=True)
class KnownDocuments:
    """Documents of some runs. `hashes` of their ids ascend; `rows` say which row of `keepers` each is, or _NO_ROW.

    Two of a million ids share a hash with p = 3e-8; then the later document would pass for known.
    """

    hashes: Hashes
    rows: NDArray[np.uint32]
    keepers: pa.Table  # NAMES, in order of arrival
    sources: Mapping[str, int]  # how many keepers each has
    path: str = ""  # "<snapshot id>/<name>" of one that was read

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def of(cls, keepers: pa.Table, others: pa.ChunkedArray) -> KnownDocuments:
        """`keepers`: WITH_SOURCE. `others`: ids of those that were not kept."""
        rows = np.full(keepers.num_rows + len(others), _NO_ROW, np.uint32)
        rows[: keepers.num_rows] = np.arange(keepers.num_rows, dtype=np.uint32)
        hashes = np.concatenate([hashes_of(keepers["id"]), hashes_of(others)])
        return cls(*_ascending(hashes, rows), keepers.select(NAMES.names), arrow.counted(keepers["source"]))

    @classmethod
    def merge(cls, segments: Sequence[KnownDocuments]) -> KnownDocuments:
        """One segment with the keepers of `segments`, in order."""
        if len(segments) == 1:
            return segments[0]
        firsts = np.cumsum([0, *(segment.keepers.num_rows for segment in segments[:-1])]).astype(np.uint32)
        rows = [
            np.where(segment.rows == _NO_ROW, _NO_ROW, segment.rows + first)
            for segment, first in zip(segments, firsts, strict=True)
        ]
        sources = sum((Counter(segment.sources) for segment in segments), Counter[str]())
        keepers = pa.concat_tables([segment.keepers for segment in segments])
        hashes = np.concatenate([segment.hashes for segment in segments])
        return cls(*_ascending(hashes, np.concatenate(rows)), keepers, sources)

    def write(self, writer: SnapshotWriter, name: str) -> None:
        """Add the segment to a snapshot as a folder `name`."""
        header = {"sources": dict(sorted(self.sources.items()))}
        segments.write(writer, ROLE, name, len(self), header, {"hashes": self.hashes, "rows": self.rows})
        with pa.ipc.new_stream(str(writer.path(f"{name}/keepers.arrow")), NAMES) as stream:
            stream.write_table(self.keepers.combine_chunks())
        writer.add(f"{name}/keepers.arrow", ROLE, self.keepers.num_rows)

    @classmethod
    def read(cls, store: Store, path: str) -> KnownDocuments:
        """The segment in the folder "<snapshot id>/<name>", memory-mapped."""
        header = segments.read_header(store, path)
        hashes, rows = (np.asarray(segments.read_array(store, path, part)) for part in ("hashes", "rows"))
        with pa.memory_map(str(store.local(f"{path}/keepers.arrow"))) as file:
            return cls(hashes, rows, pa.ipc.open_stream(file).read_all(), header["sources"], path)


class Names:
    """All segments as one: a keeper's ordinal is its row in the first segment, counted on through the others."""

    def __init__(self, segments: Iterable[KnownDocuments]) -> None:
        self.segments = list(segments)
        self.firsts = np.cumsum([0, *(segment.keepers.num_rows for segment in self.segments)])

    def __len__(self) -> int:
        """How many keepers there are."""
        return int(self.firsts[-1])

    @classmethod
    def read(cls, store: Store, manifest: Manifest | None) -> Names:
        """Of a dedup snapshot; from its tables, where a version wrote it that left none; empty for None."""
        if manifest is None:
            return cls([])
        names = cls(KnownDocuments.read(store, path) for path in segments.folders(manifest.shards_of(ROLE)))
        if names.segments and len(names) == sum(shard.rows for shard in manifest.shards_of("keepers")):
            return names
        removed = _table(store, manifest, "removed", pa.schema([REMOVED.field("id")]))
        dropped = _table(store, manifest, "dropped", pa.schema([DROPPED.field("detail")]))
        others = pa.chunked_array([*removed["id"].chunks, *dropped["detail"].chunks], pa.string())
        return cls([KnownDocuments.of(_table(store, manifest, "keepers", WITH_SOURCE), others)])

    def sources(self) -> Counter[str]:
        """How many keepers each source has."""
        return sum((Counter(segment.sources) for segment in self.segments), Counter[str]())

    def table(self) -> pa.Table:
        """NAMES of all keepers."""
        return pa.concat_tables([pa.Table.from_batches([], NAMES), *(segment.keepers for segment in self.segments)])

    def take(self, ordinals: pa.Array | NDArray[np.int64]) -> pa.Table:
        """NAMES of these keepers. A table of several pieces would be copied whole to take some rows of it."""
        wanted = ordinals if isinstance(ordinals, np.ndarray) else arrow.to_numbers(ordinals)
        order = np.argsort(wanted, kind="stable")
        bounds = np.searchsorted(wanted[order], self.firsts)
        parts = [
            segment.keepers.take(arrow.numbers(wanted[order[start:end]] - first))
            for segment, first, start, end in zip(self.segments, self.firsts, bounds, bounds[1:], strict=False)
        ]
        back = np.argsort(order)
        return pa.concat_tables([pa.Table.from_batches([], NAMES), *parts]).combine_chunks().take(arrow.numbers(back))

    def find(self, ids: pa.ChunkedArray) -> NDArray[np.int64]:
        """Of each id the keeper's ordinal, NOT_KEPT or UNKNOWN."""
        ordinals = np.full(len(ids), UNKNOWN, np.int64)
        wanted = hashes_of(ids) if self.segments else np.empty(0, np.uint64)
        for first, segment in zip(self.firsts[:-1], self.segments, strict=True):
            if len(segment):
                places = np.minimum(np.searchsorted(segment.hashes, wanted), len(segment) - 1)
                hits = segment.hashes[places] == wanted
                rows = segment.rows[places[hits]]
                ordinals[hits] = np.maximum(ordinals[hits], np.where(rows == _NO_ROW, NOT_KEPT, first + rows))
        return ordinals

    def write(self, writer: SnapshotWriter, added: KnownDocuments, shards: Sequence[Shard]) -> None:
        """Add this run's; `shards`: those of the segments that were read, which are inherited or merged."""
        segments.extend(
            writer, ROLE, shards, self.segments, added,
            merge=KnownDocuments.merge, write=lambda segment, name: segment.write(writer, name),
        )  # fmt: skip


def hashes_of(ids: pa.ChunkedArray) -> Hashes:
    blocks = (ids.slice(start, BLOCK_IDS).to_pylist() for start in range(0, len(ids), BLOCK_IDS))
    return np.fromiter((xxh64_intdigest(id.encode()) for block in blocks for id in block), np.uint64, len(ids))


def _ascending(hashes: Hashes, rows: NDArray[np.uint32]) -> tuple[Hashes, NDArray[np.uint32]]:
    """Both in the order of `hashes`; of a document that was removed once and is kept, the keeper comes first."""
    order = np.lexsort((rows, hashes))
    return hashes[order], rows[order]


def _table(store: Store, manifest: Manifest, role: str, schema: pa.Schema) -> pa.Table:
    tables: list[Any] = [arrow.read(store.local(shard.path), schema.names) for shard in manifest.shards_of(role)]
    return pa.concat_tables([pa.Table.from_batches([], schema), *tables])
