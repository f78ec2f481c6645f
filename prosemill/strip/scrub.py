"""Personal data out of a text: e-mail and IP addresses, telephone numbers, card and national id numbers.

Each is replaced by a word in brackets that a reader understands. A number is only taken for personal data on positive
evidence (a checksum, a plus sign, the punctuation of its country): years, amounts, dates, ISBNs, versions and section
numbers look alike and are what prose is made of.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from prosemill.config.settings import Strip

Check = Callable[[re.Match[str]], bool]

# A number must not be part of a longer one, of a decimal, or of a word. Chinese characters may touch it.
_BEFORE = r"(?<![0-9A-Za-z_$€£¥#=/])(?<![0-9][.,\-–])"
_AFTER = r"(?![0-9A-Za-z_])(?![.,\-–/:][0-9])"

_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.+%'-]{0,63}(?:@|＠|\s?[\[({](?:at|AT|@)[\])}]\s?)"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.|\s?[\[({](?:dot|DOT)[\])}]\s?)){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])",
    re.ASCII,
)
_IPV4 = re.compile(r"(?<![\w.])(?<![vV] )(?:\d{1,3}\.){3}\d{1,3}(?![\w])(?!\.\d)", re.ASCII)
_IPV6 = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])", re.ASCII
)

_CARD = re.compile(
    rf"{_BEFORE}(?:\d{{4}}[ -]?){{3}}\d{{1,7}}{_AFTER}|{_BEFORE}3[47]\d\d[ -]?\d{{6}}[ -]?\d{{5}}{_AFTER}", re.ASCII
)
_SSN = re.compile(rf"{_BEFORE}(?!000|666|9\d\d)\d{{3}}-(?!00)\d\d-(?!0000)\d{{4}}{_AFTER}(?!-)", re.ASCII)
_CHINA_ID = re.compile(
    rf"{_BEFORE}[1-8]\d{{5}}(?:18|19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{{3}}[\dXx]{_AFTER}", re.ASCII
)

# By what each cannot do without (see _RULES).
_PHONES = {
    # international: a plus sign (or 00 and a group) and 8 to 15 digits (E.164)
    r"[+＋0](?:(?<!0)\(?|0(?<=00))[1-9]": re.compile(
        r"(?<![\w+.])(?:[+＋]|00(?=[1-9]\d?[ .-]))\(?[1-9]\d{0,2}\)?(?:[ .\-–/]?\(?\d{1,5}\)?){2,6}(?!\w)(?![.,]\d)",
        re.ASCII,
    ),
    # North America: (xxx) xxx-xxxx, xxx-xxx-xxxx, xxx.xxx.xxxx, 1-xxx-…; neither part begins with 0 or 1
    r"[)\-.] ?[2-9][0-9]{2}[-. ][0-9]{4}": re.compile(
        rf"{_BEFORE}(?:1[ .-])?(?:\([2-9]\d\d\)[ ]?[2-9]\d\d[-. ]|[2-9]\d\d([-.])[2-9]\d\d\1)\d{{4}}{_AFTER}(?!-)",
        re.ASCII,
    ),
    # China: mobile, with or without the country's 86; landline with area code; service numbers
    r"1[3-9][0-9](?:[0-9]{8}|[ -][0-9]{4}[ -][0-9]{4})": re.compile(
        rf"{_BEFORE}(?:86[ -]?)?1[3-9]\d(?:\d{{8}}|([ -])\d{{4}}\1\d{{4}}){_AFTER}", re.ASCII
    ),
    r"0[1-9][0-9]{1,2}[-—– )）][ -]?[0-9]{7}": re.compile(
        rf"{_BEFORE}[(（]?0(?:10|2\d|[3-9]\d\d)(?:[-—– ]|[)）][ -]?)\d{{7,8}}(?:[-转]\d{{1,5}})?{_AFTER}", re.ASCII
    ),
    r"00-[0-9]{3,4}-[0-9]{3}": re.compile(rf"{_BEFORE}[48]00-\d{{3,4}}-\d{{3,4}}{_AFTER}(?!-)", re.ASCII),
}
_IMAGE_NAMES = re.compile(r"@[\dx.]+x\.|\.(?:png|jpe?g|gif|svg|webp|css|js|html?)$", re.IGNORECASE)  # photo@2x.png
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:version|ver\.?|release|build|firmware|section|chapter|clause)|§|版本|版|第|节)[ :：]?$", re.IGNORECASE
)
_ADDRESS_BEFORE = re.compile(
    r"(?:\bip|address|host|server|dns|ping|gateway|from|地址|服务器|主机|网关)\W{0,3}(?:is |was |为|是)?$",
    re.IGNORECASE,
)


def scrub(text: str, settings: Strip) -> tuple[str, int]:
    """`text` with personal data replaced as the settings ask, and how many times."""
    total = 0
    for wanted, needed, pattern, word, check in _RULES:
        if not getattr(settings, wanted) or not needed.search(text):
            continue
        text, count = _replace(pattern, word, check, text)
        total += count
    return text, total


def _replace(pattern: re.Pattern[str], word: str, is_personal: Check, text: str) -> tuple[str, int]:
    count = 0

    def swap(match: re.Match[str]) -> str:
        nonlocal count
        if not is_personal(match):
            return match[0]
        count += 1
        return word

    return pattern.sub(swap, text), count


def is_email(match: re.Match[str]) -> bool:
    return not _IMAGE_NAMES.search(match[0])


def is_card(match: re.Match[str]) -> bool:
    """13 to 19 digits of a card network's range, with a right Luhn checksum (ISO/IEC 7812-1)."""
    digits = [int(char) for char in match[0] if char.isdigit()]
    if len(set(digits)) == 1 or not _is_card_length(digits[0], len(digits)):
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_card_length(first: int, length: int) -> bool:
    """Which lengths are issued. Milliseconds since 1970 begin with 1, ISBNs with 97, barcodes have 13 digits."""
    lengths = {2: (16,), 3: (14, 15, 16), 4: (13, 16, 19), 5: (16,), 6: (16, 17, 18, 19), 8: (16, 17, 18, 19)}
    return length in lengths.get(first, ())


