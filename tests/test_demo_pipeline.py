"""The demo site through the corpus half: every planted nuisance ends where it should, with its reason on record."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prosemill.config.recipe import load_recipe
from prosemill.config.settings import Recipe
from prosemill.dedup import dedup
from prosemill.demo import WEEKS, DemoServer, Expectation, data_folder, expectations, render_site, serve
from prosemill.demo.planted import DOUBLED, MOVED, PRINTED, SYNDICATED
from prosemill.scrape import scrape_source
from prosemill.split.stage import split
from prosemill.storage.schemas import LIVE_STATES
from prosemill.storage.store import Store
from prosemill.strip import merge_shards, shards_to_strip, strip_shard

UNTIL, NEXT = 1799, 1803
Row = dict[str, Any]


@dataclass
class Increment:
    """The snapshots of one run, and what the server was asked for during it."""

    scrape: str
    strip: str
    dedup: str
    split: str
    requests: list[tuple[str, int]]


@dataclass
class Increments:
    store: Store
    server: DemoServer
    first: Increment
    second: Increment

    def rows(self, snapshot: str, role: str) -> dict[str, Row]:
        """Rows of a snapshot's shards by path (with query) on the demo site."""
        rows: list[Row] = []
        for shard in self.store.manifest(snapshot).shards_of(role):
            rows += pq.read_table(self.store.local(shard.path)).to_pylist()
        return {row["url"].removeprefix(self.server.url): row for row in rows}


def run(store: Store, recipe: Recipe, server: DemoServer, as_of: str, previous: Increment | None) -> Increment:
    server.requests.clear()
    source = recipe.sources[0].model_copy(update={"urls": [f"{server.url}/"]})
    scrape = scrape_source(store, source, recipe.scrape, as_of=as_of, previous=previous.scrape if previous else "")
    shards = [
        strip_shard(store, warc, recipe.strip, language=recipe.language) for warc in shards_to_strip(store, [scrape])
    ]
    strip = merge_shards(store, [scrape], shards, recipe.strip, language=recipe.language, as_of=as_of)
    unique = dedup(store, strip, recipe.dedup, as_of=as_of, previous=previous.dedup if previous else "")
    parts = split(store, unique, recipe.split, as_of=as_of, previous=previous.split if previous else "")
    return Increment(scrape, strip, unique, parts, list(server.requests))


@pytest.fixture(scope="module")
def increments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Increments]:
    """Two weeks of the demo: the years to UNTIL, then to NEXT."""
    folder: Path = tmp_path_factory.mktemp("demo")
    store = Store(str(folder / "store"))
    store.check_writable()
    recipe = load_recipe(data_folder() / "recipe.toml")
    render_site(folder / "site", until_year=UNTIL)
    with serve(folder / "site", 0) as server:
        first = run(store, recipe, server, WEEKS[1].as_of, None)
        render_site(folder / "site", until_year=NEXT)
        server.reload(folder / "site")
        second = run(store, recipe, server, WEEKS[2].as_of, first)
        yield Increments(store, server, first, second)


@pytest.mark.parametrize("expected", expectations(UNTIL), ids=lambda expected: expected.path)
def test_a_planted_page_ends_where_it_should(increments: Increments, expected: Expectation) -> None:
    increment = increments.first
    row = increments.rows(increment.scrape, "ledger")[expected.path]
    if expected.stage == "scrape":
        assert (row["state"], row["reason"]) == (expected.state, expected.reason)
        return
    assert (row["state"], row["reason"]) == ("fetched", "")
    if expected.stage == "strip":
        assert increments.rows(increment.strip, "dropped")[expected.path]["reason"] == expected.reason
    elif expected.stage == "dedup":
        removed = increments.rows(increment.dedup, "removed")[expected.path]
        year = expected.path[-9:-5]
        assert removed["reason"] == expected.reason
        assert removed["keeper_url"] == f"{increments.server.url}/messages/{year}.html"
        assert 0.8 <= removed["similarity"] <= 1.0
    else:
        keeper = increments.rows(increment.dedup, "keepers")[expected.path]
        assert (keeper["scrubbed"] > 0) == (expected.reason == "scrubbed")


