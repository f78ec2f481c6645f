"""What is held out: train, validation and test, given to whole components of similar documents, once and for ever.

Two keepers that are similar, but not similar enough to be copies, must not land on both sides: after deduplication at
.8, 22 % of a random test set still had a training document at .65 or more. So the unit is the loose component: keepers
joined by pairs at or above `dedup.loose_threshold`. What joins a held-out component later is kept out of training.

So is a document that holds a held-out one whole, or nearly, however long it is; and what lies within an old training
document, or holds one, is never held out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prosemill.config.settings import Split
from prosemill.dedup.known_index import Names
from prosemill.errors import CorpusEmpty
from prosemill.split import sketches
from prosemill.split.codes import HELD_OUT, NEW, PARTS, Parts, codes_of
from prosemill.split.decontamination import find_containers
from prosemill.storage import arrow, stages
from prosemill.storage.corpus import withdrawn_of
from prosemill.storage.manifest import Counts, digest, snapshot_id
from prosemill.storage.schemas import PAIR, SPLIT
from prosemill.storage.store import Store

STAGE = stages.of("split")
# A test set that lags behind (its share was raised) catches up at this many times its share of each run, at most:
# what is new is there to be learned.
CATCH_UP = 2


def split(store: Store, dedup: str, settings: Split, *, as_of: str, previous: str = "", flow_run_id: str = "") -> str:
    """Assign the keepers of `dedup` that `previous` has not assigned; the id of the snapshot of all assignments.

    Roles assignments (records.SPLIT), containers (records.CONTAINER, where there are any), and for the next run parts
    and sketches. Counts are of this run's documents; totals of all, by split. A document that is withdrawn keeps its
    assignment, in case its page comes back, and counts in no total.
    """
    options = settings.model_dump()
    parents = [dedup, previous] if previous else [dedup]
    id = snapshot_id(STAGE.name, STAGE.version, inputs=parents, settings=options, as_of=as_of)  # rows hold the date
    if store.has(id):
        return id
    store.require(*parents)
    keepers = Names.read(store, store.manifest(dedup))
    past = Parts.read(store, previous, store.manifest(dedup), keepers)
    fresh = keepers.take(np.flatnonzero(past.codes == NEW))
    new = fresh["id"].to_pylist()
    pairs = _reached(_pairs(store, dedup), new)
    assigned = assign(new, pairs, past.of(keepers, (id for pair in pairs for id in pair)), settings, past.held)
    codes = past.codes.copy()
    codes[codes == NEW] = codes_of([part for part, _ in assigned.values()])
    earlier = store.manifest(previous).shards if previous else []
    sketched = [shard for shard in earlier if shard.role == sketches.ROLE and past.shards]  # by ordinal, as the codes
    containment = find_containers(store, dedup, keepers, past, sketched, codes, assigned)
    withdrawn = withdrawn_of(store, dedup)
    totals = _totals(past, keepers, assigned, withdrawn)
    _check(totals, len(new), len(withdrawn))
    with store.write(
        id,
        stage=STAGE.name,
        version=STAGE.version,
        parents=parents,
        settings=options,
        as_of=as_of,
        flow_run_id=flow_run_id,
    ) as writer:
        writer.inherit([shard for shard in earlier if shard.role in ("assignments", "containers")])
        table = _table(assigned, fresh, containment.containers, as_of)
        pq.write_table(table, writer.path("assignments-00000.parquet"), compression="zstd")
        writer.add("assignments-00000.parquet", "assignments", table.num_rows)
        containment.write(writer, sketched)
        past.write(writer, codes)
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

    `pairs` joins documents, new and old; `old` says which split earlier runs gave, at least to all in `pairs`; `held`
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
    reached, connected = arrow.strings(new), pairs.slice(0, 0)
    while True:
        touches = pc.or_(pc.is_in(pairs["a"], value_set=reached), pc.is_in(pairs["b"], value_set=reached))
        step, pairs = pairs.filter(touches), pairs.filter(pc.invert(touches))
        if not step.num_rows:
            return list(_rows(connected))
        connected = pa.concat_tables([connected, step])
        reached = pc.unique(pa.chunked_array([*step["a"].chunks, *step["b"].chunks], pa.string()))


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
            missing = [other for other in missing if other != part]
    rest = sorted((name for name in order if name not in chosen), key=lambda name: len(free[name]))  # smallest first
    chosen.update(zip(rest[: spare - len(chosen)], missing, strict=False))
    return chosen


def _quota(part: str, share: float, free: dict[str, list[str]], held: Counter[str]) -> int:
    """How many more documents `part` may hold: what brings it to its share of the corpus, at least one if it is empty.

    Counted over the whole corpus, because a share of this run's three documents is always none.
    """
    num_new = sum(map(len, free.values()))
    lacking = share * (num_new + held.total() - held["excluded"]) - held[part]
    if not held.total():
        return max(1, round(lacking))
    return max(0, min(int(lacking), max(1, round(CATCH_UP * share * num_new))))


def _components(documents: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Connected components by their smallest document id (union-find with path halving).

    SciPy's, with ids numbered for it and named again, take .28 s and .35 s for the import at 100,000 documents, where
    this takes .16 s; at 500,000 half as long again, and more memory.
    """
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


def _totals(
    past: Parts, keepers: Names, assigned: Mapping[str, tuple[str, str]], withdrawn: Iterable[str]
) -> Counter[str]:
    """How many documents each part has, but for those that are withdrawn."""
    totals = past.held + Counter(part for part, _ in assigned.values())
    totals -= Counter(past.of(keepers, withdrawn).values())
    return totals - Counter(assigned[id][0] for id in withdrawn if id in assigned)


def _check(totals: Counter[str], num_new: int, num_withdrawn: int) -> None:
    opted_out = f" ({num_withdrawn} were withdrawn by opt-outs)" if num_withdrawn else ""
    for part in ("train", "test"):
        if not totals[part]:
            raise CorpusEmpty(
                f"split: no document for {part} among {num_new}{opted_out}; it takes one to train on and an unlike one "
                "to test; add pages or sources"
            )


def _pairs(store: Store, dedup: str) -> pa.Table:
    """Ids of the keepers that are similar, two by two."""
    schema = pa.schema([PAIR.field(name) for name in ("a", "b")])
    shards = store.manifest(dedup).shards_of("pairs")
    tables = [arrow.read(store.local(shard.path), schema.names) for shard in shards]
    return pa.concat_tables([pa.Table.from_batches([], schema), *tables])


def _rows(table: pa.Table) -> Iterator[tuple[str, str]]:
    yield from zip(*(column.to_pylist() for column in table.columns), strict=True)


def _table(
    assigned: Mapping[str, tuple[str, str]], documents: pa.Table, containers: Container[str], as_of: str
) -> pa.Table:
    def reason(id: str, part: str) -> str:
        if part != "excluded":
            return ""
        return "contains_held_out" if id in containers else "near_held_out"

    ids = list(assigned)
    parts = [part for part, _ in assigned.values()]
    columns = {
        "split": parts,
        "component": [component for _, component in assigned.values()],
        "reason": [reason(id, part) for id, part in zip(ids, parts, strict=True)],
        "first_seen": [as_of] * len(ids),
    }
    arrays = {name: arrow.strings(values) for name, values in columns.items()}
    named = {name: documents[name] for name in ("id", "url")}  # in the same order
    return pa.Table.from_arrays([(named | arrays)[name] for name in SPLIT.names], schema=SPLIT)
