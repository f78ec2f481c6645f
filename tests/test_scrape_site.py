"""Crawls of real servers on threads, hostile ones among them. A child process costs a second or two, so that many cases
share one site and one crawl."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from prosemill.config.settings import Scrape
from prosemill.config.sources import SiteSource, UrlsSource
from prosemill.errors import CrawlerDied, RecipeError, SourceEmpty, SourceUnreachable
from prosemill.runtime import progress
from prosemill.scrape import scrape_source
from prosemill.scrape.ledger import LedgerRow, read_ledger
from prosemill.storage import stages
from prosemill.storage.store import Store
from prosemill.storage.warc_reader import iter_pages, read_page

Answer = Callable[[BaseHTTPRequestHandler], None]
SETTINGS = Scrape(
    user_agent="prosemill-test/1.0 (+https://prosemill.example)",
    delay_seconds=0,
    timeout_seconds=0.6,
    max_page_megabytes=0.05,
    allow_private_addresses=True,
)


@dataclass
class Site:
    """A server on a thread: what it serves by path, and what it was asked for."""

    pages: dict[str, bytes | Answer] = field(default_factory=dict)
    requests: list[tuple[str, float]] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    is_dead: bool = False  # hangs up on everybody, and nobody listens any more
    in_flight: int = 0
    most_in_flight: int = 0
    url: str = ""

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def forget(self) -> None:
        self.requests.clear()
        self.bodies.clear()


@contextmanager
def serve(site: Site, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    lock = threading.Lock()

    class SiteHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with lock:
                site.requests.append((self.path, time.monotonic()))
                site.in_flight += 1
                site.most_in_flight = max(site.most_in_flight, site.in_flight)
            try:
                if site.is_dead:
                    server.socket.close()
                    raise ConnectionResetError
                answer = site.pages.get(self.path)
                if answer is None:
                    send(self, b"nothing here", status=404)
                elif callable(answer):
                    answer(self)
                else:
                    send_page(self, answer, site)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with lock:
                    site.in_flight -= 1

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), SiteHandler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site.url = f"{'https' if tls else 'http'}://{host}:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    headers = {"Content_Type": "text/html; charset=utf-8", "Content_Length": str(len(body)), **headers}
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def send_page(handler: BaseHTTPRequestHandler, body: bytes, site: Site) -> None:
    """With an ETag, as a good server does; the body only when it changed."""
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    if handler.headers.get("If-None-Match") == etag:
        handler.send_response(304)
        handler.send_header("ETag", etag)
        handler.end_headers()
        return
    site.bodies.append(handler.path)
    kind = "text/plain" if handler.path.endswith(".txt") else "text/html; charset=utf-8"
    send(handler, body, ETag=etag, Content_Type=kind)


def page(title: str, *links: str, head: str = "") -> bytes:
    anchors = "".join(f'<a href="{link}">{link}</a> ' for link in links)
    text = f"<p>This page is about {title}, and it says a little more than its title.</p>"
    return f"<html><head><title>{title}</title>{head}</head><body>{text}{anchors}</body></html>".encode()


def redirect(to: str) -> Answer:
    return lambda handler: send(handler, b"", status=302, Location=to)


def with_headers(body: bytes, status: int = 200, **headers: str) -> Answer:
    return lambda handler: send(handler, body, status=status, **headers)


def rows_of(store: Store, snapshot: str) -> dict[str, LedgerRow]:
    return {row.url: row for row in read_ledger(store.local(f"{snapshot}/ledger.parquet"))}


def by_path(store: Store, snapshot: str, site: Site) -> dict[str, LedgerRow]:
    return {url.removeprefix(site.url): row for url, row in rows_of(store, snapshot).items()}


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    for _ in range(1000):
        handler.wfile.write(b"<p>again and again</p>" * 100)


def half(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b"<p>the first half of")
    handler.close_connection = True


def sleepy(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.2)
    send(handler, page("sleep"))


class Twice:
    """429 with Retry-After 0 the first time, the page after that."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        self.calls += 1
        if self.calls == 1:
            send(handler, b"not so fast", status=429, Retry_After="0")
        else:
            send(handler, page("patience"))


