"""strip_shard and merge_shards: over real WARC files and ledgers, with pages that hang and processes that die."""

from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prosemill.config.settings import Strip
from prosemill.errors import CorpusEmpty, RecipeError, StageDroppedTooMuch, StoreError
from prosemill.runtime import progress
from prosemill.storage import stages
from prosemill.storage.manifest import digest
from prosemill.storage.schemas import DOCUMENT, DROPPED, LEDGER
from prosemill.storage.store import Store
from prosemill.storage.warc import Page, PageArchive
from prosemill.strip import merge_shards, shards_to_strip, strip_shard
from prosemill.strip.workers import strip_pages

NOW = "2026-11-21T10:00:00Z"
SLOW = (
    b"<html><body>" + b"<p>Words and words, never the same twice.</p>" * 110_000
)  # 4.8 MB: more than a second of work


def article(name: str) -> bytes:
    return f"""<html><head><title>{name}</title></head><body><nav><a href="/">Home</a></nav><article>
        <p>The {name} stood at the end of the pier, and in all the years nobody had asked who paid for its lamp.</p>
        <p>When the keeper of the {name} retired, the village learned that it had been the baker all along.</p>
        </article></body></html>""".encode()


@dataclass(frozen=True)
class PageRow:
    """A ledger row: `body` None leaves out the page (`warc` then names an earlier file)."""

    url: str
    body: bytes
    state: str = "fetched"
    warc: str = ""


def scrape(store: Store, name: str, rows: Sequence[PageRow], source: str = "pier") -> str:
    """A snapshot as the scrape stage writes it; its id."""
    snapshot = f"scrape-{name}"
    with store.write(snapshot, stage="scrape", version=1, parents=[], settings={}, as_of="2026-11-21") as writer:
        with PageArchive(writer.folder) as archive:
            ledger = []
            for row in rows:
                content = hashlib.sha256(row.body).hexdigest()
                warc = row.warc
                if row.state == "fetched":
                    page = Page(
                        row.url,
                        "text/html",
                        row.body,
                        NOW,
                        http_status=200,
                        http_headers=[("Content-Type", "text/html")],
                    )
                    warc = f"{snapshot}/{archive.add(page).file}"
                empty: dict[str, object] = {f.name: "" if f.type == pa.string() else 0 for f in LEDGER}
                known = {"url": row.url, "source": source, "state": row.state, "content_sha256": content, "warc": warc}
                ledger.append({**empty, **known})
        for file, num_pages in archive.files:
            writer.add(file, "pages", num_pages)
        pq.write_table(pa.Table.from_pylist(ledger, schema=LEDGER), writer.path("ledger.parquet"))
        writer.add("ledger.parquet", "ledger", len(ledger))
    return snapshot


def documents(store: Store, snapshot: str) -> list[dict[str, str]]:
    shards = store.manifest(snapshot).shards_of("documents")
    return [row for shard in shards for row in pq.read_table(store.local(shard.path)).to_pylist()]


def strip_all(store: Store, scrapes: list[str], settings: Strip, as_of: str = "2026-11-21", previous: str = "") -> str:
    shards = [strip_shard(store, warc, settings, language="en") for warc in shards_to_strip(store, scrapes)]
    return merge_shards(store, scrapes, shards, settings, language="en", as_of=as_of, previous=previous)


def test_shard_has_documents_and_dropped_pages(store: Store) -> None:
    rows = [PageRow("https://a.example/1", article("lighthouse")), PageRow("https://a.example/2", b"<p>too short</p>")]
    first = scrape(store, "one", [*rows, PageRow("https://a.example/3", b"%PDF-1.7 \xff\xfe")])
    shard = strip_shard(store, f"{first}/pages-00000.warc.gz", Strip(), language="en")
    manifest = store.manifest(shard)
    assert (manifest.counts.seen, manifest.counts.kept) == (3, 1)
    assert manifest.counts.dropped == {"bad_text": 1, "thin": 1}
    assert manifest.parents == [first]
    table = pq.read_table(store.local(manifest.shards_of("documents")[0].path))
    assert table.schema.equals(DOCUMENT)
    row = table.to_pylist()[0]
    assert row["source"] == "pier"
    assert row["title"] == "lighthouse"
    assert row["fetched_at"] == NOW
    assert row["size_bytes"] == len(row["text"].encode())
    dropped = pq.read_table(store.local(manifest.shards_of("dropped")[0].path))
    assert dropped.schema.equals(DROPPED)
    assert [row["reason"] for row in dropped.to_pylist()] == ["thin", "bad_text"]


