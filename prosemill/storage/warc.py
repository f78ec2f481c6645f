"""Pages on disk: gzipped WARC 1.1 files, one gzip member a record, so that one page can be read at its offset.

`scrape` writes them, `strip` reads them (`warc_reader`). A page from the web is a `response` record (status line,
headers, body), one from a folder or data set a `resource` record (body only). Bodies are kept as the server meant them:
transfer and content encodings are undone and their headers left out, the bytes of the text are not touched.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from fastwarc.warc import WarcRecord, WarcRecordType

MAX_PAGES = 128  # a file: a shard is some ten seconds of work for strip …
MAX_BYTES = 32 << 20  # … and small enough to read whole
TITLE_HEADER = "Prosemill-Title"  # a title that the source states beside the text (a column of a data set)
_DROPPED_HEADERS = frozenset({"content-encoding", "transfer-encoding", "content-length"})  # no longer true of the body
Header = tuple[str, str]


@dataclass(frozen=True)
class Page:
    """Bytes as fetched from one URL. `title` is "" unless the source states one beside the text."""

    url: str
    content_type: str  # as sent, with parameters: "text/html; charset=gbk"
    body: bytes
    fetched_at: str  # ISO 8601, UTC
    content_sha256: str = ""  # of `body`; computed where left out
    source: str = ""  # only known to who wrote it, not kept in the record
    title: str = ""
    http_status: int = 0  # 0: not from the web
    http_headers: Sequence[Header] = ()

    def __post_init__(self) -> None:
        if not self.content_sha256:
            object.__setattr__(self, "content_sha256", hashlib.sha256(self.body).hexdigest())


@dataclass(frozen=True)
class RecordLocation:
    """Where a record lies: a file name within the snapshot, and bytes in that file."""

    file: str
    offset: int
    length: int


class PageArchive:
    """Writes pages to `<folder>/pages-00000.warc.gz` and so on; the same pages give the same bytes."""

    def __init__(self, folder: Path, *, max_pages: int = MAX_PAGES, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.files: list[tuple[str, int]] = []  # name and number of pages, in order
        self._max_pages, self._max_bytes = max_pages, max_bytes
        self._file: BinaryIO | None = None
        self._body_bytes = 0

    def add(self, page: Page) -> RecordLocation:
        record = gzip.compress(_encode(page), compresslevel=6, mtime=0)
        if self._file is None or self.files[-1][1] >= self._max_pages or self._body_bytes >= self._max_bytes:
            self._open_next()
        assert self._file is not None
        name, pages = self.files[-1]
        place = RecordLocation(name, self._file.tell(), len(record))
        self._file.write(record)
        self.files[-1] = (name, pages + 1)
        self._body_bytes += len(page.body)
        return place

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _open_next(self) -> None:
        self.close()
        name = f"pages-{len(self.files):05d}.warc.gz"
        self._file = open(self.folder / name, "wb")  # noqa: SIM115 (closed by close())
        self.files.append((name, 0))
        self._body_bytes = 0


def _encode(page: Page) -> bytes:
    is_http = page.http_status > 0
    record = WarcRecord()
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"{page.url}\n{page.fetched_at}\n{page.content_sha256}").urn
    record.init_headers(WarcRecordType.response if is_http else WarcRecordType.resource)
    record.headers["WARC-Record-ID"] = f"<{name}>"
    record.headers["WARC-Date"] = page.fetched_at
    record.headers["WARC-Target-URI"] = _one_line(page.url)
    record.headers["WARC-Payload-Digest"] = f"sha256:{page.content_sha256}"
    if page.title:
        record.headers[TITLE_HEADER] = _one_line(page.title)
    record.headers["Content-Type"] = "application/http; msgtype=response" if is_http else page.content_type
    record.set_bytes_content(_http_head(page) + page.body if is_http else page.body)
    buffer = io.BytesIO()
    record.write(buffer)
    return buffer.getvalue()


def _http_head(page: Page) -> bytes:
    headers = [(name, value) for name, value in page.http_headers if name.lower() not in _DROPPED_HEADERS]
    lines = [f"HTTP/1.1 {page.http_status} OK", *(f"{name}: {_one_line(value)}" for name, value in headers)]
    lines.append(f"Content-Length: {len(page.body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", errors="replace")


def _one_line(text: str) -> str:
    return " ".join(text.split())