# --- one hostile site, one crawl -------------------------------------------------------------------------------------

ROBOTS = b"""\xef\xbb\xbfUser-agent: *
Disallow: /private/
Allow: /private/open

User-agent: GPTBot
User-agent: CCBot
Disallow: /words/
"""
GOOD = page("good things", "/", "/good/2#part")
LINKS = [
    "/good/1",
    "/good/1?utm_source=mail#top",
    "GOOD/../good/2",
    "/private/secret",
    "/private/open",
    "/words/poem",
    "/noai",
    "/noai-header",
    "/noindex",
    "/reserved/1",
    "/reserved-meta",
    "/loop-a",
    "/hop",
    "/away",
    "/missing",
    "/gone",
    "/error",
    "/photo.jpg",
    "/film",
    "/pdf",
    "/empty",
    "/big",
    "/endless",
    "/bomb",
    "/half",
    "/sleepy",
    "/copy-of-good",
    "/print/2",
    "/list?page=2",
    "/a/a/a/",
    "/later",
    "/soon",
    "/notes.txt",
    "/zipped",
    "/deep/1",
    "mailto:nobody@site.example",
    "ftp://files.example/x",
    "http://elsewhere.example/",
    "http://[broken",
]
CASES = {
    "/": ("fetched", ""),
    "/good/1": ("fetched", ""),
    "/good/2": ("fetched", ""),
    "/private/secret": ("skipped", "robots_disallowed"),
    "/private/open": ("fetched", ""),
    "/words/poem": ("skipped", "ai_opt_out"),
    "/noai": ("skipped", "ai_opt_out"),
    "/noai-header": ("skipped", "ai_opt_out"),
    "/noindex": ("skipped", "noindex"),
    "/reserved/1": ("skipped", "ai_opt_out"),
    "/reserved-meta": ("skipped", "ai_opt_out"),
    "/loop-a": ("failed", "redirect_limit"),
    "/loop-b": ("failed", "redirect_limit"),
    "/hop": ("skipped", "redirected"),
    "/landed": ("fetched", ""),
    "/away": ("skipped", "out_of_scope"),
    "/missing": ("failed", "http_404"),
    "/gone": ("gone", "http_410"),
    "/error": ("failed", "http_500"),
    "/photo.jpg": ("skipped", "non_html"),
    "/film": ("skipped", "non_html"),
    "/pdf": ("skipped", "non_html"),
    "/empty": ("skipped", "empty"),
    "/big": ("skipped", "too_large"),
    "/endless": ("skipped", "too_large"),
    "/bomb": ("skipped", "too_large"),
    "/half": ("failed", "truncated"),
    "/sleepy": ("failed", "timeout"),
    "/copy-of-good": ("skipped", "same_content"),
    "/print/2": ("skipped", "same_content"),
    "/list?page=2": ("skipped", "query_string"),
    "/a/a/a/": ("skipped", "trap"),
    "/later": ("failed", "deferred"),
    "/soon": ("fetched", ""),
    "/notes.txt": ("fetched", ""),
    "/zipped": ("fetched", ""),
    "/deep/1": ("fetched", ""),
    "/deep/2": ("fetched", ""),
    "/deep/3": ("skipped", "depth_limit"),
    "http://elsewhere.example/": ("skipped", "out_of_scope"),
}


