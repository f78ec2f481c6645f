"""Web archives of others: record boundaries are the archive's, encodings are undone, and a bad record costs itself."""

from __future__ import annotations

import gzip
import io
import uuid
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import brotli
import pyarrow as pa
import pytest
from warcio.archiveiterator import ArchiveIterator as Warcio

from prosemill.config.settings import Scrape
from prosemill.config.sources import WarcSource
from prosemill.scrape.ledger import read_ledger
from prosemill.scrape.stage import scrape_source
from prosemill.storage import http_body
from prosemill.storage.http_body import UndecodableBody, decode
from prosemill.storage.store import Store
from prosemill.storage.warc import Page, PageArchive
from prosemill.storage.warc_reader import BadRecord, iter_pages, iter_records, read_page

HTML = (
    b"<html><head><title>Tides</title></head><body>" + b"<p>The tide comes in twice a day.</p>" * 40 + b"</body></html>"
)


def page_text(name: str) -> bytes:
    return HTML.replace(b"Tides", name.encode())


def record(
    url: str, block: bytes, kind: str = "application/http; msgtype=response", length: int | None = None
) -> bytes:
    """A WARC record; `length` says another length than the block's."""
    stated = len(block) if length is None else length
    head = [
        "WARC/1.0", "WARC-Type: response", f"WARC-Record-ID: <{uuid.uuid5(uuid.NAMESPACE_URL, url).urn}>",
        f"WARC-Target-URI: {url}", "WARC-Date: 2026-01-05T00:00:00Z", f"Content-Type: {kind}",
        f"Content-Length: {stated}",
    ]  # fmt: skip
    return "\r\n".join(head).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def response(body: bytes, *headers: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, "Content-Type: text/html; charset=utf-8", *headers]).encode() + b"\r\n\r\n" + body


def chunked(
    body: bytes, size: int = 100, extension: bytes = b"", end: bytes = b"\r\n", last: bytes = b"0\r\n\r\n"
) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x%s%s%s%s" % (len(part), extension, end, part, end) for part in parts) + last


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def zstd(body: bytes) -> bytes:
    return bytes(pa.compress(body, "zstd", asbytes=True))


