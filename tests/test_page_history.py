"""What happened to a page, and taking the decision of dedup back."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run
from prosemill.config.settings import Recipe
from prosemill.errors import EXIT_REFUSED, RecipeError
from prosemill.lineage.page_history import Step, why
from prosemill.storage.corpus import documents_of
from prosemill.storage.store import Store
from tests.stories import write_corpus
from tests.test_flows import recipe_for
from tests.tiny import make_base

DATES = ("2026-01-05", "2026-01-06", "2026-01-07")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty stories, a near-copy of one, a copy of another in capitals, and a text that is too short."""
    home = tmp_path_factory.mktemp("why")
    make_base(home / "base")
    write_corpus(home / "texts", range(40))
    words = (home / "texts" / "story-003.txt").read_text().split(" ")
    words[len(words) // 2] = "windmill"
    (home / "texts" / "zz-near.txt").write_text(" ".join(words))
    (home / "texts" / "zz-exact.txt").write_text((home / "texts" / "story-004.txt").read_text().upper())
    (home / "texts" / "zz-thin.txt").write_text("Too short.")
    return home


@pytest.fixture(scope="module")
def recipe(home: Path) -> Recipe:
    return recipe_for(home)


def build(recipe: Recipe, as_of: str, store: Store) -> Any:
    from flows.build_corpus import build_corpus

    return build_corpus(recipe, as_of, store.url)


@pytest.fixture(scope="module")
def store(home: Path, recipe: Recipe, prefect_api: str) -> Store:
    store = Store(str(home / "store"))
    build(recipe, DATES[0], store)
    return store


def url_of(store: Store, name: str) -> str:
    import pyarrow.parquet as pq

    (snapshot,) = store.runs("stories")[DATES[0]]["scrape"].values()
    (shard,) = store.manifest(snapshot).shards_of("ledger")
    return next(url for url in pq.read_table(store.local(shard.path))["url"].to_pylist() if url.endswith(name))


def steps_of(store: Store, name: str) -> list[Step]:
    (fate,) = why(store, url_of(store, name))
    return fate.steps


def test_a_kept_page_is_followed_to_its_chunks(store: Store) -> None:
    steps = steps_of(store, "story-003.txt")
    part = next(step.status for step in steps if step.stage == "split")
    assert part in ("train", "validation", "test")
    assert [step.stage for step in steps] == [
        "scrape",
        "strip",
        "dedup",
        "split",
        *(["chunk"] if part != "test" else []),
    ]
    assert {step.status for step in steps if step.stage in ("scrape", "strip", "dedup")} == {"kept"}


def test_a_page_dropped_by_strip_ends_there_with_the_reason(store: Store) -> None:
    *_, last = steps_of(store, "zz-thin.txt")
    assert (last.stage, last.status) == ("strip", "dropped")
    assert last.why.startswith("thin")


def test_a_copy_names_its_keeper_and_shows_both(store: Store) -> None:
    (fate,) = why(store, url_of(store, "zz-near.txt"))
    assert fate.steps[-1].status == "dropped"
    assert f"a near-copy of {url_of(store, 'story-003.txt')}, J = 0.9" in fate.steps[-1].why
    assert set(fate.text.split()) - set(fate.keeper_text.split()) == {"windmill"}
    assert "an exact copy of" in steps_of(store, "zz-exact.txt")[-1].why


def test_what_nobody_met_is_refused_in_one_line(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecipeError, match="no ledger knows it"):
        why(store, "https://nowhere.example/")
    with pytest.raises(RecipeError, match="no corpus is named ballads; there is stories"):
        why(store, url_of(store, "zz-near.txt"), "ballads")
    assert run(["why", url_of(store, "story-003.txt"), "--undo", "--store", store.url]) == EXIT_REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    assert "was not removed as a copy" in line


def test_an_undone_removal_keeps_the_page_from_the_next_run_on(
    store: Store, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    url = url_of(store, "zz-near.txt")
    assert run(["why", url, "--undo", "--who", "ada", "--json", "--store", store.url]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    document = report["removed"]["id"]
    assert report["steps"][-1]["why"].endswith("taken back, and kept from the next run on")

    after = build(recipe, DATES[1], store)
    steps = {step.stage: step for step in steps_of(store, "zz-near.txt")}
    assert steps["dedup"].status == "kept"
    assert "took its removal back" in steps["dedup"].why
    twin = next(step.status for step in steps_of(store, "story-003.txt") if step.stage == "split")
    assert steps["split"].status == (twin if twin == "train" else "excluded"), "its twin is not on the other side"
    kept = {
        row["id"] for part in ("train", "excluded") for row in documents_of(store, after["dedup"], after["split"], part)
    }
    assert document in kept
    assert steps_of(store, "zz-exact.txt")[-1].status == "dropped", "nobody took that one back"

    later = build(recipe, DATES[2], store)
    assert {row["status"] for row in map(vars, steps_of(store, "zz-near.txt"))} >= {"kept"}
    old, new = (store.manifest(snapshots["dedup"]) for snapshots in (after, later))
    assert [shard.path for shard in new.shards_of("keepers")] == [shard.path for shard in old.shards_of("keepers")]


def test_a_page_to_look_at(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", url_of(store, "zz-exact.txt"), "--store", store.url]) == 0
    printed = capsys.readouterr().out
    assert "the one that was kept" in printed
    assert "--undo" in printed
