"""What earlier nights know: the keepers' names, which documents were judged, line counts, the index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prosemill import columns
from prosemill.dedup.boilerplate import LINES_FILE, PAGES_FILE, LineCounts
from prosemill.dedup.index import Segment, is_usable, segments_of
from prosemill.dedup.minhash import Parameters, sign
from prosemill.records import DOCUMENT, DROPPED, REMOVED, Manifest, Shard
from prosemill.storage import Store

NAMES = pa.schema([DOCUMENT.field(name) for name in ("id", "url", "source")])
BATCH_DOCUMENTS = 1000  # texts held at once while signing: a few megabytes


@dataclass(frozen=True)
class Past:
    """The dedup snapshot of the night before; empty on the first night."""

    store: Store
    manifest: Manifest | None

    @classmethod
    def read(cls, store: Store, previous: str) -> Past:
        return cls(store, store.manifest(previous) if previous else None)

    def shards(self, role: str) -> list[Shard]:
        return self.manifest.shards_of(role) if self.manifest else []

    @cached_property
    def names(self) -> pa.Table:
        """NAMES of all keepers, row = ordinal."""
        return self._table("keepers", NAMES)

    def known_ids(self, undone: Sequence[str] = ()) -> pa.Array:
        """Ids of all documents that were judged, kept or not; of those `undone`, only the ones that were kept."""
        removed = self._table("removed", pa.schema([REMOVED.field("id")]))
        dropped = self._table("dropped", pa.schema([DROPPED.field("detail")]))
        judged = pa.chunked_array([*removed["id"].chunks, *dropped["detail"].chunks], pa.string())
        if undone:
            judged = judged.filter(pc.invert(pc.is_in(judged, value_set=pa.array(undone, pa.string()))))
        return pa.chunked_array([*self.names["id"].chunks, *judged.chunks], pa.string())

    def line_counts(self) -> LineCounts:
        files = [self.store.local(shard.path) for shard in self.shards("lines")]
        arrays = {name: [file for file in files if file.name == name] for name in (LINES_FILE, PAGES_FILE)}
        nights = [
            (np.load(lines, mmap_mode="r"), np.load(pages, mmap_mode="r"))
            for lines, pages in zip(*arrays.values(), strict=True)
        ]
        return LineCounts(nights, _counted(self.names["source"]))

    def segments(self, parameters: Parameters) -> list[Segment]:
        """The index of all keepers; made anew, from their texts, where it was made with other parameters."""
        if self.manifest is None:
            return []
        if is_usable(self.store, self.manifest, parameters):
            return [Segment.read(self.store, path, parameters) for path in segments_of(self.manifest)]
        return list(self._sign_again(parameters))

    def index_shards(self, segment: str) -> list[Shard]:
        return [shard for shard in self.shards("index") if shard.path.startswith(f"{segment}/")]

    def _sign_again(self, parameters: Parameters) -> Iterator[Segment]:
        for shard in self.shards("keepers"):
            with pq.ParquetFile(self.store.local(shard.path)) as file:
                batches = file.iter_batches(batch_size=BATCH_DOCUMENTS, columns=["text"])
                texts = (text for batch in batches for text in batch["text"].to_pylist())
                yield Segment.of(sign(texts, parameters), parameters, [shard.path])

    def _table(self, role: str, schema: pa.Schema) -> pa.Table:
        tables = [columns.read(self.store.local(shard.path), schema.names) for shard in self.shards(role)]
        return pa.concat_tables([pa.Table.from_batches([], schema), *tables])


def _counted(values: pa.ChunkedArray) -> dict[str, int]:
    return {each["values"]: each["counts"] for each in values.value_counts().to_pylist()}
