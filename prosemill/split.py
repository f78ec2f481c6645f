"""What is held out: train, validation and test, given to whole components of similar documents, once and for ever.

Two keepers that are similar, but not similar enough to be copies, must not land on both sides: after deduplication at
.8, 22 % of a random test set still had a training document at .65 or more. So the unit is the loose component: keepers
joined by pairs at or above `dedup.loose_threshold`. What joins a held-out component later is kept out of training.

So is a document that holds a held-out one whole, or nearly, however long it is; and what lies within an old training
document, or holds one, is never held out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prosemill import columns, containment
from prosemill.corpus import withdrawn_of
from prosemill.errors import CorpusEmpty
from prosemill.records import CONTAINER, SPLIT, Counts, Shard, digest, snapshot_id
from prosemill.settings import Split
from prosemill.storage import SnapshotWriter, Store

STAGE = "split"
STAGE_VERSION = 2
HELD_OUT = ("test", "validation")
PARTS = ("train", "validation", "test", "excluded")
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
    old = _table_of(store, shards, "id", "split")
    keepers = _table_of(store, store.manifest(dedup).shards_of("keepers"), "id", "url")
    is_new = ~columns.to_flags(pc.is_in(keepers["id"], value_set=old["id"].combine_chunks()))
    new = keepers["id"].filter(columns.flags(is_new)).to_pylist()
    pairs = _reached(_table_of(store, store.manifest(dedup).shards_of("pairs"), "a", "b"), new)
    near = old.filter(pc.is_in(old["id"], value_set=columns.strings({id for pair in pairs for id in pair})))
    held = _by_part(old["split"])
    assigned = assign(new, pairs, dict(_rows(near)), settings, held)
    containers = _without_leaks(store, dedup, keepers["id"], is_new, old, assigned)
    withdrawn = withdrawn_of(store, dedup)
    totals = held + Counter(part for part, _ in assigned.values())
    totals -= _by_part(old.filter(pc.is_in(old["id"], value_set=columns.strings(withdrawn)))["split"])
    totals -= Counter(assigned[id][0] for id in withdrawn if id in assigned)
    _check(totals, len(new), len(withdrawn))
    urls = _urls(keepers, new, containers)
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
        writer.totals = {part: totals[part] for part in PARTS} | {f"new_{part}": newly[part] for part in PARTS}
        if withdrawn:
            writer.totals |= {"withdrawn": len(withdrawn)}
    return id


def assign(
    new: list[str],
    pairs: Iterable[tuple[str, str]],
    old: dict[str, str],
    settings: Split,
    held: Counter[str] | None = None,
) -> dict[str, tuple[str, str]]:
    """For each new document its split and the name of its component (its smallest document id), in the order of `new`.

    `pairs` joins documents, new and old; `old` says which split earlier nights gave, at least to all in `pairs`; `held`
    how many documents they gave to each (default: as `old` has).
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
    for name, part in _hold_out(free, Counter(old.values()) if held is None else held, settings).items():
        parts.update(dict.fromkeys(free[name], part))
    named = {document: name for name, documents in members.items() for document in documents}
    return {document: (parts[document], named[document]) for document in new}


def _reached(pairs: pa.Table, new: list[str]) -> list[tuple[str, str]]:
    """Those of `pairs` that lie in a component with a new document: step by step, from what was reached before."""
    reached, found = columns.strings(new), pairs.slice(0, 0)
    while True:
        touches = pc.or_(pc.is_in(pairs["a"], value_set=reached), pc.is_in(pairs["b"], value_set=reached))
        step, pairs = pairs.filter(touches), pairs.filter(pc.invert(touches))
        if not step.num_rows:
            return list(_rows(found))
        found = pa.concat_tables([found, step])
        reached = pc.unique(pa.chunked_array([*step["a"].chunks, *step["b"].chunks], pa.string()))


