"""The body of an HTTP response as it was meant: transfer and content encodings undone, as tolerantly as browsers do.

Archives hold responses of all sorts of servers, written by all sorts of crawlers: some keep the encodings, some undo
them and keep the headers. So a header only says what to look for, and the bytes decide. RFC 9112 §7.1 (chunked), RFC
9110 §8.4 (content codings), RFC 1950–1952, RFC 7932, RFC 8878.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

import pyarrow as pa

UNBOUNDED = 1 << 62
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?(\r?\n)")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BLOCK = 1 << 18
_SNIFFED = 512  # bytes that show whether something is text


class UndecodableBody(ValueError):
    """What is wrong with a body, in a few words."""


def decode(raw: bytes, transfer: Sequence[str], content: Sequence[str], max_bytes: int = UNBOUNDED) -> bytes:
    """`raw` without its encodings: the values of its Transfer-Encoding and Content-Encoding headers.

    At most `max_bytes` + 1 bytes, so that the caller can tell a body that is too long. UndecodableBody for one
    that is damaged or ends too soon. Codings that nobody knows are taken for a mistake of the server.
    """
    for coding in [*_codings(transfer)[::-1], *_codings(content)[::-1]]:
        if undo := _DECODERS.get(coding):
            raw = undo(raw, max_bytes)
    return raw[: max_bytes + 1]


def _codings(values: Sequence[str]) -> list[str]:
    """In the order in which they were applied."""
    return [token.partition(";")[0].strip().lower() for value in values for token in value.split(",")]


def _chunked(raw: bytes, max_bytes: int) -> bytes:
    """The chunks joined; `raw` itself where it is not chunked, whatever its header says."""
    parts: list[bytes] = []
    size, at = 0, 0
    while line := _CHUNK_SIZE.match(raw, at):
        length, start = int(line[1], 16), line.end()
        if not length or size > max_bytes:
            return b"".join(parts)
        data = raw[start : start + length]
        end = re.compile(rb"\r?\n|\Z").match(raw, start + length)
        if len(data) < length:
            if not parts and line[2] != b"\r\n":  # a text whose first line happens to look like a number
                return raw
            raise UndecodableBody("a chunk of its body is cut off")
        if end is None:
            break
        parts.append(data)
        size, at = size + length, end.end()
    if not parts:
        return raw
    if raw[at:].strip():
        raise UndecodableBody("the chunks of its body are damaged")
    return b"".join(parts)  # without the last, empty chunk: the server closed the connection instead


def _gzip(raw: bytes, max_bytes: int) -> bytes:
    """Of all members; what follows the last one is left out, as browsers do."""
    if not raw.startswith(_GZIP):
        return raw
    out = b""
    while raw.startswith(_GZIP) and len(out) <= max_bytes:
        decoder = zlib.decompressobj(wbits=31)
        try:
            out += decoder.decompress(raw, max_bytes + 1 - len(out))
        except zlib.error as error:
            if out:
                break
            raise UndecodableBody(f"its gzip coding is damaged ({error})") from None
        _check_whole(decoder.eof, out, max_bytes)
        raw = decoder.unused_data
    return out


def _deflate(raw: bytes, max_bytes: int) -> bytes:
    """With the header of zlib, as it should be, or without, as some servers send it."""
    if not raw:
        return raw
    has_header = len(raw) > 1 and raw[0] & 0x0F == 8 and int.from_bytes(raw[:2], "big") % 31 == 0
    for wbits in (15, -15) if has_header else (-15,):
        decoder = zlib.decompressobj(wbits)
        try:
            out = decoder.decompress(raw, max_bytes + 1)
        except zlib.error:
            continue
        _check_whole(decoder.eof, out, max_bytes)
        return out
    return _plain_or_bad(raw, "deflate")


def _check_whole(is_at_end: bool, out: bytes, max_bytes: int) -> None:
    if not is_at_end and len(out) <= max_bytes:
        raise UndecodableBody("its compressed body is cut off")


def _brotli(raw: bytes, max_bytes: int) -> bytes:
    if raw.startswith(_GZIP):  # a server that changed the header alone
        return _gzip(raw, max_bytes)
    return _by_arrow(raw, "brotli", max_bytes) if raw else raw


def _zstd(raw: bytes, max_bytes: int) -> bytes:
    return _by_arrow(raw, "zstd", max_bytes) if raw.startswith(_ZSTD) else raw


def _by_arrow(raw: bytes, codec: str, max_bytes: int) -> bytes:
    try:
        with pa.CompressedInputStream(pa.BufferReader(raw), codec) as stream:
            out = bytearray()
            while len(out) <= max_bytes and (block := stream.read(_BLOCK)):
                out += block
            return bytes(out)
    except OSError as error:
        if "truncated" in str(error).lower() and not _is_text(raw):
            raise UndecodableBody("its compressed body is cut off") from None
        return _plain_or_bad(raw, codec)


def _plain_or_bad(raw: bytes, coding: str) -> bytes:
    """A body that was not encoded, whatever its header says; UndecodableBody where it is not text either."""
    if _is_text(raw):
        return raw
    raise UndecodableBody(f"its {coding} coding is damaged")


def _is_text(raw: bytes) -> bool:
    """No control characters at its beginning, but for white space, and hardly a byte that is not ASCII or UTF-8."""
    begin = raw[:_SNIFFED]
    if any(byte < 0x20 and byte not in b"\t\n\r\f\x1b" for byte in begin):
        return False
    try:
        begin.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(begin) - 4 or begin.lstrip()[:1] == b"<"
    return True


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "chunked": _chunked,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
