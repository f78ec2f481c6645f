"""What is held out: train, validation and test, given to whole components of similar documents, once and for ever.

Two keepers that are similar, but not similar enough to be copies, must not land on both sides: after deduplication at
.8, 22 % of a random test set still had a training document at .65 or more. So the unit is the loose component: keepers
joined by pairs at or above `dedup.loose_threshold`. What joins a held-out component later is kept out of training.

So is a document that holds a held-out one whole, or nearly, however long it is; and what lies within an old training
document, or holds one, is never held out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prosemill import containment
from prosemill.corpus import withdrawn_of
from prosemill.errors import CorpusEmpty
from prosemill.records import CONTAINER, SPLIT, Counts, digest, snapshot_id
from prosemill.settings import Split
from prosemill.storage import SnapshotWriter, Store

STAGE = "split"
STAGE_VERSION = 2
HELD_OUT = ("test", "validation")
# A test set that lags behind (its share was raised) catches up at this many times its share of each night, at most:
# what is new is there to be learned.
CATCH_UP = 2


def split(store: Store, dedup: str, settings: Split, *, as_of: str, previous: str = "", flow_run_id: str = "") -> str:
    """Assign the keepers of `dedup` that `previous` has not assigned; the id of the snapshot of all assignments.

    Roles assignments (records.SPLIT) and containers (records.CONTAINER, where there are any). Counts are of this
    night's documents; totals of all, by split. A document that is withdrawn keeps its assignment, for the day its page
    comes back, and counts in no total.
    """
    options = settings.model_dump()
    parents = [dedup, previous] if previous else [dedup]
    id = snapshot_id(STAGE, STAGE_VERSION, inputs=parents, settings=options, as_of=as_of)  # rows hold the date
    if store.has(id):
        return id
    store.require(*parents)
    shards = store.manifest(previous).shards_of("assignments") if previous else []
    earlier = store.manifest(previous).shards_of("containers") if previous else []
    old = dict(_rows(store, (shard.path for shard in shards), "id", "split"))
    keepers = [shard.path for shard in store.manifest(dedup).shards_of("keepers")]
    urls = dict(_rows(store, keepers, "id", "url"))
    new = [id for id in urls if id not in old]
    pairs = _rows(store, (shard.path for shard in store.manifest(dedup).shards_of("pairs")), "a", "b")
    assigned = assign(new, pairs, old, settings)
    containers = _without_leaks(store, dedup, list(urls), old, assigned)
    withdrawn = withdrawn_of(store, dedup)
    given = old | {id: part for id, (part, _) in assigned.items()}
    totals = Counter(part for id, part in given.items() if id not in withdrawn)
    _check(totals, len(new), len(withdrawn))
    with store.write(
        id, stage=STAGE, version=STAGE_VERSION, parents=parents, settings=options, as_of=as_of, flow_run_id=flow_run_id
    ) as writer:
        writer.inherit([*shards, *earlier])
        table = _table(assigned, urls, containers, as_of)
        pq.write_table(table, writer.path("assignments-00000.parquet"), compression="zstd")
        writer.add("assignments-00000.parquet", "assignments", table.num_rows)
        _write_containers(writer, containers, urls)
        dropped = Counter(reason for reason in table["reason"].to_pylist() if reason)
        writer.counts = Counts(len(new), len(new) - dropped.total(), dict(sorted(dropped.items())))
        newly = Counter(part for part, _ in assigned.values())
        parts = ("train", "validation", "test", "excluded")
        writer.totals = {part: totals[part] for part in parts} | {f"new_{part}": newly[part] for part in parts}
        if withdrawn:
            writer.totals |= {"withdrawn": len(withdrawn)}
    return id


def assign(
    new: list[str], pairs: Iterable[tuple[str, str]], old: dict[str, str], settings: Split
) -> dict[str, tuple[str, str]]:
    """For each new document its split and the name of its component (its smallest document id), in the order of `new`.

    `pairs` joins documents, new and old; `old` says which split earlier nights gave.
    """
    members = _components([*new, *old], pairs)
    is_new = set(new)
    free: dict[str, list[str]] = {}  # component -> new documents, where no document of it is assigned yet
    parts: dict[str, str] = {}
    for name, documents in members.items():
        taken = {old[document] for document in documents if document in old}
        fresh = [document for document in documents if document in is_new]
        if fresh and not taken:
            free[name] = fresh
        for document in fresh:
            parts[document] = "excluded" if taken - {"train"} else "train"
    for name, part in _hold_out(free, old, settings).items():
        parts.update(dict.fromkeys(free[name], part))
    named = {document: name for name, documents in members.items() for document in documents}
    return {document: (parts[document], named[document]) for document in new}


def _without_leaks(
    store: Store, dedup: str, order: list[str], old: dict[str, str], assigned: dict[str, tuple[str, str]]
) -> dict[str, tuple[str, float]]:
    """Change `assigned` so that no text is held out and learned as a part of a longer one.

    `order`: ids of all keepers. For each new document that is excluded here, the held-out one that it holds, and how
    much of it. A component goes to train if a document of it lies within an old training document, or holds one.
    """
    if not store.manifest(dedup).shards_of("index"):  # kept by hand, not by our dedup
        return {}
    history = containment.read_index(store, dedup, len(order))
    parts = np.array([old[id] if id in old else assigned[id][0] for id in order], object)
    is_new = np.array([id not in old for id in order], bool)

    drawn = np.flatnonzero(is_new & _is_held_out(parts))
    learned = containment.entangled(history, drawn, (parts == "train") & ~is_new, parts == "train")
    components = {assigned[order[ordinal]][1] for ordinal in learned}
    for ordinal in drawn.tolist():
        if assigned[order[ordinal]][1] in components:
            parts[ordinal] = "train"
            assigned[order[ordinal]] = ("train", assigned[order[ordinal]][1])

    containers: dict[str, tuple[str, float]] = {}
    for each in containment.holding(history, np.flatnonzero(is_new), np.flatnonzero(_is_held_out(parts))):
        id = order[each.container]
        if parts[each.container] == "train" or not is_new[each.contained]:
            assigned[id] = ("excluded", assigned[id][1])
            containers[id] = (order[each.contained], each.share)
    return containers


def _is_held_out(parts: NDArray[np.object_]) -> NDArray[np.bool_]:
    is_held_out: NDArray[np.bool_] = (parts == "test") | (parts == "validation")
    return is_held_out


def _write_containers(writer: SnapshotWriter, containers: dict[str, tuple[str, float]], urls: dict[str, str]) -> None:
    if containers:
        rows = [(id, urls[id], other, urls[other], share) for id, (other, share) in sorted(containers.items())]
        columns = [
            pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), CONTAINER, strict=True)
        ]
        pq.write_table(pa.table(columns, schema=CONTAINER), writer.path("containers-00000.parquet"), compression="zstd")
        writer.add("containers-00000.parquet", "containers", len(rows))


def _hold_out(free: dict[str, list[str]], old: dict[str, str], settings: Split) -> dict[str, str]:
    """Which unassigned components are held out: in an order that the seed draws, while they fit into the quota."""
    order = sorted(free, key=lambda name: digest([settings.seed, name]))
    shares = {"test": settings.test_share, "validation": settings.validation_share}
    room = {part: _quota(part, share, free, old) for part, share in shares.items()}
    spare = len(order) - (0 if "train" in old.values() else 1)  # something must be left to train on
    missing = [part for part in HELD_OUT if part not in old.values()]
    chosen: dict[str, str] = {}
    for name in order:
        part = next((part for part in [*missing, *HELD_OUT] if len(free[name]) <= room[part]), None)
        if part and len(chosen) < spare:
            chosen[name] = part
            room[part] -= len(free[name])
            missing = [each for each in missing if each != part]
    rest = sorted((name for name in order if name not in chosen), key=lambda name: len(free[name]))  # smallest first
    chosen.update(zip(rest[: spare - len(chosen)], missing, strict=False))
    return chosen


def _quota(part: str, share: float, free: dict[str, list[str]], old: dict[str, str]) -> int:
    """How many more documents `part` may hold: what brings it to its share of the corpus, at least one if it is empty.

    Counted over the whole corpus, because a share of tonight's three documents is always none.
    """
    num_new = sum(map(len, free.values()))
    held = sum(each == part for each in old.values())
    lacking = share * (num_new + sum(each != "excluded" for each in old.values())) - held
    if not old:
        return max(1, round(lacking))
    return max(0, min(int(lacking), max(1, round(CATCH_UP * share * num_new))))


def _components(documents: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Connected components by their smallest document id (union-find with path halving)."""
    parent = {document: document for document in documents}

    def root(document: str) -> str:
        while parent[document] != document:
            parent[document] = document = parent[parent[document]]
        return document

    for a, b in pairs:
        first, second = sorted((root(a), root(b)))
        parent[second] = first  # the smaller id is the root, so it names the component
    members = defaultdict(list)
    for document in parent:
        members[root(document)].append(document)
    return dict(members)


def _check(totals: Counter[str], num_new: int, num_withdrawn: int) -> None:
    opted_out = f" ({num_withdrawn} were withdrawn by opt-outs)" if num_withdrawn else ""
    for part in ("train", "test"):
        if not totals[part]:
            raise CorpusEmpty(
                f"split: no document for {part} among {num_new}{opted_out}; it takes one to train on and an unlike one "
                "to test; add pages or sources"
            )


def _rows(store: Store, paths: Iterable[str], *columns: str) -> Iterable[tuple[str, str]]:
    for path in paths:
        table = pq.read_table(store.local(path), columns=list(columns))
        yield from zip(*(table[column].to_pylist() for column in columns), strict=True)


def _table(
    assigned: dict[str, tuple[str, str]], urls: dict[str, str], containers: Container[str], as_of: str
) -> pa.Table:
    def reason(id: str, part: str) -> str:
        if part != "excluded":
            return ""
        return "contains_held_out" if id in containers else "near_held_out"

    rows = [
        {
            "id": id,
            "url": urls[id],
            "split": part,
            "component": component,
            "reason": reason(id, part),
            "first_seen": as_of,
        }
        for id, (part, component) in assigned.items()
    ]
    return pa.Table.from_pylist(rows, schema=SPLIT)