def _without_leaks(
    store: Store,
    dedup: str,
    order: pa.ChunkedArray,
    is_new: NDArray[np.bool_],
    old: pa.Table,
    assigned: dict[str, tuple[str, str]],
) -> dict[str, tuple[str, float]]:
    """Change `assigned` so that no text is held out and learned as a part of a longer one.

    `order`: ids of all keepers, and which of them are new. For each new document that is excluded here, the held-out
    one that it holds, and how much of it. A component goes to train if a document of it lies within an old training
    document, or holds one.
    """
    if not store.manifest(dedup).shards_of("index"):  # kept by hand, not by our dedup
        return {}
    history = containment.read_index(store, dedup, len(order))
    parts = np.empty(len(order), object)
    places = pc.index_in(order.filter(columns.flags(~is_new)), value_set=old["id"].combine_chunks())
    given = columns.to_numbers(pc.index_in(old["split"].take(places), value_set=columns.strings(PARTS)))
    parts[~is_new] = np.array(PARTS, object)[given]
    parts[is_new] = [part for part, _ in assigned.values()]  # in the order of the new keepers

    drawn = np.flatnonzero(is_new & _is_held_out(parts))
    learned = containment.entangled(history, drawn, (parts == "train") & ~is_new, parts == "train")
    components = {assigned[order[ordinal].as_py()][1] for ordinal in learned}
    for ordinal, id in zip(drawn.tolist(), order.take(columns.numbers(drawn)).to_pylist(), strict=True):
        if assigned[id][1] in components:
            parts[ordinal] = "train"
            assigned[id] = ("train", assigned[id][1])

    containers: dict[str, tuple[str, float]] = {}
    for each in containment.holding(history, np.flatnonzero(is_new), np.flatnonzero(_is_held_out(parts))):
        id = order[each.container].as_py()
        if parts[each.container] == "train" or not is_new[each.contained]:
            assigned[id] = ("excluded", assigned[id][1])
            containers[id] = (order[each.contained].as_py(), each.share)
    return containers


def _is_held_out(parts: NDArray[np.object_]) -> NDArray[np.bool_]:
    is_held_out: NDArray[np.bool_] = (parts == "test") | (parts == "validation")
    return is_held_out


def _write_containers(writer: SnapshotWriter, containers: dict[str, tuple[str, float]], urls: dict[str, str]) -> None:
    if containers:
        ids = sorted(containers)
        others = [containers[id][0] for id in ids]
        found = [ids, [urls[id] for id in ids], others, [urls[id] for id in others]]
        shares = columns.numbers(np.array([containers[id][1] for id in ids], np.float64))
        table = pa.Table.from_arrays([*map(columns.strings, found), shares], schema=CONTAINER)
        pq.write_table(table, writer.path("containers-00000.parquet"), compression="zstd")
        writer.add("containers-00000.parquet", "containers", len(ids))


def _hold_out(free: dict[str, list[str]], held: Counter[str], settings: Split) -> dict[str, str]:
    """Which unassigned components are held out: in an order that the seed draws, while they fit into the quota."""
    order = sorted(free, key=lambda name: digest([settings.seed, name]))
    shares = {"test": settings.test_share, "validation": settings.validation_share}
    room = {part: _quota(part, share, free, held) for part, share in shares.items()}
    spare = len(order) - (0 if held["train"] else 1)  # something must be left to train on
    missing = [part for part in HELD_OUT if not held[part]]
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


def _quota(part: str, share: float, free: dict[str, list[str]], held: Counter[str]) -> int:
    """How many more documents `part` may hold: what brings it to its share of the corpus, at least one if it is empty.

    Counted over the whole corpus, because a share of tonight's three documents is always none.
    """
    num_new = sum(map(len, free.values()))
    lacking = share * (num_new + held.total() - held["excluded"]) - held[part]
    if not held.total():
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


def _table_of(store: Store, shards: Iterable[Shard], *names: str) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in names])
    tables = [columns.read(store.local(shard.path), names) for shard in shards]
    return pa.concat_tables([pa.Table.from_batches([], schema), *tables])


def _rows(table: pa.Table) -> Iterator[tuple[str, str]]:
    yield from zip(*(column.to_pylist() for column in table.columns), strict=True)


def _by_part(parts: pa.ChunkedArray) -> Counter[str]:
    found = Counter[str]()
    for each in parts.value_counts().to_pylist():
        found[each["values"]] = each["counts"]
    return found


def _urls(keepers: pa.Table, new: Iterable[str], containers: dict[str, tuple[str, float]]) -> dict[str, str]:
    """Of the documents that are written about."""
    wanted = columns.strings({*new, *(other for other, _ in containers.values())})
    return dict(_rows(keepers.filter(pc.is_in(keepers["id"], value_set=wanted))))


def _table(
    assigned: dict[str, tuple[str, str]], urls: dict[str, str], containers: Container[str], as_of: str
) -> pa.Table:
    def reason(id: str, part: str) -> str:
        if part != "excluded":
            return ""
        return "contains_held_out" if id in containers else "near_held_out"

    ids = list(assigned)
    parts = [part for part, _ in assigned.values()]
    found = {
        "id": ids,
        "url": [urls[id] for id in ids],
        "split": parts,
        "component": [component for _, component in assigned.values()],
        "reason": [reason(id, part) for id, part in zip(ids, parts, strict=True)],
        "first_seen": [as_of] * len(ids),
    }
    return pa.Table.from_arrays([columns.strings(found[name]) for name in SPLIT.names], schema=SPLIT)
