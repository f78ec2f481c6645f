"""From what Scrapy hands over to an Answer: encodings undone within bounds, content sniffed, failures named."""

from __future__ import annotations

import hashlib
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from prosemill.scrape.entries import Answer
from prosemill.storage.times import moment

ACCEPT_ENCODING = "gzip, deflate"  # only what inflate() can bound
MAX_LAYERS = 2  # gzip within gzip happens; more is an attack
_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/plain", "text/markdown"})
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_MAGIC = (
    b"%PDF",
    b"\x89PNG",
    b"GIF8",
    b"\xff\xd8\xff",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"RIFF",
    b"\x7fELF",
    b"ID3",
    b"OggS",
)


class UnusableBody(Exception):
    """A body that is not a page; `str()` is the reason for the ledger."""


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def is_page_type(content_type: str) -> bool:
    """A missing type counts as a page's until the body is seen."""
    return not content_type.strip() or media_type(content_type) in _PAGE_TYPES


def is_html(content_type: str, body: bytes) -> bool:
    kind = media_type(content_type)
    return kind in _HTML_TYPES or (not kind and b"<" in body[:512])


def inflate(body: bytes, encodings: list[str], limit: int) -> bytes:
    """Undo content encodings; at most `limit` bytes come out. UnusableBody: too_large, truncated or bad_encoding.

    A body that says gzip but is plain is taken as it is, as browsers of old did.
    """
    if len(encodings) > MAX_LAYERS:
        raise UnusableBody("bad_encoding")
    for encoding in reversed(encodings):
        if encoding in ("gzip", "x-gzip"):
            body = _inflate(body, 31, limit) if body[:2] == b"\x1f\x8b" else body
        elif encoding == "deflate":
            zlib_header = body[:1] == b"\x78" and int.from_bytes(body[:2], "big") % 31 == 0
            body = _inflate(body, 15 if zlib_header else -15, limit)
        elif encoding not in ("", "identity"):
            raise UnusableBody("bad_encoding")
    return body


def _inflate(body: bytes, window_bits: int, limit: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    try:
        out = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise UnusableBody("bad_encoding") from error
    if len(out) > limit:
        raise UnusableBody("too_large")
    if not inflater.eof:
        raise UnusableBody("truncated")
    return out  # bytes after the stream are ignored


def check_page(content_type: str, body: bytes) -> None:
    """UnusableBody `empty` or `non_html` for what is not a page, whatever the server calls it."""
    if not body.strip():
        raise UnusableBody("empty")
    head = body[:1024]
    wide = (
        "utf-16" in content_type.lower() or "utf-32" in content_type.lower() or head[:2] in (b"\xff\xfe", b"\xfe\xff")
    )
    if not is_page_type(content_type) or head.startswith(_MAGIC) or (head.count(b"\0") > 8 and not wide):
        raise UnusableBody("non_html")


def failure_reason(error: BaseException) -> str:
    """One word of the ledger for what Scrapy, Twisted or the resolver raised."""
    name, text = type(error).__name__, repr(error)
    if name == "DownloadTimeoutError" or "TimeoutError" in text or "User timeout" in text:
        return "timeout"
    if "SSL" in text or "certificate" in text.lower() or "VerificationError" in text:
        return "tls_error"
    by_name = {
        "DownloadConnectionRefusedError": "connection_refused",
        "CannotResolveHostError": "dns_error",
        "DownloadCancelledError": "too_large",
        "ResponseDataLossError": "truncated",
    }
    return by_name.get(name, "connection_lost")


def retry_after(value: str, now: datetime) -> float | None:
    """Seconds of a Retry-After header (a number or a date), never negative; None when it cannot be read."""
    value = value.strip()
    if value.isdigit():
        return float(value[:12])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def without_body(reason: str, status: int = 0, **fields: str) -> Answer:
    return Answer(reason, status=status, fetched_at=moment(), **fields)  # type: ignore[arg-type]


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
