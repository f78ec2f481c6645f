"""Sorted segments: few of them, inherited where they stand, merged where that keeps them few."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from prosemill.storage import segments
from prosemill.storage.manifest import snapshot_id
from prosemill.storage.segments import Hashes
from prosemill.storage.store import SnapshotWriter, Store

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Numbers:
    values: Hashes
    path: str = ""

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def merge(cls, parts: Sequence["Numbers"]) -> "Numbers":
        return cls(np.sort(np.concatenate([part.values for part in parts])))


def of(*values: int) -> Numbers:
    return Numbers(np.array(values, np.uint64))


def written(store: Store, as_of: str, new: Numbers, previous: str = "") -> str:
    """A snapshot with the segments of `previous` and `new`."""
    shards = store.manifest(previous).shards_of("numbers") if previous else []
    known = [Numbers(segments.read_array(store, path, "values"), path) for path in segments.folders(shards)]
    id = snapshot_id("dedup", 1, inputs=[previous], settings={}, as_of=as_of)
    with store.write(id, stage="dedup", version=1, parents=[], settings={}, as_of=as_of) as writer:
        extend(writer, shards, known, new)
    return id


def extend(writer: SnapshotWriter, shards: Sequence[segments.Shard], known: Sequence[Numbers], new: Numbers) -> None:
    def write(segment: Numbers, name: str) -> None:
        header = {"least": int(min(segment.values, default=0))}
        segments.write(writer, "numbers", name, len(segment), header, {"values": segment.values})

    segments.extend(writer, "numbers", shards, known, new, merge=Numbers.merge, write=write)


def listed(store: Store, snapshot: str) -> dict[str, list[int]]:
    """Values by folder."""
    folders = segments.folders(store.manifest(snapshot).shards_of("numbers"))
    return {folder: segments.read_array(store, folder, "values").tolist() for folder in folders}


def test_a_larger_segment_is_inherited_and_those_no_larger_are_merged(store: Store) -> None:
    first = written(store, "2026-01-01", of(1, 3, 5, 7, 9))
    second = written(store, "2026-01-02", of(2, 4), first)
    assert listed(store, second) == {f"{first}/numbers-00000": [1, 3, 5, 7, 9], f"{second}/numbers-00001": [2, 4]}
    third = written(store, "2026-01-03", of(6, 8), second)
    assert listed(store, third) == {f"{first}/numbers-00000": [1, 3, 5, 7, 9], f"{third}/numbers-00001": [2, 4, 6, 8]}
    assert segments.read_header(store, f"{third}/numbers-00001") == {"least": 2}
    fourth = written(store, "2026-01-04", of(10), third)
    assert list(listed(store, fourth).values()) == [[1, 3, 5, 7, 9], [2, 4, 6, 8], [10]]
    fifth = written(store, "2026-01-05", of(*range(11, 21)), fourth)
    assert list(listed(store, fifth).values()) == [list(range(1, 21))]


def test_without_new_documents_all_are_inherited_and_the_first_snapshot_says_that_it_has_none(store: Store) -> None:
    first = written(store, "2026-01-01", of())
    assert listed(store, first) == {f"{first}/numbers-00000": []}
    second = written(store, "2026-01-02", of(1, 2), first)
    third = written(store, "2026-01-03", of(), second)
    assert listed(store, third) == listed(store, second) == {f"{second}/numbers-00000": [1, 2]}


def test_a_corpus_of_many_runs_has_few_segments() -> None:
    sizes = list[int]()
    for _ in range(1000):
        merged = segments.num_merged(sizes, 1)
        sizes = [*sizes[: len(sizes) - merged], 1 + sum(sizes[len(sizes) - merged :])]
        assert len(sizes) <= 10
    assert sum(sizes) == 1000


@pytest.mark.parametrize("role", ["index", "names", "sketches"])
def test_the_table_of_stages_says_which_roles_are_kept_so(role: str) -> None:
    from prosemill.storage import stages

    users = [stage.name for stage in stages.STAGES.values() if stage.roles.get(role) == stages.SEGMENTS]
    assert len(users) == 1
