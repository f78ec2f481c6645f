"""Splits: fixed for ever, whole components only, shares met, nothing near a held-out document in training."""

import random
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prosemill.config.settings import Split
from prosemill.errors import CorpusEmpty
from prosemill.split.stage import assign, split
from prosemill.storage import stages
from prosemill.storage.corpus import documents_of
from prosemill.storage.manifest import digest
from prosemill.storage.schemas import DOCUMENT, PAIR
from prosemill.storage.store import Store

SETTINGS = Split()


def ids(count: int, start: int = 0) -> list[str]:
    return [f"{number:020x}" for number in range(start, start + count)]


def write_dedup(store: Store, name: str, increments: list[list[str]], pairs: list[tuple[str, str]] = ()) -> str:
    """A dedup snapshot of keepers, one shard a run."""
    with store.write(f"dedup-{name}", stage="dedup", version=1, parents=[], settings={}) as writer:
        for number, increment in enumerate(increments):
            rows = [
                dict.fromkeys(DOCUMENT.names, "") | {"id": id, "url": f"u/{id}", "size_bytes": 0, "scrubbed": 0}
                for id in increment
            ]
            pq.write_table(pa.Table.from_pylist(rows, schema=DOCUMENT), writer.path(f"keepers-{number}.parquet"))
            writer.add(f"keepers-{number}.parquet", "keepers", len(increment))
        table = pa.Table.from_pylist([{"a": a, "b": b, "similarity": 0.7} for a, b in pairs], schema=PAIR)
        pq.write_table(table, writer.path("pairs.parquet"))
        writer.add("pairs.parquet", "pairs", len(pairs))
    return f"dedup-{name}"


def read(store: Store, snapshot: str) -> dict[str, dict]:
    shards = store.manifest(snapshot).shards_of("assignments")
    rows = [row for shard in shards for row in pq.read_table(store.local(shard.path)).to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def sizes(assigned: dict[str, tuple[str, str]]) -> Counter:
    return Counter(part for part, _ in assigned.values())


def test_shares_are_met_and_components_stay_whole():
    rng = random.Random(1)
    new = ids(1000)
    pairs = [tuple(rng.sample(new, 2)) for _ in range(250)]
    assigned = assign(new, pairs, {}, SETTINGS)
    assert sizes(assigned) == {"train": 850, "test": 100, "validation": 50}
    assert all(assigned[a] == assigned[b] for a, b in pairs)
    assert all(component <= id for id, (_, component) in assigned.items())


def test_a_large_component_does_not_swamp_what_is_held_out():
    new = ids(100)
    assigned = assign(new, [(new[0], other) for other in new[1:80]], {}, SETTINGS)
    assert {assigned[id][0] for id in new[:80]} == {"train"}
    assert sizes(assigned) == {"train": 85, "test": 10, "validation": 5}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (2, {"train": 1, "test": 1}),
        (3, {"train": 1, "test": 1, "validation": 1}),
        (7, {"train": 5, "test": 1, "validation": 1}),
    ],
)
def test_small_first_runs(count, expected):
    for seed in range(20):
        assert sizes(assign(ids(count), [], {}, Split(seed=seed))) == expected


def test_unequal_components_still_hold_something_out():
    new = ids(60)
    pairs = [(new[0], other) for other in new[1:40]] + [(new[40], other) for other in new[41:]]
    for seed in range(20):
        assert sizes(assign(new, pairs, {}, Split(seed=seed))) == {"train": 40, "test": 20}
    pairs = [pair for pair in pairs if new[59] not in pair]
    for seed in range(20):
        assert sizes(assign(new, pairs, {}, Split(seed=seed))) == {"train": 40, "test": 1, "validation": 19} or sizes(
            assign(new, pairs, {}, Split(seed=seed))
        ) == {"train": 40, "validation": 1, "test": 19}


