"""What earlier runs know: which documents were compared, the keepers' names, line counts, the index."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prosemill.dedup import known_index
from prosemill.dedup.boilerplate import LINES_FILE, PAGES_FILE, LineCounts
from prosemill.dedup.index import IndexSegment, is_usable, segments_of
from prosemill.dedup.known_index import NOT_KEPT, UNKNOWN, Names
from prosemill.dedup.minhash import Parameters, sign_arrays
from prosemill.storage import arrow
from prosemill.storage.manifest import Manifest, Shard, stage_of
from prosemill.storage.segments import num_merged
from prosemill.storage.store import Store

BATCH_DOCUMENTS = 1000  # texts held at once while signing: a few megabytes


@dataclass(frozen=True)
class PreviousDedup:
    """The dedup snapshot of the run before; empty on the first run."""

    store: Store
    manifest: Manifest | None

    @classmethod
    def read(cls, store: Store, previous: str) -> PreviousDedup:
        return cls(store, store.manifest(previous) if previous else None)

    def shards(self, role: str) -> list[Shard]:
        return self.manifest.shards_of(role) if self.manifest else []

    @cached_property
    def names(self) -> Names:
        return Names.read(self.store, self.manifest)

    def open_again(self, undone: Collection[str]) -> set[str]:
        """Those of the documents `undone` that were not kept: they are compared once more."""
        ids = sorted(undone)
        ordinals = self.names.find(pa.chunked_array([arrow.strings(ids)]))
        return {id for id, ordinal in zip(ids, ordinals.tolist(), strict=True) if ordinal == NOT_KEPT}

    def is_known(self, ids: pa.ChunkedArray, open_again: Collection[str]) -> NDArray[np.bool_]:
        """Which documents an earlier run has kept, removed or dropped."""
        is_known: NDArray[np.bool_] = self.names.find(ids) != UNKNOWN
        if open_again:
            is_known &= ~arrow.to_flags(pc.is_in(ids, value_set=arrow.strings(open_again)))
        return is_known

    def known_files(self) -> frozenset[str]:
        """Paths of the documents' files that were read the run before: all that is in them is known."""
        if self.manifest is None or not self.shards(known_index.ROLE):
            return frozenset()
        strips = [id for id in self.manifest.parents if stage_of(id) == "strip" and self.store.has(id)]
        return frozenset(shard.path for id in strips for shard in self.store.manifest(id).shards_of("documents"))

    def line_counts(self) -> LineCounts:
        files = [self.store.local(shard.path) for shard in self.shards("lines")]
        arrays = {name: [file for file in files if file.name == name] for name in (LINES_FILE, PAGES_FILE)}
        increments = [
            (np.load(lines, mmap_mode="r"), np.load(pages, mmap_mode="r"))
            for lines, pages in zip(*arrays.values(), strict=True)
        ]
        return LineCounts(increments, self.names.sources())

    def segments(self, parameters: Parameters, folder: Path) -> list[IndexSegment]:
        """The index of all keepers; made anew, from their texts, where it was made with other parameters.

        Its shingles are then in nameless files in `folder`.
        """
        if self.manifest is None:
            return []
        if is_usable(self.store, self.manifest, parameters):
            return [IndexSegment.read(self.store, path, parameters) for path in segments_of(self.manifest)]
        return [self._sign_again(shards, parameters, folder) for shards in self._merged_keepers()]

    def _merged_keepers(self) -> list[list[Shard]]:
        """The keepers' files of each segment, had all increments been signed with the parameters of now."""
        groups: list[list[Shard]] = []
        for shard in self.shards("keepers"):
            sizes = [sum(member.rows for member in group) for group in groups]
            place = len(groups) - num_merged(sizes, shard.rows)
            groups[place:] = [[*itertools.chain(*groups[place:]), shard]]
        return groups

    def _sign_again(self, shards: Sequence[Shard], parameters: Parameters, folder: Path) -> IndexSegment:
        with tempfile.TemporaryFile(dir=folder) as spill:  # its memory map outlives it
            signed = sign_arrays(self._texts(shards), parameters, spill)
            return IndexSegment.of(signed, parameters, [shard.path for shard in shards])

    def _texts(self, shards: Sequence[Shard]) -> Iterator[pa.LargeStringArray]:
        for shard in shards:
            with pq.ParquetFile(self.store.local(shard.path)) as file:
                for batch in file.iter_batches(batch_size=BATCH_DOCUMENTS, columns=["text"]):
                    yield batch["text"].cast(pa.large_string())
