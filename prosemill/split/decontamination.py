"""Text that would be held out and learned all the same, as a part of a longer document: found, and kept apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prosemill.dedup.index import History
from prosemill.dedup.known_index import Names
from prosemill.split import containment
from prosemill.split.codes import EXCLUDED, NEW, PARTS, TRAIN, Codes, Parts, is_held_out
from prosemill.split.sketches import Sketches, SketchSegment
from prosemill.storage import arrow
from prosemill.storage.manifest import Shard
from prosemill.storage.schemas import CONTAINER
from prosemill.storage.store import SnapshotWriter, Store

Assigned = dict[str, tuple[str, str]]  # document id -> its part, its component


@dataclass(frozen=True)
class Container:
    """A document that is kept out of training, the held-out one that it holds, and how much of it."""

    id: str
    url: str
    held_out: str
    held_out_url: str
    share: float


@dataclass(frozen=True)
class HeldOutContainers:
    """`containers` by id. `known`, `added`: sketches of what earlier runs held out, and of what this one does."""

    containers: dict[str, Container] = field(default_factory=dict)
    known: Sketches | None = None
    added: SketchSegment | None = None

    def write(self, writer: SnapshotWriter, earlier: Sequence[Shard]) -> None:
        """Add the roles containers and sketches; `earlier`: those sketches that were read."""
        if self.containers:
            rows = [self.containers[id] for id in sorted(self.containers)]
            names = [[getattr(row, name) for row in rows] for name in CONTAINER.names[:-1]]
            shares = arrow.numbers(np.array([row.share for row in rows], np.float64))
            table = pa.Table.from_arrays([*map(arrow.strings, names), shares], schema=CONTAINER)
            pq.write_table(table, writer.path("containers-00000.parquet"), compression="zstd")
            writer.add("containers-00000.parquet", "containers", len(rows))
        if self.known is not None and self.added is not None:
            self.known.write(writer, self.added, earlier)


def find_containers(
    store: Store,
    dedup: str,
    keepers: Names,
    past: Parts,
    earlier: Sequence[Shard],
    codes: Codes,
    assigned: Assigned,
) -> HeldOutContainers:
    """Change `codes` [all keepers] and `assigned` [new ones] so that no text is held out and learned in a longer one.

    A new document that holds a held-out one is excluded. A component goes to train if a document of it lies within an
    old training document, or holds one. `earlier`: sketches of what `past` held out, or none.
    """
    if not store.manifest(dedup).shards_of("index"):  # kept by hand, not by our dedup
        return HeldOutContainers()
    history = containment.read_index(store, dedup, len(keepers))
    is_new = past.codes == NEW
    _learn(history, keepers, is_new, codes, assigned)
    known = Sketches.read(store, earlier, history)
    if known is None:
        known = Sketches(history, [SketchSegment.of(history, np.flatnonzero(is_held_out(past.codes)))])
    added = SketchSegment.of(history, np.flatnonzero(is_new & is_held_out(codes)))
    containers = {}
    for container, contained, overlap in _holding(history, keepers, np.flatnonzero(is_new), known, added):
        if codes[overlap.container] == TRAIN or not is_new[overlap.contained]:
            id = container[0]
            codes[overlap.container], assigned[id] = EXCLUDED, (PARTS[EXCLUDED], assigned[id][1])
            containers[id] = Container(*container, *contained, overlap.share)
    return HeldOutContainers(containers, known, added.only(is_held_out(codes)))


def _learn(history: History, keepers: Names, is_new: NDArray[np.bool_], codes: Codes, assigned: Assigned) -> None:
    """Give those components to train of which a held-out document shares a text with a training document."""
    drawn = np.flatnonzero(is_new & is_held_out(codes))
    is_learned = codes == TRAIN
    entangled = containment.entangled(history, drawn, is_learned & ~is_new, is_learned)
    ids = keepers.take(np.array(entangled, np.int64))["id"].to_pylist()
    components = {assigned[id][1] for id in ids}
    for ordinal, id in zip(drawn.tolist(), keepers.take(drawn)["id"].to_pylist(), strict=True):
        if assigned[id][1] in components:
            codes[ordinal], assigned[id] = TRAIN, (PARTS[TRAIN], assigned[id][1])


def _holding(
    history: History, keepers: Names, new: NDArray[np.int64], known: Sketches, added: SketchSegment
) -> Iterator[tuple[tuple[str, str], tuple[str, str], containment.Containment]]:
    """Each new document that holds a held-out one: id and URL of both, and what was found."""
    overlaps = containment.holding(history, new, Sketches(history, [*known.segments, added]))
    columns = ([overlap.container for overlap in overlaps], [overlap.contained for overlap in overlaps])
    names = (keepers.take(np.array(ordinals, np.int64)).to_pylist() for ordinals in columns)
    for container, contained, overlap in zip(*names, overlaps, strict=True):
        yield (container["id"], container["url"]), (contained["id"], contained["url"]), overlap