def hostile_site() -> Site:
    site = Site()
    site.pages = {
        "/robots.txt": with_headers(ROBOTS, Content_Type="text/plain"),
        "/.well-known/tdmrep.json": with_headers(
            json.dumps([{"location": "/reserved/*", "tdm-reservation": 1}]).encode(), Content_Type="application/json"
        ),
        "/": page("the front", *LINKS),
        "/good/1": GOOD,
        "/good/2": page("better things"),
        "/private/secret": page("a secret"),
        "/private/open": page("an open secret"),
        "/words/poem": page("a poem"),
        "/noai": page("people only", head='<meta name="robots" content="noai, noimageai">'),
        "/noai-header": with_headers(page("people only, too"), X_Robots_Tag="noai"),
        "/noindex": page("a list", head='<meta name="ROBOTS" content="noindex">'),
        "/reserved/1": page("reserved words"),
        "/reserved-meta": page("more reserved words", head='<meta name="tdm-reservation" content="1">'),
        "/loop-a": redirect("/loop-b"),
        "/loop-b": redirect("/loop-a"),
        "/hop": redirect("/landed"),
        "/landed": page("the landing"),
        "/away": redirect("http://elsewhere.example/page"),
        "/gone": with_headers(b"gone", status=410),
        "/error": with_headers(b"oh", status=500),
        "/film": with_headers(b"\0" * 2000, Content_Type="video/mp4"),
        "/pdf": with_headers(b"%PDF-1.7 and so on"),
        "/empty": with_headers(b"  \n"),
        "/big": with_headers(b"<p>long</p>" * 20_000),
        "/endless": endless,
        "/bomb": with_headers(gzip.compress(b"<p>boom</p>" * 200_000), Content_Encoding="gzip"),
        "/half": half,
        "/sleepy": sleepy,
        "/copy-of-good": GOOD,
        "/print/2": page("better things, for printing", head='<link rel="canonical" href="/good/2">'),
        "/later": with_headers(b"busy", status=503, Retry_After="99999999"),
        "/soon": Twice(),
        "/notes.txt": b"These are plain notes.",
        "/zipped": with_headers(gzip.compress(page("compression")), Content_Encoding="gzip"),
        "/deep/1": page("depth", "2"),
        "/deep/2": page("more depth", "3"),
    }
    return site


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Site, str, list[int]]]:
    store = Store(str(tmp_path_factory.mktemp("hostile") / "store"))
    store.check_writable()
    seen: list[int] = []
    progress.listen(lambda what, done, total: seen.append(done))
    with serve(hostile_site()) as site:
        source = SiteSource(name="hostile", urls=[site.url])
        settings = SETTINGS.model_copy(update={"max_depth": 2})
        snapshot = scrape_source(store, source, settings, as_of="2026-11-21")
        progress.listen(None)
        yield store, site, snapshot, seen


def test_every_hostile_case_ends_in_its_state(hostile: tuple[Store, Site, str, list[int]]) -> None:
    store, site, snapshot, _ = hostile
    states = {path: (row.state, row.reason) for path, row in by_path(store, snapshot, site).items()}
    assert states == CASES


def test_nothing_disallowed_is_asked_for(hostile: tuple[Store, Site, str, list[int]]) -> None:
    _, site, _, _ = hostile
    assert "/robots.txt" in site.paths()
    for path in ("/private/secret", "/words/poem", "/photo.jpg", "/list?page=2", "/a/a/a/", "/deep/3"):
        assert path not in site.paths()
    assert site.paths().count("/good/1") == 1
    assert site.paths().count("/error") == 3


def test_one_request_in_flight(hostile: tuple[Store, Site, str, list[int]]) -> None:
    _, site, _, _ = hostile
    assert site.most_in_flight <= 2  # /sleepy goes on after we hung up; nothing else does


def test_opt_outs_are_recorded_once_and_by_name(hostile: tuple[Store, Site, str, list[int]]) -> None:
    store, site, snapshot, _ = hostile
    rows = by_path(store, snapshot, site)
    opt_outs = {path: row.opt_out for path, row in rows.items() if row.opt_out}
    assert opt_outs == {
        "/words/poem": "robots:GPTBot",
        "/noai": "meta:noai",
        "/noai-header": "header:noai",
        "/noindex": "meta:noindex",
        "/reserved/1": "tdmrep",
        "/reserved-meta": "tdmrep",
    }


