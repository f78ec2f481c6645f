"""What each character is to a word, by Unicode's properties (package `regex`): one table, which all stages read.

Letters, digits and the underscore make words, and a mark (vowel sign, accent, point) belongs to the letter before it.
Where no spaces stand between words, one letter with its marks is a unit, about what \\X finds. Hangul is treated so,
too: particles hang on Korean words, and their syllables are what texts have in common. Tibetan is not: its tsheg
stands after each syllable, and the syllable is the unit. Digits make numbers in every script.
"""

from __future__ import annotations

import functools

import numpy as np
import regex
from numpy.typing import NDArray

# LETTER: of words. ALONE: a unit with its marks. IGNORED: as if it were not there (joiners, variation selectors, soft
# hyphens), as in NFKC_Casefold (Unicode, section 5.21): a word reads the same with them and without.
SEPARATOR, LETTER, ALONE, MARK, IGNORED = range(5)
NUM_CODE_POINTS = 0x110000
# Line_Break SA and ID (UAX 14), Javanese and Balinese: written without spaces.
UNSPACED_SCRIPTS = (
    *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Tangut", "Nushu", "Khitan_Small_Script"),
    *("Thai", "Lao", "Khmer", "Myanmar", "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Ahom"),
    *("Javanese", "Balinese"),
)
# Script_Extensions, so that a sign of several scripts counts as theirs: the long vowel of both kana.
_UNSPACED = "".join(rf"\p{{scx={script}}}" for script in UNSPACED_SCRIPTS)
# The later ones win. MARK holds more than \p{M}: the vowels and final consonants of Hangul that is spelled in letters,
# and the vowel am of Thai and Lao. So: radicals.
_CLASSES = (
    (LETTER, r"\p{L}\p{N}_"),
    (ALONE, rf"[[\p{{L}}\p{{Nl}}]&&[{_UNSPACED}]][\p{{Han}}&&\p{{So}}][\p{{L}}&&\p{{Hangul}}]"),
    (MARK, r"\p{M}\p{Grapheme_Extend}\p{GCB=SpacingMark}\p{GCB=V}\p{GCB=T}"),
    (IGNORED, r"\p{Default_Ignorable_Code_Point}"),
)
_IDEOGRAPHS = slice(0x20000, 0x40000)  # both planes that Unicode keeps for them, assigned or not
# Where the properties are looked up. Beyond: ideographs, and planes without a letter.
_LOOKED_UP = np.r_[0:0x20000, 0x2F800:0x2FA20, 0xE0000:0xE1000]


@functools.cache
def kinds() -> NDArray[np.uint8]:
    """The class of every code point [0x110000]."""
    classes = np.full(NUM_CODE_POINTS, SEPARATOR, np.uint8)
    classes[_IDEOGRAPHS] = ALONE
    for kind, characters in _CLASSES:
        classes[_having(characters)] = kind
    return classes


@functools.cache
def unsettled() -> NDArray[np.bool_]:
    """Which code points NFC may change, join or put in another order [0x110000]; a text without any is in NFC."""
    is_unsettled = np.zeros(NUM_CODE_POINTS, bool)
    is_unsettled[_having(r"\p{NFC_QC=M}\p{NFC_QC=N}\P{ccc=0}")] = True
    return is_unsettled


def _having(characters: str) -> NDArray[np.int64]:
    """The code points that a character class of `regex` holds, but for ideographs."""
    every = _LOOKED_UP.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    runs = [np.arange(*run.span()) for run in regex.finditer(f"(?V1)[{characters}]+", every)]
    places: NDArray[np.int64] = _LOOKED_UP[np.concatenate(runs)]
    return places


def count_letters(text: str, *scripts: str) -> int:
    """How many letters of `text` belong to the `scripts`, which have their Unicode names."""
    return sum(map(len, _letters_of(scripts).findall(text)))


def is_unspaced(text: str) -> bool:
    """Whether most of the text is in scripts that put no spaces between words."""
    return 2 * count_letters(text, *UNSPACED_SCRIPTS) > len(text)


@functools.cache
def _letters_of(scripts: tuple[str, ...]) -> regex.Pattern[str]:
    wanted = "".join(rf"\p{{scx={script}}}" for script in scripts)
    return regex.compile(rf"(?V1)[[\p{{L}}\p{{Nl}}]&&[{wanted}]]+")
