"""Text as it should have been typed: encodings repaired, one Unicode form, plain spaces, nothing invisible."""

from __future__ import annotations

import re
import unicodedata

import ftfy
from ftfy.badness import badness, is_bad

_INVISIBLE = dict.fromkeys(
    [
        *(0x00AD, 0x034F, 0x180E, 0x200B, 0x2060, 0xFEFF),  # soft hyphen, joiners, zero-width spaces
        *range(0x200E, 0x2010),  # direction marks …
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
        *range(0x2061, 0x2065),  # invisible operators
        *range(0xE0000, 0xE0080),  # tag characters: the alphabet of hidden instructions
    ]
)
_SPACES = {ord(space): " " for space in "\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"}
_SPACES |= {0x202F: " ", 0x205F: " ", 0x3000: " ", 0x2028: "\n", 0x2029: "\n\n"}
_TABLE = {**_INVISIBLE, **_SPACES}
# zero-width joiners spell words in Persian and Indic scripts and compose emoji; beside Latin letters they are litter
_STRAY_JOINER = re.compile("(?<![\u0600-\uffff\U00010000-\U0010ffff])[\u200c\u200d]|[\u200c\u200d](?=[\x00-\u05ff]|$)")


def clean(text: str) -> str:
    """`text` repaired, in NFC, with plain spaces and at most one blank line in a row. Indentation stays."""
    text = "\n".join(repair(line) if is_bad(line) else line for line in text.split("\n"))
    if not text.isascii():
        text = unicodedata.normalize("NFC", _STRAY_JOINER.sub("", text.translate(_TABLE)))
    text = re.sub(r"(?<![ \t])[ \t]+\n", "\n", text)  # looking back keeps it linear: 11 s for 128 KB of spaces without
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n").rstrip()


def repair(line: str) -> str:
    """Undo a text decoded with the wrong charset ("cafÃ©"), where that makes it plausible; else `line` as it is.

    ftfy guesses from sequences that no language writes. Its guess is taken only if fewer of them are left and if it did
    not lose letters: undoing one wrong decoding makes 2 or 3 characters one.
    """
    fixed = ftfy.fix_encoding(line)
    is_plausible = badness(fixed) < badness(line) and len(fixed) * 4 > len(line) and "\ufffd" not in fixed
    return fixed if is_plausible else line