GZIP, CHUNKED = "Content-Encoding: gzip", "Transfer-Encoding: chunked"
Make = Callable[[bytes], bytes]
# Each gives the page back, whatever its headers say.
READABLE: dict[str, Make] = {
    "plain": response,
    "gzip within chunked": lambda body: response(chunked(gzip.compress(body)), GZIP, CHUNKED),
    "br within chunked": lambda body: response(chunked(brotli.compress(body)), "Content-Encoding: br", CHUNKED),
    "zstd within chunked": lambda body: response(chunked(zstd(body)), "Content-Encoding: zstd", CHUNKED),
    "br": lambda body: response(brotli.compress(body), "content-encoding: BR"),
    "x-gzip": lambda body: response(gzip.compress(body), "Content-Encoding: x-gzip"),
    "deflate with a header": lambda body: response(zlib.compress(body), "Content-Encoding: deflate"),
    "raw deflate": lambda body: response(raw_deflate(body), "Content-Encoding: deflate"),
    "two codings": lambda body: response(brotli.compress(gzip.compress(body)), "Content-Encoding: gzip, br"),
    "two headers": lambda body: response(brotli.compress(gzip.compress(body)), GZIP, "Content-Encoding: br"),
    "gzip as transfer coding": lambda body: response(chunked(gzip.compress(body)), "Transfer-Encoding: gzip, chunked"),
    "identity and unknown codings": lambda body: response(body, "Content-Encoding: identity, utf-8, none"),
    "members of gzip": lambda body: response(gzip.compress(body[:99]) + gzip.compress(body[99:]), GZIP),
    "garbage after gzip": lambda body: response(gzip.compress(body) + b"<!-- cached -->", GZIP),
    "not gzip": lambda body: response(body, GZIP),
    "not br": lambda body: response(body, "Content-Encoding: br"),
    "not deflate": lambda body: response(body, "Content-Encoding: deflate"),
    "not zstd": lambda body: response(body, "Content-Encoding: zstd"),
    "not chunked": lambda body: response(body, CHUNKED),
    "gzip, no longer chunked": lambda body: response(gzip.compress(body), GZIP, CHUNKED),
    "chunked, no longer gzip": lambda body: response(chunked(body), GZIP, CHUNKED),
    "chunk extensions": lambda body: response(chunked(body, extension=b';name="v;1"'), CHUNKED),
    "chunks that end with LF": lambda body: response(chunked(body, end=b"\n"), CHUNKED),
    "trailers": lambda body: response(chunked(body, last=b"0\r\nExpires: never\r\nX: 1\r\n\r\n"), CHUNKED),
    "no last chunk": lambda body: response(chunked(body, last=b""), CHUNKED),
    "capital digits, blanks": lambda body: response(b"%X  \r\n%s\r\n0\r\n\r\n" % (len(body), body), CHUNKED),
    "lines that end with LF": lambda body: response(body).replace(b"\r\n", b"\n"),
    "HTTP/2": lambda body: response(body, status="HTTP/2 200"),
    "a small http": lambda body: response(body, status="http/1.0 200 fine"),
    "a folded header": lambda body: response(body, "X-Long: one", "  two"),
    "a header without a colon": lambda body: response(body, "nonsense", ": empty", "Set-Cookie: a=\xff"),
    "40 KiB of headers": lambda body: response(body, *(f"X-{number}: {'y' * 1000}" for number in range(40))),
    "gzip called br": lambda body: response(gzip.compress(body), "Content-Encoding: br"),
    "100 Continue": lambda body: b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" + response(body),
    "ICY": lambda body: response(body, status="ICY 200 OK"),
    "a wrong Content-Length": lambda body: response(body, "Content-Length: 7"),
}  # fmt: skip
# Each costs itself, with this reason.
UNREADABLE: dict[str, Make] = {
    "damaged gzip": lambda body: response(gzip.compress(body)[:40] + b"\xff" * 60, GZIP),
    "gzip that ends too soon": lambda body: response(gzip.compress(body)[:-20], GZIP),
    "br that ends too soon": lambda body: response(brotli.compress(body)[:-20], "Content-Encoding: br"),
    "a chunk that ends too soon": lambda body: response(chunked(body)[:-400], CHUNKED),
    "damaged chunks": lambda body: response(chunked(body).replace(b"\r\n64\r\n", b"\r\nzz\r\n", 1), CHUNKED),
    "no status line": lambda body: body,
    "no block": lambda body: b"",
}


def archive(path: Path, items: Sequence[tuple[str, bytes]], packed: bool) -> Path:
    records = [record(url, block) for url, block in items]
    path.write_bytes(b"".join(gzip.compress(record) if packed else record for record in records))
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_no_record_costs_another(tmp_path: Path, packed: bool) -> None:
    makers = [*READABLE.items(), *UNREADABLE.items()]
    items = []
    for number, (name, make) in enumerate(makers):
        items += [
            (f"http://e.example/{number}", make(page_text(name))),
            (f"http://e.example/{number}/ok", READABLE["plain"](HTML)),
        ]
    read = list(iter_records(archive(tmp_path / "a.warc", items, packed)))
    assert [page.url for page in read] == [url for url, _ in items]
    for page, (name, _) in zip(read[::2], makers, strict=True):
        if name in READABLE:
            assert isinstance(page, Page), name
            assert (page.body, page.content_type, page.http_status) == (
                page_text(name),
                "text/html; charset=utf-8",
                200,
            ), name
        else:
            assert isinstance(page, BadRecord), name
            assert (page.reason, bool(page.why)) == ("bad_record", True), name
    assert all(isinstance(page, Page) and page.body == HTML for page in read[1::2])


def warcio_bodies(path: Path) -> list[tuple[str, bytes]]:
    with open(path, "rb") as file:
        return [
            (record.rec_headers.get_header("WARC-Target-URI"), record.content_stream().read())
            for record in Warcio(file)
        ]


def test_ours_reads_what_warcio_reads(tmp_path: Path) -> None:
    """Of what warcio reads: no zstd, no trailers, no codings of codings, and not the br of today's package."""
    known = [
        "plain", "gzip within chunked", "raw deflate", "deflate with a header", "chunk extensions",
        "not gzip", "not chunked", "gzip, no longer chunked", "chunked, no longer gzip",
    ]  # fmt: skip
    items = [(f"http://e.example/{number}", READABLE[name](page_text(name))) for number, name in enumerate(known)]
    path = archive(tmp_path / "a.warc.gz", items, packed=True)
    ours = [(page.url, page.body) for page in iter_records(path) if isinstance(page, Page)]
    assert ours == warcio_bodies(path)