def test_pages_are_kept_as_received_at_their_offset(hostile: tuple[Store, Site, str, list[int]]) -> None:
    store, site, snapshot, _ = hostile
    rows = rows_of(store, snapshot)
    kept = {row.url for row in rows.values() if row.state == "fetched"}
    stored = [p for shard in store.manifest(snapshot).shards_of("pages") for p in iter_pages(store.local(shard.path))]
    assert {p.url for p in stored} == kept
    for row in rows.values():
        if row.state == "fetched":
            at_offset = read_page(store.local(row.warc), row.warc_offset)
            assert (at_offset.url, at_offset.content_sha256) == (row.url, row.content_sha256)
    zipped = rows[f"{site.url}/zipped"]
    assert read_page(store.local(zipped.warc), zipped.warc_offset).body == page("compression")
    assert rows[f"{site.url}/copy-of-good"].redirected_to == f"{site.url}/good/1"
    assert rows[f"{site.url}/print/2"].redirected_to == f"{site.url}/good/2"


def test_counts_add_up_and_progress_is_told(hostile: tuple[Store, Site, str, list[int]]) -> None:
    store, _, snapshot, seen = hostile
    manifest = store.manifest(snapshot)
    assert manifest.counts.seen == len(CASES)
    assert manifest.counts.kept == sum(state == "fetched" for state, _ in CASES.values())
    assert manifest.counts.dropped["ai_opt_out"] == 5
    assert manifest.partial  # /sleepy and /later may be there tomorrow
    assert seen == sorted(seen)
    assert seen


# --- the second run ------------------------------------------------------------------------------------------------


def library(num_pages: int = 12) -> Site:
    site = Site()
    links = [f"/book/{number}" for number in range(num_pages)]
    site.pages = {"/": page("the library", *links), "/copy": page("book 3")}
    site.pages |= {link: page(f"book {number}", "/copy") for number, link in enumerate(links)}
    return site


def test_second_crawl_downloads_only_what_changed(store: Store) -> None:
    with serve(library()) as site:
        source = SiteSource(name="library", urls=[f"{site.url}/"])
        first = scrape_source(store, source, SETTINGS, as_of="2026-11-21")
        order = [row.url for row in rows_of(store, first).values()]
        again = Store(store.url + "-again")
        again.check_writable()
        assert [
            r.url for r in rows_of(again, scrape_source(again, source, SETTINGS, as_of="2026-11-21")).values()
        ] == order

        site.forget()
        second = scrape_source(store, source, SETTINGS, as_of="2026-11-22", previous=first)
        assert site.bodies == []
        assert [row.url for row in rows_of(store, second).values()] == order
        rows = by_path(store, second, site)
        assert {row.state for row in rows.values()} == {"unchanged"}
        assert all(row.warc.startswith(first) for row in rows.values())
        assert store.manifest(second).shards_of("pages") == []
        assert store.manifest(second).parents == [first]

        site.forget()
        site.pages["/book/5"] = page("book 5, second edition", "/copy", "/book/new")
        site.pages["/book/new"] = page("a new book")
        site.pages["/"] = page("the library", *[f"/book/{n}" for n in range(1, 12)])  # book 0 is linked no more
        site.pages["/book/7"] = with_headers(b"gone", status=410)
        site.pages["/book/8"] = with_headers(b"broken today", status=503)
        del site.pages["/book/9"]
        third = scrape_source(store, source, SETTINGS, as_of="2026-11-23", previous=second)
        assert sorted(site.bodies) == ["/", "/book/5", "/book/new"]
        rows = by_path(store, third, site)
        assert (rows["/book/0"].state, rows["/book/0"].warc[: len(first)]) == ("unchanged", first)
        assert (rows["/book/5"].state, rows["/book/new"].state) == ("fetched", "fetched")
        assert (rows["/book/7"].state, rows["/book/7"].reason) == ("gone", "http_410")
        assert (rows["/book/8"].state, rows["/book/8"].reason, rows["/book/8"].warc[: len(first)]) == (
            "unchanged",
            "http_503",
            first,
        )
        assert (rows["/book/9"].state, rows["/book/9"].reason) == ("failed", "http_404")
        assert store.manifest(third).partial


