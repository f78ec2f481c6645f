"""Sorted segments: what grows a little with each run, and is looked up instead of read.

A segment is a folder of a snapshot: a JSON header, and arrays in .npy files that are memory-mapped. It is never
changed. A run lists the segments of the run before and adds one of its own, into which the newest of them are merged.
dedup's index and names, and split's sketches, are kept so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from prosemill.storage.manifest import Shard
from prosemill.storage.store import SnapshotWriter, Store

HEADER = "header.json"

Hashes = NDArray[np.uint64]
Rows = NDArray[np.uint32]


class Segment(Protocol):
    """Its length is the number of its documents; `path` is "<snapshot id>/<name>" of one that was read, else ""."""

    @property
    def path(self) -> str: ...

    def __len__(self) -> int: ...


S = TypeVar("S", bound=Segment)


def folders(shards: Iterable[Shard]) -> list[str]:
    """ "<snapshot id>/<name>" of each segment among the shards of a role, oldest first."""
    return [shard.path.removesuffix(f"/{HEADER}") for shard in shards if shard.path.endswith(f"/{HEADER}")]


def read_header(store: Store, path: str) -> dict[str, Any]:
    """What is stated of the segment in the folder `path`."""
    header: dict[str, Any] = json.loads(store.local(f"{path}/{HEADER}").read_text(encoding="utf-8"))
    return header


def read_array(store: Store, path: str, part: str) -> NDArray[Any]:
    """An array of the segment in the folder `path`, memory-mapped."""
    mapped: NDArray[Any] = np.load(store.local(f"{path}/{part}.npy"), mmap_mode="r")
    return mapped


def write(
    writer: SnapshotWriter, role: str, name: str, rows: int, header: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    """Add a segment of `rows` documents to a snapshot as a folder `name`."""
    writer.path(f"{name}/{HEADER}").write_text(json.dumps(header, indent=1), encoding="utf-8")
    writer.add(f"{name}/{HEADER}", role, rows)
    for part, values in arrays.items():
        np.save(writer.path(f"{name}/{part}.npy"), values)
        writer.add(f"{name}/{part}.npy", role, len(values))


def extend(
    writer: SnapshotWriter,
    role: str,
    shards: Sequence[Shard],
    segments: Sequence[S],
    new: S,
    *,
    merge: Callable[[Sequence[S]], S],
    write: Callable[[S, str], None],
) -> None:
    """List `segments` in a snapshot and add `new`, with which the newest are merged where that keeps them few.

    `shards`: those of the segments that were read, which are inherited. Segments made anew (without a path) are written
    with `write`, which gets the name of the folder.
    """
    place = len(segments) - num_merged([len(segment) for segment in segments], len(new))
    for number, segment in enumerate(segments[:place]):
        if segment.path:
            writer.inherit([shard for shard in shards if shard.path.startswith(f"{segment.path}/")])
        else:
            write(segment, f"{role}-{number:05d}")
    if len(new) or not segments:  # so that a snapshot without documents says so
        write(merge([*segments[place:], new]), f"{role}-{place:05d}")


def num_merged(sizes: Sequence[int], total: int) -> int:
    """How many of the newest segments, of these sizes, are merged with `total` new documents.

    A segment is merged with all newer ones once these hold as many documents: so a corpus of n runs has about log2(n)
    segments, and a document is written again about as many times.
    """
    number = 0
    while total and number < len(sizes) and sizes[-1 - number] <= total:
        total += sizes[-1 - number]
        number += 1
    return number


def ascending(values: Hashes, rows: Rows) -> tuple[Hashes, Rows]:
    """Both in the order of `values`; equal ones as they were."""
    order = np.argsort(values, kind="stable")
    return values[order], rows[order]