# --- archives that are damaged themselves ----------------------------------------------------------------------------

THREE = [(f"http://e.example/{number}", READABLE["gzip within chunked"](page_text(str(number)))) for number in range(3)]


def outline(path: Path) -> list[str]:
    """A page's URL, a bad record's reason."""
    return [page.reason if isinstance(page, BadRecord) else page.url[-1] for page in iter_records(path)]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("missing", [1, 30, 300, 410])
def test_an_archive_that_is_cut_off_gives_its_whole_pages(tmp_path: Path, packed: bool, missing: int) -> None:
    path = archive(tmp_path / "a.warc", THREE, packed)
    path.write_bytes(path.read_bytes()[: -missing - (0 if packed else 4)])
    assert outline(path) in (["0", "1", "cut_off"], ["0", "1", "2", "cut_off"])
    assert ("2" in outline(path)) == (packed and missing == 1), "a checksum that is cut off costs nothing"


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
def test_damage_in_the_middle_costs_the_record_that_it_hits(tmp_path: Path, packed: bool) -> None:
    records = [record(url, block) for url, block in THREE]
    members = [gzip.compress(record) if packed else record for record in records]
    members[1] = members[1][:9] + b"\xff" * 90 + members[1][99:]
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(members))
    read = outline(path)
    assert (read[0], read[-1]) == ("0", "2")
    assert set(read[1:-1]) == {"bad_file"}


def test_a_length_that_lies_costs_no_later_record(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    blocks = [READABLE["plain"](page_text(str(number))) for number in range(5)]
    lies = [None, len(blocks[1]) - 100, None, len(blocks[3]) + 100, None]
    path.write_bytes(
        b"".join(
            gzip.compress(record(f"http://e.example/{number}", block, length=lie))
            for number, (block, lie) in enumerate(zip(blocks, lies, strict=True))
        )
    )
    assert outline(path) == ["0", "bad_record", "2", "bad_record", "4"]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("kind", ["response", "request"])
def test_a_length_beyond_the_end_of_the_file_costs_no_later_record(tmp_path: Path, packed: bool, kind: str) -> None:
    records = [record(url, block) for url, block in THREE]
    records[1] = record(*THREE[1], length=10_000_000).replace(b"WARC-Type: response", f"WARC-Type: {kind}".encode())
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(gzip.compress(record) if packed else record for record in records))
    assert outline(path) == (["0", "bad_record", "2"] if kind == "response" else ["0", "2"])


def test_what_is_not_an_archive_at_all_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    path.write_bytes(b"this is not an archive")
    with pytest.raises(ValueError, match="WARC header"):
        list(iter_records(path))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="holds no record"):
        list(iter_records(path))


# --- a body alone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pack", "coding"), [(gzip.compress, "gzip"), (zlib.compress, "deflate"), (brotli.compress, "br"), (zstd, "zstd")]
)
def test_a_bomb_is_not_inflated(pack: Make, coding: str) -> None:
    bomb = pack(bytes(50_000_000))
    assert decode(bomb, [], [coding], max_bytes=1000) == bytes(1001)
    assert decode(pack(b""), [], [coding]) == b""
    assert decode(b"", [], [coding]) == b""
    assert decode(pack(bomb), [], [coding, coding], max_bytes=10_000_000)[:10] == bytes(10)


def test_a_text_that_begins_like_a_chunk_is_a_text() -> None:
    for text in (b"beef\nis what it is about", b"10\nten lines follow, and no chunks", b"<p>0</p>", b""):
        assert decode(text, ["chunked"], []) == text


def test_a_body_is_as_long_as_is_asked_for() -> None:
    for body in (b"x" * 999, b"x" * 1000, b"x" * 5000):
        assert len(decode(chunked(body), ["chunked"], [], max_bytes=1000)) == min(len(body), 1001)
    with pytest.raises(UndecodableBody, match="cut off"):
        decode(gzip.compress(HTML)[:30] + b"\xff" * 60, [], ["gzip"])


def test_codings_that_nobody_knows_are_left_alone() -> None:
    assert decode(b"text", ["sdch", "chunked"], ["compress", "aes128gcm;q=1"]) == b"text"
    assert http_body.UNBOUNDED > 1 << 60


