"""Random documents of a snapshot as a page to skim."""

import re
from pathlib import Path

import pytest

from benchmarks.fixtures import planted_copies
from flows.cli import run
from prosemill.config.settings import Dedup
from prosemill.dedup import dedup
from prosemill.errors import EXIT_REFUSED
from prosemill.lineage.sampling import sample, texts_of
from prosemill.reporting.sample_page import page
from prosemill.storage.store import Store
from tests.test_dedup import write_strip
from tests.tiny import texts


@pytest.fixture
def kept(store: Store) -> str:
    """A second run's dedup snapshot, with copies removed on both runs."""
    copies = planted_copies(60).texts
    first = write_strip(store, "1", [("s", f"https://example.org/{n}", text) for n, text in enumerate(copies[:90])])
    both = write_strip(store, "2", [("s", f"https://example.org/{n}", text) for n, text in enumerate(copies)])
    increment = dedup(store, first, Dedup(), as_of="2026-01-05")
    return dedup(store, both, Dedup(), as_of="2026-01-06", previous=increment)


def test_a_removed_document_stands_beside_its_keeper(store: Store, kept: str) -> None:
    drawn = sample(store, kept, 1000, 0)
    assert len(drawn.kept) == drawn.num_kept
    assert len(drawn.dropped) == drawn.num_dropped > 20
    for dropped in drawn.dropped:
        assert dropped.beside is not None
        one, other = set(dropped.text.split()), set(dropped.beside.text.split())
        assert len(one & other) > 0.5 * len(one), f"{dropped.url} is not a copy of {dropped.beside.url}"


def test_the_same_seed_draws_the_same(store: Store, kept: str) -> None:
    assert sample(store, kept, 5, 1) == sample(store, kept, 5, 1)
    assert sample(store, kept, 5, 1).kept != sample(store, kept, 5, 2).kept
    assert len(sample(store, kept, 5, 1).kept) == 5


def test_texts_of_removed_documents_are_found_over_the_runs(store: Store, kept: str) -> None:
    import pyarrow.parquet as pq

    shards = store.manifest(kept).shards_of("removed")
    ids = [id for shard in shards for id in pq.read_table(store.local(shard.path))["id"].to_pylist()]
    assert len(shards) == 2
    assert texts_of(store, store.manifest(kept), ids).keys() == set(ids)


def test_the_page_spells_out_what_a_document_tries_to_be(store: Store) -> None:
    evil = "<script>alert(1)</script> " + " ".join(f"word{n}" for n in range(50))
    strip = write_strip(
        store, "1", [("s", 'https://example.org/"onclick="x', evil), ("s", "javascript:alert(2)", evil)]
    )
    html = page(sample(store, strip, 5, 0))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert 'href="javascript' not in html
    assert not re.search(r'"\s*onclick', html)


def test_of_a_stage_that_dropped_nothing_nothing_is_drawn(store: Store) -> None:
    strip = write_strip(
        store, "1", [("s", f"https://example.org/{n}", text) for n, text in enumerate(texts(7, words=9))]
    )
    drawn = sample(store, dedup(store, strip, Dedup(), as_of="2026-01-05"), 5, 0)
    assert (drawn.num_kept, drawn.num_dropped, drawn.dropped) == (7, 0, [])


def test_the_command_writes_a_page(store: Store, kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert run(["sample", kept, "--number", "3", "--out", str(out), "--store", store.url]) == 0
    assert out.read_text().count("<article") == 6
    assert "3 of" in capsys.readouterr().out
    out.write_text("mine")
    assert run(["sample", kept, "--number", "3", "--out", str(out), "--store", store.url]) == EXIT_REFUSED
    assert f"{out}: exists already" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run(["sample", kept, "--number", "3", "--out", str(out), "--overwrite", "--store", store.url]) == 0
    assert out.read_text().count("<article") == 6
    assert run(["sample", "nothing", "--store", store.url]) == EXIT_REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    assert "nothing" in line
