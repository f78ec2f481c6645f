"""Sources on disk: folders of every file type, web archives, data sets."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prosemill.config.settings import Scrape
from prosemill.config.sources import DatasetSource, FolderSource, WarcSource
from prosemill.errors import RecipeError, SourceEmpty, SourceError
from prosemill.scrape import scrape_source
from prosemill.scrape.ledger import LedgerRow, read_ledger
from prosemill.scrape.texts import iter_texts
from prosemill.storage import stages
from prosemill.storage.store import Store
from prosemill.storage.warc import Page, PageArchive
from prosemill.storage.warc_reader import iter_pages

HTML = b"<html><head><title>Tides</title></head><body><p>The tide comes in twice a day.</p></body></html>"
POEMS = {
    "title": "A book of rivers",
    "abstract": "Two poems.",
    "content": [
        {"chapter": "Upstream", "author": "A. Nonymous", "paragraphs": ["Over the stones,", "under the bridge."]},
        {"chapter": "Downstream", "author": "A. Nonymous", "paragraphs": ["Past the mill,", "out to the sea."]},
    ],
}


def write_epub(path: Path) -> None:
    chapter = "<html xmlns='http://www.w3.org/1999/xhtml'><body><p>{}</p></body></html>"
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("mimetype", "application/epub+zip")
        book.writestr(
            "META-INF/container.xml",
            "<container xmlns='urn:oasis:names:tc:opendocument:xmlns:container'><rootfiles>"
            "<rootfile full-path='OEBPS/book.opf'/></rootfiles></container>",
        )
        book.writestr(
            "OEBPS/book.opf",
            "<package xmlns='http://www.idpf.org/2007/opf' xmlns:dc='http://purl.org/dc/elements/1.1/'>"
            "<metadata><dc:title>The Lighthouse</dc:title></metadata><manifest>"
            "<item id='nav' href='nav.xhtml' media-type='application/xhtml+xml' properties='nav'/>"
            "<item id='two' href='text/second%20part.xhtml' media-type='application/xhtml+xml'/>"
            "<item id='one' href='text/first.xhtml' media-type='application/xhtml+xml'/>"
            "<item id='cover' href='cover.png' media-type='image/png'/></manifest>"
            "<spine><itemref idref='nav'/><itemref idref='one'/><itemref idref='two'/><itemref idref='cover'/></spine>"
            "</package>",
        )
        book.writestr("OEBPS/text/first.xhtml", chapter.format("The lamp was lit at dusk."))
        book.writestr("OEBPS/text/second part.xhtml", chapter.format("The ship passed at dawn."))
        book.writestr("OEBPS/nav.xhtml", chapter.format("Contents"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "writing"
    (root / "notes").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "config.txt").write_text("not ours")
    (root / "page.html").write_bytes(HTML)
    (root / "notes" / "may 1.md").write_text("# May\n\nIt rained until the fourth.")
    (root / "notes" / "六月.txt").write_text("六月无雨。", encoding="utf-8")
    (root / "copy.html").write_bytes(HTML)
    (root / "blank.txt").write_text(" \n")
    (root / "photo.png").write_bytes(b"\x89PNG")
    (root / "poems.json").write_text(json.dumps(POEMS))
    (root / "lines.jsonl").write_text('{"text": "First line."}\n\n{"text": "Second line.", "title": "Two"}\n{broken\n')
    (root / "broken.epub").write_bytes(b"no zip")
    write_epub(root / "lighthouse.epub")
    return root


def rows_of(store: Store, snapshot: str) -> dict[str, LedgerRow]:
    rows = read_ledger(store.local(f"{snapshot}/ledger.parquet"))
    return {row.url.split("://", 1)[1].split("/", 1)[-1]: row for row in rows}


def pages_of(store: Store, snapshot: str) -> dict[str, Page]:
    shards = store.manifest(snapshot).shards_of("pages")
    pages = [page for shard in shards for page in iter_pages(store.local(shard.path))]
    return {page.url.split("://", 1)[1].split("/", 1)[-1]: page for page in pages}


def test_a_folder_of_everything(store: Store, folder: Path) -> None:
    source = FolderSource(name="writing", path=str(folder), exclude=["nothing like this"])
    snapshot = scrape_source(store, source, Scrape(), as_of="2026-11-21")
    states = {name: (row.state, row.reason) for name, row in rows_of(store, snapshot).items()}
    assert states == {
        "blank.txt": ("skipped", "empty"),
        "broken.epub": ("failed", "bad_epub"),
        "copy.html": ("fetched", ""),
        "lighthouse.epub#OEBPS/text/first.xhtml": ("fetched", ""),
        "lighthouse.epub#OEBPS/text/second%20part.xhtml": ("fetched", ""),
        "lines.jsonl#0": ("fetched", ""),
        "lines.jsonl#2": ("fetched", ""),
        "lines.jsonl#3": ("failed", "bad_json"),
        "notes/may%201.md": ("fetched", ""),
        "notes/六月.txt": ("fetched", ""),
        "page.html": ("skipped", "same_content"),
        "photo.png": ("skipped", "unsupported_type"),
        "poems.json#0": ("fetched", ""),
        "poems.json#1": ("fetched", ""),
    }
    pages = pages_of(store, snapshot)
    assert pages["poems.json#1"].title == "A book of rivers · Downstream"
    assert pages["poems.json#1"].body == b"Past the mill,\nout to the sea."
    assert pages["lines.jsonl#2"].title == "Two"
    assert pages["lighthouse.epub#OEBPS/text/first.xhtml"].title == "The Lighthouse"
    assert pages["notes/六月.txt"].body.decode() == "六月无雨。"
    assert pages["copy.html"].content_type == "text/html"
    assert store.manifest(snapshot).counts.seen == 14


def test_a_folder_is_read_again_only_where_it_changed(store: Store, folder: Path, tmp_path: Path) -> None:
    source = FolderSource(name="writing", path=str(folder))
    first = scrape_source(store, source, Scrape(), as_of="2026-11-21")
    assert scrape_source(store, source, Scrape(), as_of="2026-11-21") == first

    moved = folder.rename(tmp_path / "elsewhere")
    source = source.model_copy(update={"path": str(moved)})
    assert scrape_source(store, source, Scrape(), as_of="2026-11-21") == first

    (moved / "notes" / "六月.txt").unlink()
    (moved / "new.txt").write_text("A new note.")
    second = scrape_source(store, source, Scrape(), as_of="2026-11-22", previous=first)
    rows = rows_of(store, second)
    assert list(pages_of(store, second)) == ["new.txt"]
    assert (rows["notes/六月.txt"].state, rows["notes/六月.txt"].reason) == ("gone", "removed")
    assert rows["copy.html"].state == "unchanged"
    assert rows["copy.html"].warc.startswith(first)


def test_include_and_exclude_choose_files(store: Store, folder: Path) -> None:
    source = FolderSource(name="writing", path=str(folder), include=["^notes/"], exclude=["may 1"])
    rows = rows_of(store, scrape_source(store, source, Scrape(), as_of="2026-11-21"))
    assert {name for name, row in rows.items() if row.is_live} == {"notes/六月.txt"}
    assert rows["notes/may%201.md"].reason == "excluded"
    with pytest.raises(RecipeError, match="exclude"):
        scrape_source(store, source.model_copy(update={"exclude": ["["]}), Scrape(), as_of="2026-11-21")


def test_the_limit_of_size_holds_for_files_and_that_of_pages_does_not(store: Store, folder: Path) -> None:
    (folder / "long.txt").write_text("A long sentence. " * 10_000)
    source = FolderSource(name="writing", path=str(folder))
    settings = Scrape(max_page_megabytes=0.1, max_pages=3)
    rows = rows_of(store, scrape_source(store, source, settings, as_of="2026-11-21"))
    assert rows["long.txt"].reason == "too_large"
    assert sum(row.is_live for row in rows.values()) > 3
    assert "page_limit" not in {row.reason for row in rows.values()}


def test_missing_and_empty_folders_say_so(store: Store, tmp_path: Path) -> None:
    source = FolderSource(name="writing", path=str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match=r"source writing: .*nowhere: no such file or folder"):
        scrape_source(store, source, Scrape(), as_of="2026-11-21")
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(SourceEmpty, match="no text in"):
        scrape_source(store, source, Scrape(), as_of="2026-11-21")
    assert store.snapshots() == []


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (["One.", "Two."], [("", "One."), ("", "Two.")]),
        ({"body": "Words.", "name": "N"}, [("N", "Words.")]),
        ({"title": "T", "url": "http://long.example/" * 9}, []),
        ({"title": "T", "summary": "short", "story": "the longest of all"}, [("T", "the longest of all")]),
        ({"content": [["a", "b"], ["c"]]}, [("", "a\nb\nc")]),
        ([{"mine": "yes", "text": "no"}], [("", "yes")]),
        ({"a": {"b": {"title": "deep", "text": "down"}}}, [("deep", "down")]),
        ({"text": "  "}, []),
        (7, []),
    ],
)
def test_texts_are_found_in_json_of_any_shape(value: object, texts: list[tuple[str, str]]) -> None:
    assert list(iter_texts(value, "mine")) == texts


def test_a_web_archive(store: Store, tmp_path: Path) -> None:
    def page(path: str, body: bytes, day: int, status: int = 200, **headers: str) -> Page:
        fields = [("Content-Type", "text/html"), *((name.replace("_", "-"), value) for name, value in headers.items())]
        url = f"http://old.example{path}"
        return Page(url, "", body, f"2020-01-{day:02}T00:00:00Z", http_status=status, http_headers=fields)

    with PageArchive(tmp_path) as archive:
        archive.add(page("/a", HTML, 1))
        archive.add(page("/b?utm_source=x", b"<p>second</p>", 1))
        archive.add(page("/a", b"<p>newer</p>", 2))
        archive.add(page("/c", b"gone", 1, status=404))
        archive.add(page("/d", b"<p>not for machines</p>", 1, X_Robots_Tag="noai"))
        archive.add(page("/e", b"\x89PNG...." + bytes(range(256)) * 9, 1))
    source = WarcSource(name="old", path=str(tmp_path / "pages-00000.warc.gz"))
    snapshot = scrape_source(store, source, Scrape(), as_of="2026-11-21")
    states = {name: (row.state, row.reason) for name, row in rows_of(store, snapshot).items()}
    assert states == {
        "b": ("fetched", ""),
        "a": ("fetched", ""),
        "c": ("skipped", "http_404"),
        "d": ("skipped", "ai_opt_out"),
        "e": ("skipped", "non_html"),
    }
    assert pages_of(store, snapshot)["a"].body == b"<p>newer</p>"
    assert pages_of(store, snapshot)["a"].fetched_at == "2020-01-02T00:00:00Z"

    (tmp_path / "no.warc").write_bytes(b"this is not an archive")
    with pytest.raises(SourceError, match=r"source old: .*no\.warc \(bad_file 1\); it is damaged or not a web archive"):
        scrape_source(store, source.model_copy(update={"path": str(tmp_path / "no.warc")}), Scrape(), as_of="2026")


def test_local_data_sets(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    texts = ["The first row.", "The second row.", ""]
    pq.write_table(pa.table({"story": texts, "title": ["One", "Two", "Three"]}), root / "a.parquet")
    with open(root / "b.csv", "w", newline="") as file:
        csv.writer(file).writerows([["id", "story"], ["1", "A row of a table."], ["2", "Another, with a comma."]])
    (root / "c.jsonl").write_text('{"story": "A row of JSON."}\n')
    (root / "d.bin").write_bytes(b"?")
    source = DatasetSource(name="rows", path=str(root), text_column="story")
    snapshot = scrape_source(store, source, Scrape(), as_of="2026-11-21")
    pages = pages_of(store, snapshot)
    assert {name: page.body.decode() for name, page in pages.items()} == {
        "a.parquet#0": "The first row.",
        "a.parquet#1": "The second row.",
        "b.csv#0": "A row of a table.",
        "b.csv#1": "Another, with a comma.",
        "c.jsonl#0": "A row of JSON.",
    }
    assert pages["a.parquet#1"].title == "Two"
    rows = rows_of(store, snapshot)
    assert (rows["a.parquet#2"].reason, rows["d.bin"].reason) == ("empty", "unsupported_type")

    (root / "a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(SourceError, match=r"a\.parquet cannot be read"):
        scrape_source(store, source, Scrape(), as_of="2026-11-22")


def test_a_hub_that_cannot_be_reached_is_one_line(store: Store, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from prosemill.errors import SourceUnreachable\n"
        "from prosemill.scrape import scrape_source\n"
        "from prosemill.config.settings import Scrape\n"
        "from prosemill.config.sources import DatasetSource, FolderSource, WarcSource\n"
        "from prosemill.storage.store import Store\n"
        "try:\n"
        "    source = DatasetSource(name='hub', path='no/such')\n"
        f"    scrape_source(Store({store.url!r}), source, Scrape(), as_of='2026')\n"
        "except SourceUnreachable as error:\n"
        "    print(error)\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "source hub: data set no/such, default, train cannot be loaded" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1


def test_importing_scrape_stays_light() -> None:
    code = "import sys, prosemill.scrape; print(*{'torch', 'transformers', 'datasets', 'scrapy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_golden_digest(store: Store, folder: Path) -> None:
    snapshot = scrape_source(store, FolderSource(name="w", path=str(folder)), Scrape(), as_of="2026-11-21")
    outcomes = [(name, row.state, row.reason, row.content_sha256) for name, row in rows_of(store, snapshot).items()]
    outcomes += [
        (name, page.title, page.content_type, page.fetched_at) for name, page in pages_of(store, snapshot).items()
    ]
    digest = hashlib.sha256(json.dumps(outcomes).encode()).hexdigest()[:16]
    assert (stages.of("scrape").version, digest) == (1, "cdaeda86b38fb09d"), "output changed: raise the version"
