"""What is held out: train, validation and test, given to whole components of similar documents, once and for ever.

Two keepers that are similar, but not similar enough to be copies, must not land on both sides: after deduplication at
.8, 22 % of a random test set still had a training document at .65 or more. So the unit is the loose component: keepers
joined by pairs at or above `dedup.loose_threshold`. What joins a held-out component later is kept out of training.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from prosemill.corpus import withdrawn_of
from prosemill.errors import CorpusEmpty
from prosemill.records import SPLIT, Counts, digest, snapshot_id
from prosemill.settings import Split
from prosemill.storage import Store

STAGE = "split"
STAGE_VERSION = 1
HELD_OUT = ("test", "validation")
# A test set that lags behind (its share was raised) catches up at this many times its share of each night, at most:
# what is new is there to be learned.
CATCH_UP = 2


def split(store: Store, dedup: str, settings: Split, *, as_of: str, previous: str = "", flow_run_id: str = "") -> str:
    """Assign the keepers of `dedup` that `previous` has not assigned; the id of the snapshot of all assignments.

    Role assignments (records.SPLIT). Counts are of this night's documents; totals of all, by split. A document that is
    withdrawn keeps its assignment, for the day its page comes back, and counts in no total.
    """
    options = settings.model_dump()
    parents = [dedup, previous] if previous else [dedup]
    id = snapshot_id(STAGE, STAGE_VERSION, inputs=parents, settings=options, as_of=as_of)  # rows hold the date
    if store.has(id):
        return id
    store.require(*parents)
    shards = store.manifest(previous).shards_of("assignments") if previous else []
    old = dict(_rows(store, (shard.path for shard in shards), "id", "split"))
    keepers = [shard.path for shard in store.manifest(dedup).shards_of("keepers")]
    urls = {id: url for id, url in _rows(store, keepers, "id", "url") if id not in old}
    pairs = _rows(store, (shard.path for shard in store.manifest(dedup).shards_of("pairs")), "a", "b")
    assigned = assign(list(urls), pairs, old, settings)
    withdrawn = withdrawn_of(store, dedup)
    given = old | {id: part for id, (part, _) in assigned.items()}
    totals = Counter(part for id, part in given.items() if id not in withdrawn)
    _check(totals, len(urls), len(withdrawn))
    with store.write(
        id, stage=STAGE, version=STAGE_VERSION, parents=parents, settings=options, as_of=as_of, flow_run_id=flow_run_id
    ) as writer:
        writer.inherit(shards)
        table = _table(assigned, urls, as_of)
        pq.write_table(table, writer.path("assignments-00000.parquet"), compression="zstd")
        writer.add("assignments-00000.parquet", "assignments", table.num_rows)
        num_excluded = sum(part == "excluded" for part, _ in assigned.values())
        dropped = {"near_held_out": num_excluded} if num_excluded else {}
        writer.counts = Counts(len(urls), len(urls) - num_excluded, dropped)
        new = Counter(part for part, _ in assigned.values())
        parts = ("train", "validation", "test", "excluded")
        writer.totals = {part: totals[part] for part in parts} | {f"new_{part}": new[part] for part in parts}
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


def _table(assigned: dict[str, tuple[str, str]], urls: dict[str, str], as_of: str) -> pa.Table:
    rows = [
        {
            "id": id,
            "url": urls[id],
            "split": part,
            "component": component,
            "reason": "near_held_out" if part == "excluded" else "",
            "first_seen": as_of,
        }
        for id, (part, component) in assigned.items()
    ]
    return pa.Table.from_pylist(rows, schema=SPLIT)
