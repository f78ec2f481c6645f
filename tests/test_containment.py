"""What is held out is learned by no way round: not as a near-copy, not as a part of a longer page, on no run."""

import random

import pyarrow.parquet as pq
import pytest

from prosemill.config.settings import Dedup, Split
from prosemill.dedup import dedup
from prosemill.split import containment
from prosemill.split.stage import split
from prosemill.storage.corpus import documents_of
from prosemill.storage.store import Store
from tests.increments import edited, sentence, write_strip

SETTINGS, SPLIT = Dedup(), Split(test_share=0.2, validation_share=0.1)
Corpus = dict[str, str]  # URL -> text


def increment(store: Store, corpus: Corpus, name: str, before: tuple[str, str] = ("", "")) -> tuple[str, str]:
    """Dedup and split of one run; what they are called."""
    strip = write_strip(store, name, [("site", url, text) for url, text in corpus.items()])
    kept = dedup(store, strip, SETTINGS, as_of=f"2026-01-{name}", previous=before[0])
    return kept, split(store, kept, SPLIT, as_of=f"2026-01-{name}", previous=before[1])


def rows(store: Store, snapshot: str, role: str) -> dict[str, dict]:
    """By URL."""
    shards = store.manifest(snapshot).shards_of(role)
    return {row["url"]: row for shard in shards for row in pq.read_table(store.local(shard.path)).to_pylist()}


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Corpus, list[tuple[str, str]]]:
    """A first week of 300 pages, and a second with 50 near-copies of held-out pages and 10 that hold one whole."""
    store, rng = Store(str(tmp_path_factory.mktemp("store"))), random.Random(4)
    store.check_writable()
    corpus = {f"/one/{number}": sentence(rng, rng.randint(60, 300)) for number in range(300)}
    one = increment(store, corpus, "05")
    parts = rows(store, one[1], "assignments")
    held = [url for url, row in parts.items() if row["split"] in ("test", "validation")]
    learned = [url for url, row in parts.items() if row["split"] == "train"]
    for number, url in enumerate(rng.sample(held, 50)):
        corpus[f"/near/{number}"] = edited(rng, corpus[url], 0.0105)  # five shingles a word: J = .9
    for number, url in enumerate(rng.sample(held, 10)):
        corpus[f"/holds/{number}"] = f"{sentence(rng, 900)} {corpus[url]} {sentence(rng, 900)}"
    for number, url in enumerate(rng.sample(held, 5)):
        corpus[f"/nearly/{number}"] = f"{sentence(rng, 900)} {edited(rng, corpus[url], 0.01)} {sentence(rng, 900)}"
    for number, url in enumerate(rng.sample(learned, 40)):
        words = corpus[url].split()
        corpus[f"/within/{number}"] = " ".join(words[: len(words) // 2])
    corpus |= {f"/two/{number}": sentence(rng, 200) for number in range(60)}
    two = increment(store, corpus, "12", one)
    return store, corpus, [one, two]


def test_copies_and_containers_of_held_out_pages_are_kept_out_each_with_its_reason(weeks) -> None:
    store, corpus, [one, two] = weeks
    removed, parts = rows(store, two[0], "removed"), rows(store, two[1], "assignments")
    containers = rows(store, two[1], "containers")
    planted = [url for url in corpus if url.startswith(("/near/", "/holds/", "/nearly/"))]
    held = {row["url"] for row in rows(store, one[1], "assignments").values() if row["split"] != "train"}
    for url in planted:
        if url in removed:
            assert (removed[url]["reason"], removed[url]["keeper_url"] in held) == ("near", True)
            continue
        reason = "near_held_out" if url.startswith("/near/") else "contains_held_out"
        assert (parts[url]["split"], parts[url]["reason"]) == ("excluded", reason)
        if reason == "contains_held_out":
            assert shingles(corpus[containers[url]["held_out_url"]]) & shingles(corpus[url])
            assert containers[url]["held_out_url"] in held
            assert containers[url]["share"] >= containment.CONTAINED
    assert sum(url in removed for url in planted if url.startswith("/near/")) >= 45
    learned = {row["url"] for row in documents_of(store, *two, "train")}
    assert not learned & set(planted)
    assert len(learned & {url for url in corpus if url.startswith("/two/")}) >= 30, "what is new and unlike is learned"
    counts = store.manifest(two[1]).counts
    assert counts.dropped["contains_held_out"] == len(containers) >= 15
    assert counts.seen == counts.kept + sum(counts.dropped.values())


def test_what_lies_within_an_old_training_page_is_not_held_out(weeks) -> None:
    store, _, [_, two] = weeks
    parts = rows(store, two[1], "assignments")
    assert {row["split"] for url, row in parts.items() if url.startswith("/within/")} == {"train"}


def test_no_held_out_text_is_in_a_training_page(weeks) -> None:
    """By brute force, over both weeks."""
    store, _, [_, two] = weeks
    learned = [shingles(row["text"]) for row in documents_of(store, *two, "train")]
    for part in ("test", "validation"):
        for row in documents_of(store, *two, part):
            own = shingles(row["text"])
            assert all(len(own & other) < 0.65 * len(own) for other in learned)


def test_a_page_that_holds_another_of_the_same_run(store: Store) -> None:
    rng = random.Random(5)
    corpus = {f"/{number}": sentence(rng, 150) for number in range(60)}
    corpus |= {f"/book/{part}": " ".join(corpus[f"/{part * 10 + page}"] for page in range(10)) for part in range(6)}
    _, assigned = increment(store, corpus, "05")
    parts = rows(store, assigned, "assignments")
    held = {url for url, row in parts.items() if row["split"] in ("test", "validation")}
    for part in range(6):
        pages = {f"/{part * 10 + page}" for page in range(10)}
        assert f"/book/{part}" not in held or pages <= held
        assert parts[f"/book/{part}"]["split"] != "train" or not pages & held
    assert held