# --- our own archives and the stage ----------------------------------------------------------------------------------


def test_a_page_with_many_headers_is_read_back(tmp_path: Path) -> None:
    """40 KiB of them: FastWARC, left to itself, reads 32 KiB and gives up the file."""
    headers = [("Content-Type", "text/html"), *((f"X-{number}", "y" * 1000) for number in range(40))]
    pages = [
        Page(f"http://e.example/{number}", "text/html", page_text(str(number)), "2026-01-05T00:00:00Z",
             http_status=200, http_headers=headers if number == 1 else headers[:1])
        for number in range(3)
    ]  # fmt: skip
    with PageArchive(tmp_path) as written:
        places = [written.add(page) for page in pages]
    path = tmp_path / places[0].file
    assert [page.body for page in iter_pages(path)] == [page.body for page in pages]
    assert [read_page(path, place.offset).url for place in places] == [page.url for page in pages]
    with pytest.raises(ValueError, match="no WARC record at byte"):
        read_page(path, path.stat().st_size)


def test_a_damaged_archive_of_ours_is_refused(tmp_path: Path) -> None:
    with PageArchive(tmp_path) as written:
        for number in range(3):
            written.add(Page(f"http://e.example/{number}", "text/plain", b"words " * 99, "2026-01-05T00:00:00Z"))
    path = tmp_path / "pages-00000.warc.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"pages-00000\.warc\.gz: the record of"):
        list(iter_pages(path))


def rows_of(store: Store, snapshot: str) -> dict[str, tuple[str, str]]:
    rows = read_ledger(store.local(f"{snapshot}/ledger.parquet"))
    return {row.url: (row.state, row.reason) for row in rows}


def test_a_source_of_damaged_archives_is_partial_and_loses_nothing(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    bad = ("http://e.example/bad", UNREADABLE["damaged gzip"](HTML))
    whole = archive(folder / "one.warc.gz", [*THREE, bad], packed=True)
    (folder / "README.txt").write_text("What is in these files.")
    source = WarcSource(name="old", path=str(folder))
    first = scrape_source(store, source, Scrape(), as_of="2026-01-05")
    live = dict.fromkeys((url for url, _ in THREE), ("fetched", ""))
    others = {
        "http://e.example/bad": ("failed", "bad_record"),
        "warc://old/README.txt#byte-0": ("skipped", "unsupported_type"),
    }
    assert rows_of(store, first) == live | others
    assert not store.manifest(first).partial, "all of it was read"
    assert store.manifest(first).counts.dropped == {"bad_record": 1, "unsupported_type": 1}

    whole.write_bytes(whole.read_bytes()[:-200])
    (folder / "two.warc.gz").write_bytes(b"damaged beyond reading")
    second = scrape_source(store, source, Scrape(), as_of="2026-01-06", previous=first)
    manifest = store.manifest(second)
    assert manifest.partial
    assert manifest.counts.dropped == {"bad_file": 1, "cut_off": 1, "unsupported_type": 1}
    kept = {url: state for url, (state, _) in rows_of(store, second).items() if state == "unchanged"}
    assert set(kept) == set(live)


def test_the_cut_off_record_of_a_page_that_is_there_is_named_by_its_place(store: Store, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.warc", [THREE[0], THREE[0]], packed=False)
    second = path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:-200])
    snapshot = scrape_source(store, WarcSource(name="old", path=str(path)), Scrape(), as_of="2026-01-05")
    assert rows_of(store, snapshot) == {
        THREE[0][0]: ("fetched", ""), f"warc://old/a.warc#byte-{second}": ("failed", "cut_off"),
    }  # fmt: skip
    assert store.manifest(snapshot).partial


def test_warcio_agrees_about_our_archives(tmp_path: Path) -> None:
    with PageArchive(tmp_path) as written:
        for name in READABLE:
            page = Page(
                f"http://e.example/{len(name)}", "text/html", page_text(name), "2026-01-05T00:00:00Z", http_status=200
            )
            written.add(page)
    path = tmp_path / "pages-00000.warc.gz"
    assert warcio_bodies(path) == [(page.url, page.body) for page in iter_pages(path)]
    with gzip.open(io.BytesIO(path.read_bytes())) as file:
        assert file.read(8) == b"WARC/1.1"