def test_another_seed_holds_out_other_documents():
    new = ids(200)
    chosen = [
        {id for id, (part, _) in assign(new, [], {}, Split(seed=seed)).items() if part == "test"} for seed in (0, 1)
    ]
    assert chosen[0] != chosen[1]
    assert assign(new, [], {}, Split(seed=1)) == assign(new, [], {}, Split(seed=1))


def test_later_runs(store):
    first = ids(100)
    one = split(store, write_dedup(store, "1", [first]), SETTINGS, as_of="2026-01-01")
    before = read(store, one)
    by_part = {part: [id for id in first if before[id]["split"] == part] for part in ("train", "validation", "test")}
    new = ids(40, start=1000)
    pairs = [
        (new[0], by_part["test"][0]),
        (new[1], new[0]),  # near a near one
        (new[2], by_part["validation"][0]),
        (new[3], by_part["train"][0]),
        (new[4], by_part["train"][1]),  # a bridge from train to test
        (new[4], by_part["test"][1]),
        (new[5], new[6]),
    ]
    two = split(store, write_dedup(store, "2", [first, new], pairs), SETTINGS, as_of="2026-01-02", previous=one)
    after = read(store, two)
    assert {id: after[id] for id in first} == before
    assert [after[id]["split"] for id in new[:5]] == ["excluded", "excluded", "excluded", "train", "excluded"]
    assert after[new[0]]["reason"] == "near_held_out"
    assert after[new[5]]["split"] == after[new[6]]["split"]
    assert {after[id]["first_seen"] for id in new} == {"2026-01-02"}
    manifest = store.manifest(two)
    assert manifest.counts.dropped == {"near_held_out": 4}
    assert manifest.totals["test"] in (13, 14)  # a tenth of 136
    excluded_twin = ids(1, start=5000)
    pairs += [(excluded_twin[0], new[0])]
    three = split(
        store, write_dedup(store, "3", [first, new, excluded_twin], pairs), SETTINGS, as_of="2026-01-03", previous=two
    )
    assert read(store, three)[excluded_twin[0]]["split"] == "excluded"


def test_a_trickle_keeps_the_shares():
    old: dict[str, str] = {}
    for increment in range(100):
        new = ids(3, start=increment * 3)
        old |= {id: part for id, (part, _) in assign(new, [], old, SETTINGS).items()}
    held = Counter(old.values())
    assert 28 <= held["test"] <= 30
    assert 13 <= held["validation"] <= 15


def test_a_lagging_test_set_does_not_eat_a_run():
    old = dict.fromkeys(ids(1000), "train") | {"f" * 20: "test"}
    assert sizes(assign(ids(10, start=5000), [], old, SETTINGS))["train"] == 7


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_documents(store, count):
    with pytest.raises(CorpusEmpty, match=f"among {count}; "):
        split(store, write_dedup(store, "1", [ids(count)]), SETTINGS, as_of="2026-01-01")


def test_documents_of_a_split_in_order_of_arrival(store):
    increments = [ids(50), ids(20, start=100)]
    dedup = write_dedup(store, "1", increments)
    id = split(store, dedup, SETTINGS, as_of="2026-01-01")
    ids_of = {
        part: [row["id"] for row in documents_of(store, dedup, id, part)] for part in ("train", "test", "excluded")
    }
    expected = read(store, id)
    assert ids_of["train"] == [id for id in [*increments[0], *increments[1]] if expected[id]["split"] == "train"]
    assert len(ids_of["test"]) == 7
    assert ids_of["excluded"] == []


def test_output_is_pinned(store):
    id = split(store, write_dedup(store, "1", [ids(100)], [(ids(2)[0], ids(2)[1])]), SETTINGS, as_of="2026-01-01")
    assert (stages.of("split").version, digest(list(read(store, id).values()))[:16]) == GOLDEN, (
        "output changed: raise the version"
    )


GOLDEN = (2, "4531cfed486b643c")
