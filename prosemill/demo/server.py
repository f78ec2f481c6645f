"""A small real web server for a rendered site: ETag, Last-Modified, 304, HEAD, redirects, sitemap, endless calendar.

It remembers what it was asked, so that a test can see which requests a crawler really made.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import hashlib
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from prosemill.demo.layout import DemoSite, SitePage, load_site
from prosemill.errors import DemoError

HOST = "127.0.0.1"
DEFAULT_PORT = 8423  # fixed, because URLs name documents: on another port every page is another document
NOT_FOUND = "/404.html"


class DemoServer:
    """What is being served, and what was asked for."""

    def __init__(self, folder: Path, port: int) -> None:
        self.requests: list[tuple[str, int]] = []  # (path with query, status), in order of arrival
        self.reload(folder)
        self._http = _bind(self, port)
        self.port = int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def reload(self, folder: Path) -> None:
        """From now on, serve the site that `folder` holds: the demo's next week."""
        site = load_site(folder)
        self._bodies = {page.path: site.body(page.path) for page in site.pages if page.file}
        self.site = site
        self._pages = {page.path: page for page in site.pages}

    def answer(self, target: str) -> tuple[SitePage, bytes]:
        """The page and body for a request target (path and query)."""
        path, query = urlsplit(target).path, urlsplit(target).query
        path = path if path in self._pages or not path.endswith("/") else f"{path}index.html"
        if path == "/sitemap.xml":
            return SitePage(path, content_type="application/xml", last_modified=self.site.as_of), self._sitemap()
        page = self._pages.get(path, self._pages.get(NOT_FOUND, SitePage(NOT_FOUND, status=404)))
        body = self._bodies.get(page.path, b"")
        if path == "/robots.txt":
            body = body.replace(b"{origin}", self.url.encode())
        if path == "/calendar.html":
            body = _turn_calendar(body, query)
        return page, body

    def _sitemap(self) -> bytes:
        return sitemap(self.site, self.url).encode()

    def _run(self) -> None:
        self._http.serve_forever(poll_interval=0.05)

    def _stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextlib.contextmanager
def serve(folder: Path, port: int = DEFAULT_PORT) -> Iterator[DemoServer]:
    """Serve a rendered site on 127.0.0.1 until the block ends; port 0 takes any free one. DemoError if taken."""
    server = DemoServer(folder, port)
    thread = threading.Thread(target=server._run, name="demo-site", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server._stop()
        thread.join()


def sitemap(site: DemoSite, origin: str) -> str:
    """sitemap.xml of the pages that ask to be found."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">']
    for page in site.pages:
        if page.listed and page.status == HTTPStatus.OK:
            location = escape(origin + page.path)
            lines.append(f"<url><loc>{location}</loc><lastmod>{page.last_modified}</lastmod></url>")
    return "\n".join([*lines, "</urlset>", ""])


def _bind(site: DemoServer, port: int) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"site": site})
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except (OSError, OverflowError) as error:
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        what = "the port is in use; stop the program that has it" if taken else str(error)
        raise DemoError(f"cannot serve the demo site on {HOST}:{port}: {what}, or pass another with --port") from None


class _Handler(BaseHTTPRequestHandler):
    """One connection. Answers are small: they leave in one packet, so that keep-alive never waits for a delayed ACK."""

    site: DemoServer
    protocol_version = "HTTP/1.1"
    server_version = "prosemill-demo"
    sys_version = ""
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = 30

    def do_GET(self) -> None:
        page, body = self.site.answer(self.path)
        tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        known = page.status == HTTPStatus.OK and self._is_known(tag, page.last_modified)
        status = int(HTTPStatus.NOT_MODIFIED) if known else page.status
        self.site.requests.append((self.path, status))
        self.send_response(status)
        if page.status == HTTPStatus.OK:
            self.send_header("ETag", tag)
            self.send_header("Last-Modified", _http_date(page.last_modified))
        for name, value in page.headers.items():
            self.send_header(name, value)
        if not known:
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not known and self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _is_known(self, tag: str, last_modified: str) -> bool:
        """RFC 9110, 13.2.2: If-None-Match decides; If-Modified-Since only where there is none."""
        if (tags := self.headers.get("If-None-Match")) is not None:
            return tags.strip() == "*" or tag in re.findall(r'"[^"]*"', tags)
        since = self.headers.get("If-Modified-Since", "")
        try:
            return bool(since) and email.utils.parsedate_to_datetime(since) >= _moment(last_modified)
        except (ValueError, TypeError):  # a date that is none is ignored, as the RFC says
            return False

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the screen: `DemoServer.requests` has it."""


def _moment(day: str) -> datetime:
    """06:00 UTC of the demo's own Monday: never the clock, so that a second run finds the same answers."""
    return datetime.fromisoformat(f"{day}T06:00:00").replace(tzinfo=UTC)


def _http_date(day: str) -> str:
    return email.utils.format_datetime(_moment(day), usegmt=True)


def _turn_calendar(body: bytes, query: str) -> bytes:
    """The calendar of the month (or day) that is asked for; there is always a next one."""
    fields = parse_qs(query)
    date = (fields.get("month") or fields.get("day") or [""])[0]
    year, month = map(int, date.split("-")[:2]) if re.match(r"\d{4}-\d\d", date) else (1790, 1)
    count = year * 12 + month - 1
    for token, shift in ((b"@MONTH@", 0), (b"@BEFORE@", -1), (b"@AFTER@", 1)):
        body = body.replace(token, b"%04d-%02d" % ((count + shift) // 12, (count + shift) % 12 + 1))
    return body
