"""Which split each keeper was given by earlier runs, by ordinal.

A split that builds on another inherits its role `parts`, a byte a document, and need not look at a single id, where
the keepers only grew in between. Else, or where an earlier version left none, documents are found again by their ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prosemill.dedup.known_index import Names
from prosemill.storage import arrow
from prosemill.storage.manifest import Manifest, Shard
from prosemill.storage.store import SnapshotWriter, Store

ROLE = "parts"
PARTS = ("train", "validation", "test", "excluded")
HELD_OUT = ("test", "validation")
TRAIN, EXCLUDED, NEW = PARTS.index("train"), PARTS.index("excluded"), -1

Codes = NDArray[np.int8]


@dataclass(frozen=True)
class Parts:
    """`codes`: of each keeper its place in PARTS, NEW where nobody gave it one. `held`: how many documents each part
    was given, those too that are no longer keepers. `shards`: files of the codes, if they stand for all of these."""

    codes: Codes
    held: Counter[str]
    shards: list[Shard]

    @classmethod
    def read(cls, store: Store, previous: str, dedup: Manifest, keepers: Names) -> Parts:
        """What the split `previous` ("": none) gave to the `keepers` of `dedup`."""
        codes = np.full(len(keepers), NEW, np.int8)
        if not previous:
            return cls(codes, Counter(), [])
        manifest = store.manifest(previous)
        shards = manifest.shards_of(ROLE)
        if shards and _is_start(store, manifest, dedup):
            old_codes = np.concatenate([np.load(store.local(shard.path)) for shard in shards])
            codes[: len(old_codes)] = old_codes
            return cls(codes, _counted(old_codes), shards)
        tables = [arrow.read(store.local(shard.path), ("id", "split")) for shard in manifest.shards_of("assignments")]
        old = pa.concat_tables(tables)
        ordinals = keepers.find(old["id"])
        is_there = ordinals >= 0
        old_codes = arrow.to_numbers(pc.index_in(old["split"], value_set=arrow.strings(PARTS))).astype(np.int8)
        codes[ordinals[is_there]] = old_codes[is_there]
        return cls(codes, _counted(old_codes), [])

    def of(self, keepers: Names, ids: Iterable[str]) -> dict[str, str]:
        """By id the part of those documents that have one."""
        listed = sorted(set(ids))
        ordinals = keepers.find(pa.chunked_array([arrow.strings(listed)])).tolist()
        codes = {id: self.codes[ordinal] for id, ordinal in zip(listed, ordinals, strict=True) if ordinal >= 0}
        return {id: PARTS[code] for id, code in codes.items() if code != NEW}

    def write(self, writer: SnapshotWriter, codes: Codes) -> None:
        """Add the codes of all keepers, none of them NEW; not where some documents are no longer keepers."""
        if self.held.total() > np.count_nonzero(self.codes != NEW):
            return
        writer.inherit(self.shards)
        new = codes[sum(shard.rows for shard in self.shards) :]
        if len(new):
            np.save(writer.path(f"{ROLE}-00000.npy"), new)
            writer.add(f"{ROLE}-00000.npy", ROLE, len(new))


def is_held_out(codes: Codes) -> NDArray[np.bool_]:
    return np.isin(codes, [PARTS.index(part) for part in HELD_OUT])


def codes_of(parts: Sequence[str]) -> Codes:
    return np.array([PARTS.index(part) for part in parts], np.int8)


def _is_start(store: Store, split: Manifest, dedup: Manifest) -> bool:
    """Whether the keepers that `split` was made of are the first of those of `dedup`, and all of them have a code."""
    if not store.has(split.parents[0]):
        return False
    earlier = store.manifest(split.parents[0]).shards_of("keepers")
    paths = [shard.path for shard in dedup.shards_of("keepers")[: len(earlier)]]
    rows = sum(shard.rows for shard in split.shards_of(ROLE))
    return paths == [shard.path for shard in earlier] and rows == sum(shard.rows for shard in earlier)


def _counted(codes: Codes) -> Counter[str]:
    counts = np.bincount(codes, minlength=len(PARTS)).tolist()
    return Counter({part: number for part, number in zip(PARTS, counts, strict=True) if number})
