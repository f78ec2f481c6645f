"""Bytes to text: which charset a page is really in, whatever it says.

The order was measured on made and real pages: BOM, strict UTF-8, damaged UTF-8, what header and meta declare, a
detector, cp1252. A declaration is believed only when the bytes agree with it: many servers declare another.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass

import cchardet

from prosemill.storage.charsets import codec_of, label_in

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MULTI_BYTE = {"gb18030", "big5hkscs", "cp932", "cp949", "euc_jp", "iso2022_jp", "utf-8"}
_BINARY = (b"%PDF-", b"PK\x03\x04", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"\x1f\x8b\x08", b"\x7fELF", b"wOF")

_META_WINDOW = 4096  # browsers look at 1,024 bytes; long licence comments before <head> are common
_META = re.compile(rb"""<(?:meta[^>]{0,300}?charset|\?xml[^>]{0,100}?encoding)\s*=\s*["']?\s*([\w:.-]{2,40})""", re.I)

_MIN_VALID_UTF8 = 0.8  # of the non-ASCII bytes: a page in another charset stays below a third
_MAX_DAMAGED = 0.01  # of the characters: one bad byte in a GBK page must not turn all of it to mojibake
_MAX_UNREADABLE = 0.05  # control characters and U+FFFD: random bytes have 12 %, damaged prose well below 1 %

# surrogateescape leaves a bad byte 0x80+n as U+DC80+n; as cp1252 it is usually the quote or dash that was meant
_BAD_BYTE_AS_CP1252 = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}
_CONTROLS: dict[int, str | None] = {
    code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r\f\x85"
}
_CONTROLS |= {0x0C: "\n", 0x85: "\n", 0xFEFF: None, 0xFFFE: None, 0xFFFF: None}
_IS_CONTROL = re.compile("[" + "".join(map(chr, _CONTROLS)) + "]")
_HIGH_BYTES = bytes(range(0x80, 0x100))


@dataclass(frozen=True)
class DecodedPage:
    """`text` without control characters, the `charset` it was read as, and `problem`: "" or why it is not text."""

    text: str
    charset: str
    problem: str = ""


def decode(body: bytes, content_type: str = "") -> DecodedPage:
    """The text of a page. Never fails: what cannot be read as text has a `problem`."""
    if body.startswith(_BINARY):
        return DecodedPage("", "", f"binary: starts with {body[:4]!r}")
    return checked(*_read(body, content_type))


def checked(text: str, charset: str) -> DecodedPage:
    """Text that was read as `charset`, without control characters, lines ending alike; or what makes it no text."""
    unreadable = sum(map(text.count, _unreadable_in(text)))
    problem = ""
    if unreadable > _MAX_UNREADABLE * len(text):
        problem = f"{unreadable} of {len(text)} characters cannot be read as {charset}"
    if _IS_CONTROL.search(text):
        text = text.translate(_CONTROLS)
    return DecodedPage(text.replace("\r\n", "\n").replace("\r", "\n"), charset, problem)


def _read(body: bytes, content_type: str) -> tuple[str, str]:
    for mark, charset in _BOMS:
        if body.startswith(mark):
            return body[len(mark) :].decode(charset, "replace"), charset
    if (charset := _wide(body)) or (charset := _escaped(body)):
        return body.decode(charset, "replace"), charset
    try:
        return body.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    if (text := _damaged_utf8(body)) is not None:
        return text, "utf-8"
    for charset in [*_declared(body, content_type), *_detected(body)]:
        text = body.decode(charset, "replace")
        if text.count("\ufffd") <= _MAX_DAMAGED * len(text):
            return text, charset
    return body.decode("cp1252", "replace"), "cp1252"


def _wide(body: bytes) -> str:
    """UTF-16 without its mark: Latin text has a NUL in every other byte, always on the same side."""
    head = body[:2048]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    enough = len(head) // 5
    if max(even, odd) > enough and min(even, odd) * 10 < max(even, odd):
        return "utf-16-be" if even > odd else "utf-16-le"
    return ""


def _escaped(body: bytes) -> str:
    """ISO-2022-JP, which is ASCII with escapes and so would pass for UTF-8."""
    return "iso2022_jp" if b"\x1b$B" in body or b"\x1b$@" in body else ""


def _damaged_utf8(body: bytes) -> str | None:
    text = body.decode("utf-8", "surrogateescape")
    bad = len(text) - len(body.decode("utf-8", "ignore"))
    foreign = len(body) - len(body.translate(None, _HIGH_BYTES))
    if foreign - bad < _MIN_VALID_UTF8 * foreign:
        return None
    return text.translate(_BAD_BYTE_AS_CP1252)


def _declared(body: bytes, content_type: str) -> list[str]:
    """Charsets by header, then by meta. A multi-byte one goes first: bytes seldom fit it by chance, and servers say
    iso-8859-1 by default."""
    meta = _META.search(body[:_META_WINDOW])
    labels = [label_in(content_type), meta.group(1).decode("ascii", "replace") if meta else ""]
    known = [charset for label in labels if (charset := _narrow(codec_of(label)))]
    return sorted(known, key=lambda charset: charset not in _MULTI_BYTE)


def _detected(body: bytes) -> list[str]:
    guess = cchardet.detect(body).get("encoding") or ""
    return [charset] if (charset := _narrow(codec_of(guess))) else []


def _narrow(charset: str) -> str:
    """A page that could say so in ASCII is not UTF-16; what is was seen by then."""
    return "utf-8" if charset.startswith("utf-16") else charset


def _unreadable_in(text: str) -> list[str]:
    """Replacement characters, and controls but white space and NUL, which old editors sprinkle over good text."""
    rare = set(text) - set("\t\n\r\f\0\x1b")
    return [char for char in rare if char == "\ufffd" or unicodedata.category(char) == "Cc"]