def is_china_id(match: re.Match[str]) -> bool:
    """18 characters whose last is the ISO 7064 MOD 11-2 check of the others (GB 11643-1999)."""
    weights = [2 ** (17 - place) % 11 for place in range(17)]
    check = sum(int(digit) * weight for digit, weight in zip(match[0][:17], weights, strict=True)) % 11
    return "10X98765432"[check] == match[0][17].upper()


def is_ipv4(match: re.Match[str]) -> bool:
    """An address and not a version or section: one has a part above 40, or words before it that say so."""
    try:
        ipaddress.IPv4Address(match[0])
    except ValueError:
        return False
    before = match.string[max(0, match.start() - 20) : match.start()]
    if _VERSION_BEFORE.search(before):
        return False
    return any(int(part) > 40 for part in match[0].split(".")) or bool(_ADDRESS_BEFORE.search(before))


def is_ipv6(match: re.Match[str]) -> bool:
    """An address with at least two groups, one of them with a digit: `::` and `dead::beef` are names in a program."""
    try:
        ipaddress.IPv6Address(match[0])
    except ValueError:
        return False
    return len(re.findall(r"[0-9A-Fa-f]+", match[0])) >= 2 and any(map(str.isdigit, match[0]))


def is_phone(match: re.Match[str]) -> bool:
    """8 to 16 digits that are not a round amount: "+150 000 000", "15000000000"."""
    digits = re.sub(r"\D", "", match[0])
    is_amount = re.fullmatch(r"[+＋]?\d{1,3}(?:[ .]\d{3})*[ .]000", match[0]) is not None or digits.endswith("000000")
    return 8 <= len(digits) <= 16 and not is_amount


def _always(_: re.Match[str]) -> bool:
    return True


# In this order: an e-mail address may hold an IP address, an id number a telephone number.
# Second is what a match cannot do without, looked for first: an expression that begins with a lookbehind is tried at
# every character, 20 ns each; one that begins with a character, or a set of them, takes a tenth of it.
_RULES: list[tuple[str, re.Pattern[str], re.Pattern[str], str, Check]] = [
    ("scrub_email", re.compile(r"[@＠\[({](?:(?<=[@＠])|(?:at|AT)[\])}])"), _EMAIL, "[e-mail]", is_email),
    ("scrub_ip", re.compile(r":[0-9A-Fa-f]{0,4}:"), _IPV6, "[ip]", is_ipv6),
    ("scrub_ip", re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"), _IPV4, "[ip]", is_ipv4),
    ("scrub_id_numbers", re.compile(r"[0-9][0-9]{16}"), _CHINA_ID, "[id]", is_china_id),
    ("scrub_id_numbers", re.compile(r"[0-9][0-9]{3}[ -]?[0-9]{4}"), _CARD, "[id]", is_card),
    ("scrub_id_numbers", re.compile(r"-[0-9]{2}-[0-9]{4}"), _SSN, "[id]", _always),
    *(("scrub_phone", re.compile(needed), pattern, "[phone]", is_phone) for needed, pattern in _PHONES.items()),
]