def test_shard_is_made_once_and_named_by_what_decides_on_its_text(store: Store) -> None:
    first = scrape(store, "one", [PageRow("https://a.example/1", article("lighthouse"))])
    warc = f"{first}/pages-00000.warc.gz"
    shard = strip_shard(store, warc, Strip(), language="en")
    created = store.manifest(shard).created_at
    assert strip_shard(store, warc, Strip(), language="en") == shard
    assert store.manifest(shard).created_at == created
    assert strip_shard(store, warc, Strip(max_dropped_share=0.5), language="en") == shard
    assert strip_shard(store, warc, Strip(min_words=3), language="en") != shard
    assert strip_shard(store, warc, Strip(languages=["de", "en"]), language="en") != shard


def test_unknown_language_is_refused(store: Store) -> None:
    first = scrape(store, "one", [PageRow("https://a.example/1", article("lighthouse"))])
    with pytest.raises(RecipeError, match=r"'xx'"):
        strip_shard(store, f"{first}/pages-00000.warc.gz", Strip(languages=["xx"]), language="en")


def test_merge_keeps_what_is_live_and_inherits_whole_files(store: Store) -> None:
    one, two, three = (
        PageRow(f"https://a.example/{name}", article(name)) for name in ("lighthouse", "windmill", "ferry")
    )
    monday = scrape(store, "monday", [one, two])
    first = strip_all(store, [monday], Strip())
    assert store.manifest(first).shards_of("documents")[0].path.startswith("strip-shard-")
    old = shards_to_strip(store, [monday])[0]

    # Tuesday: the lighthouse is unchanged, the windmill gone, the ferry new
    tuesday = scrape(
        store, "tuesday", [PageRow(one.url, one.body, "unchanged", old), PageRow(two.url, two.body, "gone", old), three]
    )
    assert shards_to_strip(store, [tuesday]) == [old, f"{tuesday}/pages-00000.warc.gz"]
    second = strip_all(store, [tuesday], Strip())
    manifest = store.manifest(second)
    assert sorted(row["url"] for row in documents(store, second)) == [three.url, one.url]
    assert manifest.counts.seen == manifest.counts.kept == 2
    assert manifest.totals["sources"] == {"pier": 2}
    assert sorted(shard.path.partition("-")[0] for shard in manifest.shards_of("documents")) == ["strip", "strip"]
    assert sum(shard.path.startswith(second) for shard in manifest.shards) == 1  # the half-dead file, without its dead


def test_merge_counts_a_page_of_two_sources_once(store: Store) -> None:
    same = PageRow("https://a.example/1", article("lighthouse"))
    scrapes = [scrape(store, "one", [same], "pier"), scrape(store, "two", [same], "coast")]
    merged = strip_all(store, scrapes, Strip())
    assert store.manifest(merged).counts.seen == len(documents(store, merged)) == 1


def test_merge_counts_dropped_pages_and_stops_when_too_many(store: Store) -> None:
    rows = [PageRow("https://a.example/1", article("lighthouse"))]
    rows += [PageRow(f"https://a.example/short/{number}", f"<p>{number}</p>".encode()) for number in range(3)]
    one = scrape(store, "one", rows)
    counts = store.manifest(strip_all(store, [one], Strip())).counts
    assert (counts.seen, counts.kept, counts.dropped) == (4, 1, {"thin": 3})
    with pytest.raises(StageDroppedTooMuch, match=r"3 of 4 pages.*thin 3.*max_dropped_share = 0.5"):
        strip_all(store, [one], Strip(max_dropped_share=0.5))


def test_a_rebuilt_site_waits_for_a_person(store: Store) -> None:
    first = [PageRow(f"https://a.example/{number}", article(f"lamp {number}")) for number in range(12)]
    gutted = b"<html><body><p>Sign in to read page %d.</p></body></html>"
    one = scrape(store, "one", first)
    same = [PageRow(row.url, row.body, "unchanged", shards_to_strip(store, [one])[0]) for row in first[:2]]
    two = scrape(store, "two", [*same, *(PageRow(row.url, gutted % number) for number, row in enumerate(first[2:]))])
    fine = scrape(
        store, "other", [PageRow(f"https://b.example/{number}", article(f"{number}")) for number in range(12)], "b"
    )
    settings = Strip(min_words=0)
    before = strip_all(store, [one], settings)
    after = strip_all(store, [two, fine], settings, as_of="2026-11-22", previous=before)
    kept = [row["url"] for row in documents(store, after)]
    assert sorted(url for url in kept if "a.example" in url) == ["https://a.example/0", "https://a.example/1"]
    assert sum("b.example" in url for url in kept) == 12, "a source that nobody knew yet is not a collapse"
    manifest = store.manifest(after)
    assert manifest.counts.dropped == {"quarantined": 10}
    was, now = manifest.totals["quarantined"]["pier"]
    assert now < 0.3 * was
    (dropped,) = [shard for shard in manifest.shards_of("dropped") if "quarantined" in shard.path]
    assert {row["reason"] for row in pq.read_table(store.local(dropped.path)).to_pylist()} == {"quarantined"}
    again = strip_all(store, [two, fine], settings, as_of="2026-11-23", previous=after)
    assert store.manifest(again).counts.dropped == {"quarantined": 10}, "until it gives text again"
    let = strip_all(store, [two, fine], Strip(min_words=0, quarantine_share=0), "2026-11-23", after)
    assert store.manifest(let).counts.kept == 24


