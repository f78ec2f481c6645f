"""What a run knows of its past: looked up in what earlier runs left, the same as if all of it were read again."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prosemill.config.settings import Dedup, Split
from prosemill.dedup import dedup
from prosemill.dedup.known_index import NOT_KEPT, UNKNOWN, Names
from prosemill.split import containment
from prosemill.split.codes import NEW, PARTS, Parts, is_held_out
from prosemill.split.sketches import Sketches, SketchSegment
from prosemill.split.stage import split
from prosemill.storage.manifest import document_id
from prosemill.storage.store import Store
from tests.increments import edited, sentence, write_strip

SETTINGS, SPLIT = Dedup(), Split(test_share=0.2, validation_share=0.1)
LEFT = ("names", "parts", "sketches")  # roles for the next run alone
Documents = list[tuple[str, str, str]]


def news(rng: random.Random, increment: int, old: Documents) -> Documents:
    """Twenty documents; near-copies, exact copies, halves and containers of old ones."""
    texts = [sentence(rng, rng.randint(60, 120)) for _ in range(20)]
    for _, _, text in rng.sample(old, 8):
        texts += [edited(rng, text, 0.01), edited(rng, text, 0.05), text.upper()]
        texts.append(" ".join(text.split()[:30]))
    for _, _, text in rng.sample(old, 24):
        texts.append(f"{sentence(rng, 80)} {text} {sentence(rng, 80)}")
    return [(f"site{number % 3}", f"/{increment}/{number:03}", text) for number, text in enumerate(texts)]


def live(store: Store, strip: str, number: int, before: tuple[str, str], undone: tuple[str, ...] = ()) -> tuple:
    kept = dedup(store, strip, SETTINGS, as_of=f"2026-01-0{number}", previous=before[0], undone=undone)
    return kept, split(store, kept, SPLIT, as_of=f"2026-01-0{number}", previous=before[1])


@pytest.fixture(scope="module")
def increments(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[str], list[tuple[str, str]]]:
    """Four runs, the first the largest; the strip snapshot and what came of it."""
    store, rng = Store(str(tmp_path_factory.mktemp("store"))), random.Random(3)
    store.check_writable()
    everything = [("site0", f"/0/{number:03}", sentence(rng, rng.randint(60, 120))) for number in range(120)]
    strips = [write_strip(store, "1", everything)]
    lived = [live(store, strips[0], 1, ("", ""))]
    for number in (2, 3, 4):
        new = news(rng, number, everything)
        everything += new
        strips.append(write_strip(store, str(number), new, strips[-1]))
        lived.append(live(store, strips[-1], number, lived[-1]))
    return store, strips, lived


def rows(store: Store, snapshot: str, role: str) -> list[dict]:
    shards = store.manifest(snapshot).shards_of(role)
    return [row for shard in shards for row in pq.read_table(store.local(shard.path)).to_pylist()]


def contents(store: Store, snapshot: str) -> tuple:
    """Everything that a snapshot says, but for what it leaves for the next run."""
    manifest = store.manifest(snapshot)
    shards = sorted((shard.path, shard.rows, shard.sha256) for shard in manifest.shards if shard.role not in LEFT)
    return shards, manifest.counts, manifest.totals


def as_an_earlier_version_left_it(store: Store, snapshot: str) -> None:
    path = Path(store.local(snapshot)) / "manifest.json"
    manifest = json.loads(path.read_text())
    gone = [shard["path"] for shard in manifest["shards"] if shard["role"] in LEFT]
    assert gone
    manifest["shards"] = [shard for shard in manifest["shards"] if shard["path"] not in gone]
    path.write_text(json.dumps(manifest))
    for shard in gone:
        if shard.startswith(f"{snapshot}/"):
            store.local(shard).unlink()


def test_names_and_parts_are_those_of_the_tables(increments) -> None:
    store, _, lived = increments
    for kept, assigned in lived:
        manifest = store.manifest(kept)
        keepers, removed = rows(store, kept, "keepers"), rows(store, kept, "removed")
        names = Names.read(store, manifest)
        ids = [row["id"] for row in [*keepers, *removed]] + ["never met"]
        expected = [*range(len(keepers)), *[NOT_KEPT] * len(removed), UNKNOWN]
        assert all(segment.path for segment in names.segments), "read, not made again"
        assert names.find(pa.chunked_array([ids])).tolist() == expected
        assert names.table().to_pylist() == [{"id": row["id"], "url": row["url"]} for row in keepers]
        some = np.array([len(keepers) - 1, 0, 0, len(keepers) // 2])
        assert names.take(some)["url"].to_pylist() == [keepers[place]["url"] for place in some]
        assert names.sources().total() == len(keepers)

        parts = Parts.read(store, assigned, manifest, names)
        part_of = {row["id"]: row["split"] for row in rows(store, assigned, "assignments")}
        assert parts.shards
        assert [PARTS[code] for code in parts.codes] == [part_of[row["id"]] for row in keepers]
    assert len(names.segments) > 1
    assert NEW in Parts.read(store, lived[0][1], manifest, names).codes


def check_sketches(store: Store, kept: str, assigned: str) -> None:
    names = Names.read(store, store.manifest(kept))
    history = containment.read_index(store, kept, len(names))
    held = np.flatnonzero(is_held_out(Parts.read(store, assigned, store.manifest(kept), names).codes))
    sketches = Sketches.read(store, store.manifest(assigned).shards_of("sketches"), history)
    fresh = SketchSegment.of(history, held)
    stored = [
        pair
        for segment in sketches.segments
        for pair in zip(segment.hashes.tolist(), segment.owners.tolist(), strict=True)
    ]
    assert sorted(stored) == sorted(zip(fresh.hashes.tolist(), fresh.owners.tolist(), strict=True))


def test_sketches_are_those_of_the_index(increments) -> None:
    store, _, lived = increments
    for kept, assigned in lived:
        check_sketches(store, kept, assigned)
    assert rows(store, lived[-1][1], "containers")


@pytest.mark.parametrize("is_going_on", [True, False])
def test_sketches_are_made_anew_for_another_index(increments, tmp_path: Path, is_going_on: bool) -> None:
    """For one of other shingles, and for one of the same documents in another order."""
    store, strips, lived = increments
    other = Store(str(shutil.copytree(store.url, tmp_path / "store")))
    settings, previous = (Dedup(shingle_words=4), lived[-1][0]) if is_going_on else (SETTINGS, "")
    kept = dedup(other, strips[-1], settings, as_of="2026-01-05", previous=previous)
    assigned = split(other, kept, SPLIT, as_of="2026-01-05", previous=lived[-1][1])
    check_sketches(other, kept, assigned)
    part_of = {row["id"]: row["split"] for row in rows(other, lived[-1][1], "assignments")}
    after = {row["id"]: row["split"] for row in rows(other, assigned, "assignments")}
    assert part_of.items() <= after.items()


@pytest.mark.parametrize("last", [0, 1, 2])
def test_a_store_of_an_earlier_version_goes_on_the_same(increments, tmp_path: Path, last: int) -> None:
    """Runs up to `last` are as a version wrote them that left nothing for the next."""
    store, strips, lived = increments
    other = Store(str(shutil.copytree(store.url, tmp_path / "store")))
    for snapshots in lived[last + 1 :]:
        for snapshot in snapshots:
            shutil.rmtree(other.local(snapshot))
    for snapshots in lived[: last + 1]:
        for snapshot in snapshots:
            as_an_earlier_version_left_it(other, snapshot)
    before = lived[last]
    for number, strip in list(enumerate(strips, start=1))[last + 1 :]:
        before = live(other, strip, number, before)
        assert before == lived[number - 1]
        assert [contents(other, snapshot) for snapshot in before] == [contents(store, snapshot) for snapshot in before]
    assert set(LEFT) <= {shard.role for snapshot in before for shard in other.manifest(snapshot).shards}


def test_files_that_were_judged_are_not_opened_unless_a_removal_is_taken_back(increments, tmp_path: Path) -> None:
    store, strips, lived = increments
    other = Store(str(shutil.copytree(store.url, tmp_path / "store")))
    new = ("site0", "/new", sentence(random.Random(8), 90))
    strip = write_strip(other, "5", [new], strips[-1])
    taken_back = min(row["id"] for row in rows(store, lived[-1][0], "removed"))
    undone = dedup(other, strip, SETTINGS, as_of="2026-01-05", previous=lived[-1][0], undone=[taken_back])
    assert {row["id"] for row in rows(other, undone, "keepers")} >= {taken_back, document_id(*new[1:])}
    assert other.manifest(undone).counts.kept == 2

    for earlier in strips:
        other.local(f"{earlier}/documents.parquet").unlink()
    kept = dedup(other, strip, SETTINGS, as_of="2026-01-05", previous=lived[-1][0])
    assert other.manifest(kept).counts.kept == 1
    assert other.manifest(kept).totals["live_documents"] == 120 + 3 * 76 + 1
