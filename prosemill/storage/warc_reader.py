"""Reading WARC files, ours and those of others (ISO 28500): pages, and what could not be read, record by record.

FastWARC finds the records; their content is read here, because FastWARC trusts HTTP headers with a wrong length and
then looks for the next record in the wrong place.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from prosemill.storage.http_body import UNBOUNDED, UndecodableBody, decode
from prosemill.storage.warc import TITLE_HEADER, Header, Page

BAD_RECORD, CUT_OFF, BAD_FILE = "bad_record", "cut_off", "bad_file"
INCOMPLETE = (CUT_OFF, BAD_FILE)  # there may have been more records than could be read
_MAX_HEADER = 1 << 20  # bytes: of a record's own header, and of the HTTP headers within it
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5"
_GZIP_MEMBER = re.compile(rb"\x1f\x8b\x08")
_PLAIN_RECORD = re.compile(rb"(?:^|(?<=\n))WARC/1\.[01]\r?\n")
_CONTENT_LENGTH = re.compile(rb"^content-length:[ \t]*(\d+)", re.IGNORECASE | re.MULTILINE)
_WINDOW, _OVERLAP, _SNIFFED, _BLOCK = 1 << 22, 16, 4096, 1 << 20  # bytes that are read at once
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(r"\s*(?:HTTP/\S*|ICY)\s+(\d{3})\b", re.IGNORECASE)


@dataclass(frozen=True)
class BadRecord:
    """A record that gives no page, or a place where the archive is damaged."""

    url: str  # "" where it cannot be read
    offset: int  # of the record in its file, in bytes
    reason: str  # one of the three
    why: str


class CutRecord(UndecodableBody):
    """The file ends within the record."""


def iter_pages(path: Path) -> Iterator[Page]:
    """Every page of a file that PageArchive wrote, in file order; ValueError for a damaged one."""
    for page in iter_records(path):
        if isinstance(page, BadRecord):
            raise ValueError(f"{path}: the record of {page.url or 'no URL'} at byte {page.offset}: {page.why}")
        yield page


def read_page(path: Path, offset: int) -> Page:
    """The one page whose record begins at `offset` of a file that PageArchive wrote."""
    with contextlib.suppress(ValueError):
        page = next(iter_records(path, start=offset))
        if isinstance(page, Page):
            return page
    raise ValueError(f"{path}: no WARC record at byte {offset}")


def iter_records(path: Path, *, max_body_bytes: int = UNBOUNDED, start: int = 0) -> Iterator[Page | BadRecord]:
    """Every response and resource record of a WARC file, ours or another's, in file order; gzipped or not.

    The end of a record is taken from the archive, not from its content; transfer and content encodings are undone
    here. A body has at most `max_body_bytes` + 1 bytes, so that the caller can tell one that is too long. After a
    record that cannot be read, or a damaged part of the archive, reading goes on at the next record that can be found.
    ValueError for a file in which there is none at all.
    """
    at, last = start, -1
    while at >= 0:
        page: Page | BadRecord | None = None
        failed = ""
        with open(path, "rb") as file:
            file.seek(at)
            try:
                for record in ArchiveIterator(file, parse_http=False, auto_decode="none", max_header_len=_MAX_HEADER):
                    if page is not None:
                        yield page
                    last = record.stream_pos
                    page = _page_of(record, max_body_bytes)
            except (OSError, ValueError, EOFError, RuntimeError) as error:
                failed = " ".join(str(error).split()) or type(error).__name__
        if last < 0:
            raise ValueError(failed or "it holds no record")
        is_cut = isinstance(page, BadRecord) and page.reason == CUT_OFF
        is_incomplete = bool(failed) or is_cut or not _ends_whole(path, last)
        at = _next_record(path, max(at, last) + 1) if is_incomplete else -1
        result = _checked(path, page, last) if failed and page is not None else page
        if isinstance(result, BadRecord) and is_cut and at >= 0:  # there is more: its length is wrong
            result = replace(result, reason=BAD_RECORD)
        if result is not None:
            yield result
        if failed and at >= 0 and result is page:
            yield BadRecord("", last, BAD_FILE, f"the archive is damaged after it ({failed})")
        elif is_incomplete and at < 0 and not is_cut:
            yield BadRecord("", last, CUT_OFF, f"the archive ends within the record after it ({failed or 'cut off'})")


def _page_of(record: WarcRecord, max_body_bytes: int) -> Page | BadRecord | None:
    """None for what is neither a response nor a resource."""
    if record.record_type not in (WarcRecordType.response, WarcRecordType.resource):
        return None
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")  # WARC 1.0 wrote angle brackets around it
    try:
        return _decode(record, url, max_body_bytes)
    except UndecodableBody as bad:
        return BadRecord(url, record.stream_pos, CUT_OFF if isinstance(bad, CutRecord) else BAD_RECORD, str(bad))


def _checked(path: Path, page: Page | BadRecord, offset: int) -> Page | BadRecord:
    """`page`, after which no record was found; a bad record where its own does not end as its Content-Length says."""
    with _uncompressed(path, offset) as file:
        try:
            head = _read_head(file)
            length = _CONTENT_LENGTH.search(head)
            _skip(file, int(length[1]) if length else 0)
            if file.read(2) in (b"\r\n", b"\n\n"):
                return page
        except (OSError, EOFError, zlib.error):
            return page  # it was read whole before; what follows it is damaged
    return BadRecord(page.url, offset, BAD_RECORD, "its Content-Length is not the length of the record")


def _ends_whole(path: Path, offset: int) -> bool:
    """Whether nothing but the record at `offset`, the last one that was found, is left of the file."""
    with open(path, "rb") as file:
        file.seek(offset)
        magic = file.read(2)
        file.seek(0)
        if file.read(2) == _ZSTD_MAGIC:
            return True  # FastWARC says so when a frame is cut off
        file.seek(0)
        if file.read(2) == _GZIP_MAGIC:
            at_member = magic == _GZIP_MAGIC  # else all records are in one
            file.seek(offset if at_member else 0)
            return _members_are_whole(file) and not (at_member and _next_record(path, offset + 1) >= 0)
        file.seek(offset)
        head = _read_head(file)
        length = _CONTENT_LENGTH.search(head)
        end = file.tell() + (int(length[1]) if length else 0)
        file.seek(end)
        return not file.read(_BLOCK).strip() and path.stat().st_size >= end


def _members_are_whole(file: IO[bytes]) -> bool:
    """Whether the last gzip member ends before the file does; other bytes after it do not count."""
    data = file.read(_BLOCK)
    while data.startswith(_GZIP_MAGIC):
        decoder = zlib.decompressobj(wbits=31)
        while not decoder.eof:
            decoder.decompress(data, _BLOCK)
            data = decoder.unconsumed_tail or file.read(_BLOCK)
            if not data and not decoder.eof:
                return False
        data = decoder.unused_data + data if decoder.unused_data else data
        data += file.read(_BLOCK) if len(data) < len(_GZIP_MAGIC) else b""
    return True


@contextlib.contextmanager
def _uncompressed(path: Path, offset: int) -> Iterator[IO[bytes]]:
    """The file from `offset` on, without the gzip of its members."""
    with open(path, "rb") as file:
        file.seek(offset)
        is_gzip = file.read(2) == _GZIP_MAGIC
        file.seek(offset)
        yield gzip.GzipFile(fileobj=file) if is_gzip else file  # type: ignore[misc]


def _read_head(file: IO[bytes]) -> bytes:
    """A record's own header, up to the empty line after it."""
    lines: list[bytes] = []
    while (line := file.readline(_MAX_HEADER)).strip():
        lines.append(line)
    return b"".join(lines)