def test_a_site_that_is_down_loses_nothing_and_one_never_seen_is_an_error(store: Store) -> None:
    with serve(library(6)) as site:
        source = SiteSource(name="library", urls=[f"{site.url}/"])
        first = scrape_source(store, source, SETTINGS, as_of="2026-11-21")
    second = scrape_source(store, source, SETTINGS, as_of="2026-11-22", previous=first)
    assert store.manifest(second).partial
    assert store.manifest(second).counts.kept == store.manifest(first).counts.kept
    with pytest.raises(SourceUnreachable, match=r"source library: http://127.*refused.*run the same command again"):
        scrape_source(store, source, SETTINGS, as_of="2026-11-22")


def test_a_site_that_dies_half_way_gives_a_partial_snapshot(store: Store) -> None:
    site = library(40)

    def last_words(handler: BaseHTTPRequestHandler) -> None:
        send(handler, page("last words"))
        site.is_dead = True

    site.pages["/book/4"] = last_words
    with serve(site):
        snapshot = scrape_source(store, SiteSource(name="library", urls=[f"{site.url}/"]), SETTINGS, as_of="2026-11-21")
        num_requests = len(site.requests)
    rows = by_path(store, snapshot, site)
    assert store.manifest(snapshot).partial
    assert [path for path, row in rows.items() if row.is_live] == ["/", *(f"/book/{number}" for number in range(5))]
    assert rows["/book/39"].reason == "host_down"
    assert num_requests < 20  # and then it was left alone


# --- robots, delays, scope -------------------------------------------------------------------------------------------


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, datetime(2020, 1, 1), datetime(2040, 1, 1))
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def test_each_host_has_its_own_rules_and_troubles(store: Store, tmp_path: Path) -> None:
    slow, broken, untrusted = Site(), Site(), Site()
    slow.pages = {
        "/robots.txt": with_headers(b"User-agent: prosemill-test\nCrawl-delay: 0.3\n", Content_Type="text/plain"),
        "/": page("slowness", "/1", "/2"),
        "/1": page("one"),
        "/2": page("two"),
    }
    broken.pages = {"/robots.txt": with_headers(b"oh", status=500), "/": page("nothing")}
    with serve(slow, "localhost"), serve(broken), serve(untrusted, tls=self_signed(tmp_path)):
        source = SiteSource(name="hosts", urls=[f"{slow.url}/", f"{broken.url}/", f"{untrusted.url}/"])
        snapshot = scrape_source(store, source, SETTINGS, as_of="2026-11-21")
    times = [at for path, at in slow.requests if path in ("/", "/1", "/2")]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) == 2
    assert min(gaps) >= 0.3
    rows = rows_of(store, snapshot)
    assert rows[f"{broken.url}/"].reason == "robots_unavailable"
    assert rows[f"{untrusted.url}/"].reason == "tls_error"
    assert "/" not in broken.paths()
    assert store.manifest(snapshot).partial


def test_urls_reads_just_these_and_page_limit_is_told(store: Store, tmp_path: Path) -> None:
    with serve(library()) as site:
        listed = tmp_path / "urls.txt"
        listed.write_text(f"# books\n{site.url}/book/1\n{site.url}/book/2\n\n{site.url}/book/3\n")
        source = UrlsSource(name="list", urls=[f"{site.url}/"], path=str(listed), exclude=["/book/1$"])
        snapshot = scrape_source(store, source, SETTINGS.model_copy(update={"max_pages": 2}), as_of="2026-11-21")
        rows = by_path(store, snapshot, site)
    assert {path: (row.state, row.reason) for path, row in rows.items()} == {
        "/": ("fetched", ""),
        "/book/1": ("skipped", "excluded"),
        "/book/2": ("fetched", ""),
        "/book/3": ("skipped", "page_limit"),
    }