def test_every_message_is_kept_and_reads_like_one(increments: Increments) -> None:
    keepers = increments.rows(increments.first.dedup, "keepers")
    for year in range(1790, UNTIL + 1):
        text = keepers[f"/messages/{year}.html"]["text"]
        assert len(text.split()) > 900
        assert re.match("(Fellow.Citizens|Gentlemen) of the (Senate|House)", text, re.IGNORECASE), text[:80]
        for furniture in ("cookie", "Read also", "Skip to the text", "American Presidency Project", "year before"):
            assert furniture not in text


def test_nothing_else_is_in_the_corpus(increments: Increments) -> None:
    keepers = increments.rows(increments.first.dedup, "keepers")
    copies = {
        f"/{kind}/{year}.html"
        for kind, years in (("print", PRINTED), ("syndicated", SYNDICATED), ("archive", MOVED))
        for year in years
    }
    assert copies.isdisjoint(keepers)
    assert not [path for path in keepers if path.startswith(("/private/", "/guests/", "/letters/", "/files/", "/home"))]


def test_the_gbk_pages_are_decoded(increments: Increments) -> None:
    names = increments.rows(increments.first.dedup, "keepers")["/notes/names.html"]
    assert "上海" in names["text"]
    assert names["charset"] in ("gbk", "gb18030")


def test_personal_data_is_gone(increments: Increments) -> None:
    text = increments.rows(increments.first.dedup, "keepers")["/contact.html"]["text"]
    assert "[e-mail]" in text
    assert "[phone]" in text
    assert "@" not in text
    assert "555" not in text


def test_no_disallowed_path_is_ever_asked_for(increments: Increments) -> None:
    paths = [path for path, _ in increments.first.requests + increments.second.requests]
    assert not [path for path in paths if path.startswith("/private/") or "?" in path]
    assert paths.count("/robots.txt") == 2  # once a run


def test_a_page_is_asked_for_once_a_run(increments: Increments) -> None:
    for increment in (increments.first, increments.second):
        paths = [path for path, _ in increment.requests if path != "/robots.txt"]
        assert sorted(paths) == sorted(set(paths))


def test_the_next_week_costs_only_what_is_new(increments: Increments) -> None:
    bodies = {path for path, status in increments.second.requests if status == 200} - {"/robots.txt"}
    new = {f"/messages/{year}.html" for year in range(UNTIL + 1, NEXT + 1)}
    assert new <= bodies
    assert bodies - new <= {"/", "/messages/1800s.html", "/files/catalogue.html"}
    ledger = increments.rows(increments.second.scrape, "ledger")
    assert ledger["/messages/1790.html"]["state"] == "unchanged"
    assert ledger["/messages/1790.html"]["warc"].startswith(increments.first.scrape)


def test_the_corpus_grows_and_withdraws_nothing(increments: Increments) -> None:
    first = increments.rows(increments.first.dedup, "keepers")
    second = increments.rows(increments.second.dedup, "keepers")
    assert {path for path in second if path not in first} == {
        f"/messages/{year}.html" for year in range(UNTIL + 1, NEXT + 1)
    }
    assert {path for path in first if path not in second} <= {"/"}


def test_a_split_is_for_ever(increments: Increments) -> None:
    first = increments.rows(increments.first.split, "assignments")
    second = increments.rows(increments.second.split, "assignments")
    assert {path: row["split"] for path, row in first.items() if path in second and path != "/"} == {
        path: second[path]["split"] for path in first if path in second and path != "/"
    }
    assert "train" in {row["split"] for row in second.values()}


def test_live_pages_are_those_of_the_ledger(increments: Increments) -> None:
    ledger = increments.rows(increments.first.scrape, "ledger")
    live = {path for path, row in ledger.items() if row["state"] in LIVE_STATES}
    strip = increments.first.strip
    documents = set(increments.rows(strip, "documents")) | set(increments.rows(strip, "dropped"))
    assert documents == live
    (doubled,) = DOUBLED
    assert f"/messages/{doubled}.html" in live
