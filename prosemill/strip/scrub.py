"""Personal data out of a text: e-mail and IP addresses, telephone numbers, card, account and national id numbers.

Each is replaced by a word in brackets that a reader understands. A number is only taken for personal data on positive
evidence (a check digit, a plus sign, a word before it, the punctuation of its country): years, amounts, dates, ISBNs,
versions and section numbers look alike and are what prose is made of.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prosemill.config.settings import Strip
from prosemill.strip import id_numbers, phones

Check = Callable[[re.Match[str]], bool]

_LETTER = r"[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]"  # of a script that puts spaces between words
_CJK = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]"
_ALNUM = rf"(?:{_LETTER}|\d)"
# Without spaces between words, what comes after an address has to be told from its end: by the names there are.
_CJK_TOP = (
    r"(?:公司|网络|網絡|中国|中國|香港|台湾|台灣|新加坡|政务|公益|商城|网址|中文网"
    r"|在线|集团|みんな|コム|한국|닷컴|닷넷)"
)
_DOT = r"(?:[.。]|\s?[\[({](?:dot|DOT)[\])}]\s?)"
_EMAIL = re.compile(
    rf"(?:(?<![\w.+%'-])|(?<={_CJK}))(?<!://)(?:{_ALNUM}(?:{_ALNUM}|[.+%'_-]){{0,63}}|(?<!{_CJK}){_CJK}{{1,8}})"
    r"(?:@|＠|\s?[\[({](?:at|AT|@)[\])}]\s?)"
    rf"(?:(?:{_ALNUM}(?:(?:{_ALNUM}|-){{0,61}}{_ALNUM})?|{_CJK}{{1,20}}){_DOT}){{1,8}}"
    rf"(?:xn--[a-z0-9-]{{2,59}}|{_LETTER}{{2,24}}(?!{_ALNUM})|{_CJK_TOP})(?![:：][\w~/])"
)
_IPV4 = re.compile(r"(?<![\w.])(?<![vV] )(?:\d{1,3}\.){3}\d{1,3}(?![\w])(?!\.\d)", re.ASCII)
_IPV6 = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])", re.ASCII
)

_IMAGE_NAMES = re.compile(r"@[\dx.]+x\.|\.(?:png|jpe?g|gif|svg|webp|css|js|html?)$", re.IGNORECASE)  # photo@2x.png
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:version|versions|ver\.?|release|build|firmware|driver|update|section|chapter|clause|rev\.?|revision)"
    r"|§|版本|版|第|节|バージョン|버전|версия|версии)[ :：]?(?:is |number |= ?)?$",
    re.IGNORECASE,
)
_ADDRESS_BEFORE = re.compile(
    r"(?:\b(?:ip|ipv4|address|host|server|dns|ping|gateway|router|node|proxy|peer|client|from|via|at)|地址|服务器|主机|网关|адрес)"
    r"\W{0,3}(?:is |was |to |为|是)?$",
    re.IGNORECASE,
)
# "Chrome 91.0.44.124", "nginx/1.25.3.101", "jdk-8.0.292.10"
_PRODUCT_BEFORE = re.compile(
    r"(?:[A-Za-z][\w+#]*[-/_]|(?<![\w.])(?!The |In |On |To |And |Use |Try |Via )[A-Z][\w+#]{2,} )$"
)
_ADDRESS_AFTER = re.compile(r":\d{2,5}(?!\d)|/(?:[12]?\d|3[0-2])(?!\d)")


@dataclass(frozen=True)
class _Rule:
    """What a text with a match cannot do without (`needed`) is looked for first: an expression that begins with a
    lookbehind is tried at every character, 20 ns each; one that begins with a character, or a set of them, takes a
    tenth to a half of it, a plain word a fiftieth."""

    setting: str
    word: str
    needed: tuple[re.Pattern[str] | str, ...]  # each expression, and one of the words where there are any
    pattern: re.Pattern[str]
    personal: Callable[[re.Match[str], str], str]  # what of a match is, given the text's language; "" for nothing
    around: int = 0  # characters: where not 0, matches are only sought so far around the last expression of `needed`


class _Text:
    """A text and which of the things that rules need it has."""

    def __init__(self, text: str) -> None:
        self.text, self.known = text, dict[re.Pattern[str], bool]()

    def has(self, needed: tuple[re.Pattern[str] | str, ...]) -> bool:
        words = [part for part in needed if isinstance(part, str)]
        return all(self._has(part) for part in needed if not isinstance(part, str)) and (
            not words or any(word in self.text for word in words)
        )

    def _has(self, pattern: re.Pattern[str]) -> bool:
        if pattern not in self.known:
            self.known[pattern] = pattern.search(self.text) is not None
        return self.known[pattern]


def scrub(text: str, settings: Strip, language: str = "") -> tuple[str, int]:
    """`text` with personal data replaced as the settings ask, and how many times. `language`: its own, ISO 639-1."""
    total, before = 0, _Text(text)
    for rule in _RULES:
        if getattr(settings, rule.setting) and before.has(rule.needed):
            text, count = _replace(rule, text, language)
            total += count
    return text, total


def _replace(rule: _Rule, text: str, language: str) -> tuple[str, int]:
    parts, copied = [], 0
    for start, personal in _found(rule, text, language):
        parts += [text[copied:start], rule.word]
        copied = start + len(personal)
    return "".join([*parts, text[copied:]]), len(parts) // 2


def _found(rule: _Rule, text: str, language: str) -> Iterator[tuple[int, str]]:
    at = 0
    while match := _next(rule, text, at):
        personal = rule.personal(match, language)
        if personal:
            yield match.start(), personal
        at = match.start() + len(personal) if personal else match.end()


def _next(rule: _Rule, text: str, at: int) -> re.Match[str] | None:
    if not rule.around:
        return rule.pattern.search(text, at)
    anchor = rule.needed[-1]
    assert isinstance(anchor, re.Pattern)
    for place in anchor.finditer(text, at):
        if match := rule.pattern.search(text, max(at, place.start() - rule.around), place.end() + 4 * rule.around):
            return match
    return None


def is_email(match: re.Match[str]) -> bool:
    return not _IMAGE_NAMES.search(match[0])


def is_ipv4(match: re.Match[str]) -> bool:
    """Of somebody, and not a version or section: one has a part above 40, or words before it that say so."""
    try:
        address = ipaddress.IPv4Address(match[0])
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified or match[0].startswith(("255.", "0.")):
        return False
    before = match.string[max(0, match.start() - 24) : match.start()]
    if _VERSION_BEFORE.search(before):
        return False
    if _ADDRESS_BEFORE.search(before) or _ADDRESS_AFTER.match(match.string, match.end()):
        return True
    return any(int(part) > 40 for part in match[0].split(".")) and not _PRODUCT_BEFORE.search(before)


def is_ipv6(match: re.Match[str]) -> bool:
    """An address with at least two groups, one of them with a digit: `::` and `dead::beef` are names in a program."""
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return False
    return (
        len(re.findall(r"[0-9A-Fa-f]+", match[0])) >= 2 and any(map(str.isdigit, match[0])) and not address.is_loopback
    )


def _whole(check: Check) -> Callable[[re.Match[str], str], str]:
    return lambda match, _: match[0] if check(match) else ""


def _id_rules() -> list[_Rule]:
    def rule(needed: tuple[re.Pattern[str] | str, ...], pattern: re.Pattern[str], check: Check) -> _Rule:
        return _Rule("scrub_id_numbers", "[id]", needed, pattern, _whole(check))

    return [
        _Rule(
            *("scrub_id_numbers", "[id]", id_numbers.IBAN_NEEDED, id_numbers.IBAN),
            lambda match, _: id_numbers.iban_in(match),
        ),
        *(rule(*id_numbers.national(module)) for module in id_numbers.NATIONAL),
        *(rule(*id_numbers.named(module)) for module in id_numbers.NAMED),
        rule((re.compile(r"[0-9][0-9]{3}[ -]?[0-9]{4}"),), id_numbers.CARD, id_numbers.is_card),
        rule((re.compile(r"-[0-9]{2}-[0-9]{4}"),), id_numbers.SSN, id_numbers.is_ssn),
    ]


# With a dot near by, so that a page of @ costs nothing.
_AT = re.compile(r"(?:[@＠]|[\[({](?:at|AT|@)[\])}])(?=[^@＠\n]{1,70}?(?:[.。]|[\[({](?:dot|DOT)))")
# In this order: an e-mail address may hold an IP address, an id number a telephone number.
_RULES = [
    _Rule("scrub_email", "[e-mail]", (_AT,), _EMAIL, _whole(is_email), around=66),
    _Rule("scrub_ip", "[ip]", (re.compile(r":[0-9A-Fa-f]{0,4}:"),), _IPV6, _whole(is_ipv6)),
    _Rule("scrub_ip", "[ip]", (re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"),), _IPV4, _whole(is_ipv4)),
    *_id_rules(),
    _Rule("scrub_phone", "[phone]", (phones.NEEDED,), phones.CANDIDATE, phones.phone_in),
]