def test_private_addresses_are_refused_also_by_name(store: Store) -> None:
    with serve(library()) as site:
        port = site.url.rsplit(":", 1)[1]
        for address in (site.url, f"http://127.1:{port}/"):  # the second one only resolves to loopback
            with pytest.raises(SourceEmpty, match="allow_private_addresses"):
                scrape_source(
                    store, SiteSource(name="inside", urls=[address]), Scrape(delay_seconds=0), as_of="2026-11-21"
                )
        assert site.requests == []


def test_a_wrong_pattern_is_refused_before_any_work(store: Store) -> None:
    with pytest.raises(RecipeError, match=r"source site: include '\('"):
        scrape_source(
            store, SiteSource(name="site", urls=["http://x.example"], include=["("]), Scrape(), as_of="2026-11-21"
        )


# --- the child -------------------------------------------------------------------------------------------------------


def test_a_killed_child_is_one_clear_error_and_leaves_nothing(store: Store) -> None:
    def kill(what: str, done: int, total: int | None) -> None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if parent == str(os.getpid()) and b"prosemill.scrape.child" in command:
                    os.kill(int(entry.name), signal.SIGKILL)

    progress.listen(kill)
    try:
        with serve(library()) as site:
            source = SiteSource(name="library", urls=[site.url])
            settings = SETTINGS.model_copy(update={"delay_seconds": 0.2})
            with pytest.raises(CrawlerDied, match=r"source library: .*ended with SIGKILL.*crawl\.log"):
                scrape_source(store, source, settings, as_of="2026-11-21")
    finally:
        progress.listen(None)
    assert store.snapshots() == []
    assert list(Path(store.root, "tmp").iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_child_dies_with_its_parent(store: Store, how: signal.Signals) -> None:
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job of a shell ignores it
        "from prosemill.scrape import scrape_source\n"
        "from prosemill.config.settings import Scrape\n"
        "from prosemill.config.sources import SiteSource, UrlsSource\n"
        "from prosemill.storage.store import Store\n"
        "settings = Scrape(delay_seconds=0.1, allow_private_addresses=True)\n"
        "scrape_source(Store({store!r}), SiteSource(name='s', urls=[{url!r}]), settings, as_of='2026')\n"
    )
    with serve(library(200)) as site:
        program = code.format(store=store.url, url=site.url)
        environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
        parent = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
        wait_until(lambda: len(site.requests) >= 5)
        parent.send_signal(how)
        assert parent.wait(timeout=10) != 0
        time.sleep(0.2)
        num_requests = len(site.requests)
        time.sleep(0.5)
        assert len(site.requests) == num_requests
    assert store.snapshots() == []


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_time_limit_ends_even_a_long_pause(store: Store) -> None:
    site = library()
    site.pages["/robots.txt"] = with_headers(b"User-agent: *\nCrawl-delay: 500\n", Content_Type="text/plain")
    with serve(site):
        settings = SETTINGS.model_copy(update={"max_minutes": 2 / 60, "obey_opt_outs": False})
        source = UrlsSource(name="patient", urls=[f"{site.url}/book/1", f"{site.url}/book/2"])
        with pytest.raises(SourceEmpty, match="time_limit 2"):
            scrape_source(store, source, settings, as_of="2026-11-21")
        assert site.paths() == ["/robots.txt"]


def test_golden_digest(hostile: tuple[Store, Site, str, list[int]]) -> None:
    store, site, snapshot, _ = hostile
    outcomes = [
        (row.url.removeprefix(site.url), row.state, row.reason, row.http_status, row.content_sha256, row.opt_out)
        for row in rows_of(store, snapshot).values()
    ]
    digest = hashlib.sha256(json.dumps(outcomes).encode()).hexdigest()[:16]
    assert (stages.of("scrape").version, digest) == (1, "95f07935435c7e1c"), "output changed: raise the version"
