"""Text with encodings repaired, in one Unicode form, with plain spaces and nothing invisible."""

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
_IN_TABLE = re.compile("[" + "".join(map(chr, _TABLE)) + "]")
# zero-width joiners spell words in Persian and Indic scripts and compose emoji; beside Latin letters they mean nothing
_STRAY_JOINER = re.compile("(?<![\u0600-\uffff\U00010000-\U0010ffff])[\u200c\u200d]|[\u200c\u200d](?=[\x00-\u05ff]|$)")

# To put marks in order takes time by the square of how many follow each other: 80,000 on one letter took 3 s. Unicode's
# stream-safe format (UAX 15) allows 30, which no script needs more of.
_MOST_MARKS = 30
_MANY_MARKS = re.compile(rf"[^\w\s\x00-\x7f]{{{_MOST_MARKS + 1},}}")  # and whatever else is neither letter nor space
# ftfy takes 0.3 µs to look at a character, and more to repair a line. In a long line, parts are looked at one by
# one, and only the beginning of a very long text is.
_MAX_LINE, _MAX_REPAIRED = 20_000, 1_000_000
_LINE_PART = re.compile(rf".{{1,{_MAX_LINE}}}(?:\s|$)|.{{{_MAX_LINE}}}")


def clean(text: str) -> str:
    """`text` repaired, in NFC, with plain spaces and at most one blank line in a row. Indentation stays."""
    if not text.isascii():
        text = _in_one_form(_repaired(text))
    if " \n" in text or "\t\n" in text:
        text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    if "\n\n\n" in text:
        text = re.sub(r"\n{3,}", "\n\n", text)
    return text.strip("\n").rstrip()


def _in_one_form(text: str) -> str:
    if _IN_TABLE.search(text):
        text = text.translate(_TABLE)
    if "\u200c" in text or "\u200d" in text:
        text = _STRAY_JOINER.sub("", text)
    return unicodedata.normalize("NFC", _MANY_MARKS.sub(_few_marks, text))


def _few_marks(run: re.Match[str]) -> str:
    """At most _MOST_MARKS combining marks in a row."""
    kept, marks = [], 0
    for char in run[0]:
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks <= _MOST_MARKS:
            kept.append(char)
    return "".join(kept)


def _repaired(text: str) -> str:
    lines, left = text.split("\n"), _MAX_REPAIRED
    for number, line in enumerate(lines):
        if left <= 0:
            break
        if not line.isascii():
            parts = [line] if len(line) <= _MAX_LINE else _LINE_PART.findall(line)
            for place, part in enumerate(parts[: left // _MAX_LINE + 1]):
                parts[place] = repair(part) if is_bad(part) else part
            lines[number] = "".join(parts)
            left -= len(line)
    return "\n".join(lines)


def repair(line: str) -> str:
    """Undo a text decoded with the wrong charset ("cafÃ©"), where that makes it plausible; else `line` as it is.

    ftfy guesses from sequences that no language writes. Its guess is taken only if fewer of them are left and if it did
    not lose letters: undoing one wrong decoding makes 2 or 3 characters one.
    """
    fixed = ftfy.fix_encoding(line)
    is_plausible = badness(fixed) < badness(line) and len(fixed) * 4 > len(line) and "\ufffd" not in fixed
    return fixed if is_plausible else line
