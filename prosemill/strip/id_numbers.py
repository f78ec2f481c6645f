"""Card, account and national id numbers: an expression proposes them, python-stdnum's check digits decide.

Of the national ones those that look like nothing else, by letters or punctuation; where they are mere digits, only
after the word that names them.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable

Check = Callable[[re.Match[str]], bool]
Needed = tuple[re.Pattern[str] | str, ...]

# A number must not be part of a longer one, of a decimal, or of a word. Chinese characters may touch it.
_BEFORE = r"(?<![0-9A-Za-z_$€£¥#=/])(?<![0-9][.,\-–])"
_AFTER = r"(?![0-9A-Za-z_])(?![.,\-–/:][0-9])"


def _number(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"{_BEFORE}(?:{pattern}){_AFTER}", re.ASCII)


CARD = _number(r"(?:\d{4}[ -]?){3}\d{1,7}|3[47]\d\d[ -]?\d{6}[ -]?\d{5}")
# Without a check digit; stdnum knows these rules and three numbers that were printed in advertisements.
SSN = re.compile(_number(r"(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}").pattern + "(?!-)", re.ASCII)
IBAN = re.compile(r"(?<![0-9A-Za-z_])[A-Z]{2}\d\d(?:[ -]?[0-9A-Z]{4}){2,7}(?:[ -]?[0-9A-Z]{1,3})?(?!\w)", re.ASCII)
_SIX_DIGITS = re.compile(r"[0-9][0-9]{5}")
_CAPITALS_AND_DIGITS = re.compile(r"[A-Z][A-Z][0-9][0-9]")
IBAN_NEEDED = (_CAPITALS_AND_DIGITS, re.compile(r"[A-Z]{2}[0-9]{2}[ -]?[0-9A-Z]{4}"))
# By the module of stdnum: what the text must have (see scrub._Rule), and the number.
NATIONAL = {
    "cn.ric": (
        (_SIX_DIGITS, r"[0-9]{17}"),
        r"[1-8]\d{5}(?:18|19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]",
    ),
    "it.codicefiscale": ((_CAPITALS_AND_DIGITS, r"[A-Z]{6}[0-9]{2}[A-Z]"), r"[A-Z]{6}\d\d[A-Z]\d\d[A-Z]\d{3}[A-Z]"),
    "br.cpf": ((r"\.[0-9]{3}\.[0-9]{3}-",), r"\d{3}\.\d{3}\.\d{3}-\d\d"),
    "kr.rrn": ((r"-[1-8][0-9]{6}",), r"\d{6}-[1-8]\d{6}"),
    "es.dni": ((_SIX_DIGITS, r"[0-9]{8}-?[A-Z]"), r"\d{8}-?[A-HJ-NP-TV-Z]"),
    "es.nie": ((_SIX_DIGITS, r"[XYZ]-?[0-9]{7}"), r"[XYZ]-?\d{7}-?[A-Z]"),
    "fi.hetu": ((_SIX_DIGITS, r"[0-9]{6}[-+A][0-9]{3}[0-9A-Y]"), r"[0-3]\d[01]\d{3}[-+A]\d{3}[0-9A-Y]"),
    "fr.nir": (
        (r"[0-9AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}",),
        r"[12] ?\d\d ?(?:0[1-9]|1[0-2]) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d",
    ),
}
# Mere digits: the words of which one must stand before them, and the number.
NAMED = {
    "ca.sin": (("SIN ", "SIN:", "ocial insurance", "ocial Insurance"), r"\d{3}[ -]\d{3}[ -]\d{3}"),
    "de.idnr": (("IdNr", "Steuer-ID", "SteuerID", "dentifikationsnummer"), r"\d{2} ?\d{3} ?\d{3} ?\d{3}"),
    "gb.nhs": (("NHS",), r"\d{3}[ -]?\d{3}[ -]?\d{4}"),
    "in_.aadhaar": (("adhaar", "AADHAAR", "आधार"), r"\d{4}[ -]?\d{4}[ -]?\d{4}"),
    "jp.in_": (("マイナンバー", "個人番号"), r"\d{4}[ -]?\d{4}[ -]?\d{4}"),
    "nl.bsn": (("BSN", "urgerservicenummer"), r"\d{9}|\d{3}[. ]\d{3}[. ]\d{3}|\d{4}[. ]\d{2}[. ]\d{3}"),
    "pl.pesel": (("PESEL",), r"\d{11}"),
    "se.personnummer": (("ersonnummer",), r"(?:19|20)?\d{6}[-+]?\d{4}"),
}
_NAMED_WITHIN = 30  # characters
_PART_BEFORE = re.compile(
    r"(?:\b(?:part|p/n|pn|model|item|order|sku|serial|s/n|lot|catalog)\s?(?:number|no|num)?[.:#]{0,2}\s?|型号|编号|订单号?[:：]?)$",
    re.IGNORECASE,
)


def is_card(match: re.Match[str]) -> bool:
    """13 to 19 digits of a card network's range, with a right Luhn checksum (ISO/IEC 7812-1)."""
    digits = re.sub(r"\D", "", match[0])
    return len(set(digits)) > 1 and _is_card_length(int(digits[0]), len(digits)) and _check("luhn")(digits)


def _is_card_length(first: int, length: int) -> bool:
    """Which lengths are issued. Milliseconds since 1970 begin with 1, ISBNs with 97, barcodes have 13 digits."""
    lengths = {2: (16,), 3: (14, 15, 16), 4: (13, 16, 19), 5: (16,), 6: (16, 17, 18, 19), 8: (16, 17, 18, 19)}
    return length in lengths.get(first, ())


def is_ssn(match: re.Match[str]) -> bool:
    return not _PART_BEFORE.search(before(match))


def iban_in(match: re.Match[str]) -> str:
    """The IBAN that a match of `IBAN` begins with, words in capitals may follow it; "" where there is none."""
    number, is_valid = match[0], _check("iban")
    ends = (end for end in range(len(number), 14, -1) if end == len(number) or number[end] in " -")
    return next((number[:end] for end in ends if is_valid(number[:end])), "")


def national(module: str) -> tuple[Needed, re.Pattern[str], Check]:
    """What a text with numbers of this module of stdnum must have, what they look like, whether a match is one."""
    needed, pattern = NATIONAL[module]
    whole = tuple(re.compile(expression) for expression in needed)
    return whole, _number(pattern), lambda match: is_ssn(match) and _check(module)(match[0])


def named(module: str) -> tuple[Needed, re.Pattern[str], Check]:
    """The same for numbers that only count after the word for them."""
    words, pattern = NAMED[module]

    def is_one(match: re.Match[str]) -> bool:
        return any(word in before(match) for word in words) and _check(module)(match[0])

    return words, _number(pattern), is_one


def before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - _NAMED_WITHIN) : match.start()]


@functools.cache
def _check(module: str) -> Callable[[str], bool]:
    """`is_valid` of a module of stdnum, imported when the first candidate is seen."""
    check: Callable[[str], bool] = importlib.import_module(f"stdnum.{module}").is_valid
    return check