def _skip(file: IO[bytes], size: int) -> None:
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        size -= len(block)


def _next_record(path: Path, start: int) -> int:
    """Where the next record at or after `start` begins that can be decompressed; -1 where there is none."""
    with open(path, "rb") as file:
        marks = _GZIP_MEMBER if file.read(2) == _GZIP_MAGIC else _PLAIN_RECORD
        at = start
        while True:
            file.seek(at)
            window = file.read(_WINDOW)
            for mark in marks.finditer(window):
                file.seek(at + mark.start())
                if marks is _PLAIN_RECORD or _inflates_to_record(file.read(_SNIFFED)):
                    return at + mark.start()
            if len(window) < _WINDOW:
                return -1
            at += len(window) - _OVERLAP


def _inflates_to_record(member: bytes) -> bool:
    try:
        return zlib.decompressobj(wbits=31).decompress(member, 64).startswith(b"WARC/")
    except zlib.error:
        return False


def _decode(record: WarcRecord, url: str, max_body_bytes: int) -> Page:
    """UndecodableBody for a record whose block ends too soon, or is not an HTTP response that can be read."""
    if "Content-Length" not in record.headers:
        raise CutRecord("its own header is cut off, or has no Content-Length")
    limit = min(2 * max_body_bytes + _MAX_HEADER, UNBOUNDED)  # as stored: an encoding may make it a little longer
    block = record.reader.read(limit) if limit < record.content_length else record.reader.read()
    if len(block) < min(limit, record.content_length):
        raise CutRecord(f"cut off after {len(block)} of {record.content_length} bytes")
    headers = record.headers
    status, http, raw = 0, list[Header](), block
    if headers.get("WARC-Type") == "response" and (record.is_http or block.startswith(b"HTTP/")):
        status, http, raw = _parse_http(block)
    body = decode(raw, _values(http, "transfer-encoding"), _values(http, "content-encoding"), max_body_bytes)
    if len(body) <= max_body_bytes and limit < record.content_length:
        raise UndecodableBody(f"longer than {limit} bytes as it is stored")
    stated = _values(http, "content-type")[:1] if http else [headers.get("Content-Type") or ""]
    return Page(
        url=url,
        content_type=stated[0] if stated else "",
        body=body,
        fetched_at=headers.get("WARC-Date") or "",
        title=headers.get(TITLE_HEADER) or "",
        http_status=status,
        http_headers=tuple(http),
    )


def _parse_http(block: bytes) -> tuple[int, list[Header], bytes]:
    """Status, headers and what follows them, of a response as a server sent it; lines may end with LF alone."""
    head_end = _HEAD_END.search(block)
    head, body = (block[: head_end.start()], block[head_end.end() :]) if head_end else (block, b"")
    first, *lines = head.decode("latin-1").splitlines() or [""]
    status = _STATUS_LINE.match(first)
    if status is None:
        raise UndecodableBody(f"its block does not begin with an HTTP status line but with {first[:40]!r}")
    if status[1].startswith("1") and _STATUS_LINE.match(body[:_SNIFFED].decode("latin-1")):
        return _parse_http(body)  # "100 Continue" and the like come before the answer (RFC 9110 §15.2)
    headers: list[Header] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if line[:1] in " \t" and headers:  # a folded line goes on with the value before (RFC 9112 §5.2)
            headers[-1] = (headers[-1][0], f"{headers[-1][1]} {line.strip()}".strip())
        elif colon and name.strip():
            headers.append((name.strip(), value.strip()))
    return int(status[1]), headers, body


def _values(headers: Sequence[Header], name: str) -> list[str]:
    return [value for key, value in headers if key.lower() == name]