def test_merge_of_nothing_is_an_error(store: Store) -> None:
    one = scrape(store, "one", [PageRow("https://a.example/1", b"<p>short</p>")])
    with pytest.raises(CorpusEmpty, match=r"none of 1 pages gave a document .thin 1."):
        strip_all(store, [one], Strip())


def test_merge_says_which_page_was_never_stripped(store: Store) -> None:
    one = scrape(store, "one", [PageRow("https://a.example/1", article("lighthouse"))])
    with pytest.raises(StoreError, match=r"1 live pages were never stripped, for example https://a.example/1"):
        merge_shards(store, [one], [], Strip(), language="en", as_of="2026-11-21")


def test_workers_give_what_one_process_gives_in_the_same_order() -> None:
    pages = [Page(f"https://a.example/{number}", "text/html", article(f"mill {number}"), NOW) for number in range(66)]
    alone = strip_pages(pages[:33], Strip(), "en") + strip_pages(pages[33:], Strip(), "en")
    assert strip_pages(pages, Strip(), "en") == alone
    texts = [Page(f"{page.url}.txt", "text/plain", page.url.encode() + b" is a mill. " * 9, NOW) for page in pages]
    mixed = [page for pair in zip(pages, texts, strict=True) for page in pair]  # plain texts do not go to the workers
    results = strip_pages(mixed, Strip(), "en")
    assert results[::2] == alone
    assert [result.text.split()[0] for result in results[1::2]] == [page.url for page in pages]


def test_many_small_plain_texts_start_no_process(request: pytest.FixtureRequest) -> None:
    seen = set()
    request.addfinalizer(lambda: progress.listen(None))
    progress.listen(lambda what, done, total: seen.update(multiprocessing.active_children()))
    texts = [Page(f"https://a.example/{n}", "text/plain; charset=utf-8", b"A mill. " * 20, NOW) for n in range(300)]
    assert {result.reason for result in strip_pages(texts, Strip(), "en")} == {"repetition"}
    assert not seen


def test_a_page_that_takes_too_long_costs_only_itself() -> None:
    bodies = [article("lighthouse"), SLOW, article("windmill")]
    pages = [Page(f"https://a.example/{number}", "text/html", body, NOW) for number, body in enumerate(bodies)]
    results = strip_pages(pages, Strip(), "en", page_seconds=0.5)
    assert [result.reason for result in results] == ["", "too_slow", ""]


def test_a_process_that_dies_costs_only_its_page(request: pytest.FixtureRequest) -> None:
    killed = []

    def kill(what: str, done: int, total: int | None) -> None:
        """The first report comes when a worker is ready, just before it gets the slow page."""
        if not killed:
            killed.append(threading.Timer(0.3, multiprocessing.active_children()[0].kill))
            killed[0].start()

    request.addfinalizer(lambda: progress.listen(None))
    progress.listen(kill)
    pages = [
        Page("https://a.example/1", "text/html", SLOW, NOW),
        Page("https://a.example/2", "text/html", article("x"), NOW),
    ]
    results = strip_pages(pages, Strip(), "en")
    assert [result.reason for result in results] == ["extraction_failed", ""]
    assert results[0].detail == "the process died with exit code -9"


def test_output_is_what_it_was(store: Store) -> None:
    rows = [PageRow(f"https://a.example/{name}", article(name)) for name in ("lighthouse", "windmill")]
    extra = b"""<html><body><article><h1>List</h1>
        <p>What the keeper left behind, as the baker wrote it down for us all:</p>
        <ol><li>a lamp</li><li>two books</li></ol><table><tr><td>oil</td><td>3 l</td></tr></table>
        <pre>a  b\n\n  c</pre><p>Ask keeper@pier.example for the rest of what he left in the cellar.</p></article>"""
    one = scrape(store, "one", [*rows, PageRow("https://a.example/list", extra)])
    stripped = documents(store, strip_all(store, [one], Strip()))
    golden = digest([[row[key] for key in ("id", "url", "title", "text", "date", "language")] for row in stripped])
    expected = {3: "4df3b3ffb3bb316e56d6a744cdaa5ed3c5e5283da627427e73729598b84c7bfc"}
    assert golden == expected.get(stages.of("strip-shard").version), (
        "output changed: raise the version (and put the new digest here)"
    )


def test_the_corpus_half_never_imports_torch() -> None:
    code = "import sys, prosemill.strip; print({'torch', 'transformers', 'prefect'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed == "set()\n"
