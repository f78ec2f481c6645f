"""Telephone numbers in a text: an expression proposes them, phonenumbers (Google's tables of all countries) decides.

Evidence that a run of digits is one: a plus sign or 00; a word before it ("Tel.", 電話); or that it is valid, and
grouped as such numbers are, where the text's language is spoken. Years, dates, amounts, part numbers and votes look
alike.
"""

from __future__ import annotations

import functools
import re

from phonenumbers import (
    Leniency,
    NumberParseException,
    PhoneNumberMatcher,
    ValidationResult,
    is_possible_number_with_reason,
    is_valid_number,
    parse,
)

# Where a language is spoken, most speakers first; of a language that is not here no bare number is taken for a phone's.
# Chinese and American ones are known whatever the language: so they were before languages were asked.
_REGIONS = {
    "ar": ("EG", "SA", "AE", "MA"), "bg": ("BG",), "ca": ("ES",), "cs": ("CZ", "SK"), "da": ("DK",),
    "de": ("DE", "AT", "CH"), "el": ("GR", "CY"), "en": ("US", "GB", "AU", "IE", "NZ", "IN", "ZA"),
    "es": ("ES", "MX", "AR", "CO", "CL", "PE"), "fa": ("IR",), "fi": ("FI",), "fr": ("FR", "BE", "CH", "CA"),
    "he": ("IL",), "hi": ("IN",), "hu": ("HU",), "id": ("ID",), "it": ("IT", "CH"), "ja": ("JP",), "ko": ("KR",),
    "nb": ("NO",), "nl": ("NL", "BE"), "nn": ("NO",), "no": ("NO",), "pl": ("PL",), "pt": ("BR", "PT"), "ro": ("RO",),
    "ru": ("RU", "KZ", "BY"), "sk": ("SK",), "sv": ("SE", "FI"), "th": ("TH",), "tr": ("TR",), "uk": ("UA",),
    "vi": ("VN",), "zh": ("CN", "TW", "HK", "SG"),
}  # fmt: skip
_ALWAYS = ("US", "CN")
_LABELLED = ("GB", "DE", "FR", "IN", "JP", "BR")  # after a label a number may be of anywhere: the largest plans

NEEDED = re.compile(r"[0-9](?:[ ().\-–—/）]{0,3}[0-9]){6}|[+＋][ (]?[0-9]")  # seven digits, or a plus sign
# From the first digit (or its plus sign, or bracket) to the last: 7 to 15 digits in groups, perhaps an extension.
CANDIDATE = re.compile(
    r"(?<![0-9A-Za-z_$€£¥#=/@&.])(?<![0-9][,:\-–])(?:[+＋] ?)?[(（]?[0-9]{1,14}[)）]?"
    r"(?:(?:[ .\-–—/]|(?<=[)）])[ \-]?| ?(?=[(（]))[(（]?[0-9]{1,11}[)）]?){0,6}"
    r"(?:(?:转| ?ext\.? ?| x)[0-9]{1,5})?(?![0-9A-Za-z_])(?![.,\-–/:][0-9])(?!\s?[%€$£¥°])",
    re.ASCII,
)
_EXTENSION = re.compile(r"(?:转| ?ext\.? ?| x|(?<=[0-9]{7})-(?=[0-9]{1,5}$))[0-9]{1,5}$", re.ASCII)
_LABEL = re.compile(
    r"(?:\b(?:tel|tél|tlf|tfno|telef|telephone|téléphone|telefon|teléfono|telefone|telefono|telefoon|telefonnummer"
    r"|puhelin|puh|phone|fax|mobile|mobil|mobiel|móvil|celular|cellulare|cell|handy|portable|whatsapp|hotline|sms"
    r"|тел|телефон|моб|факс|τηλ|τηλέφωνο|โทร|फ़ोन|फोन|điện thoại|đt|gsm)"
    r"|電話|电话|電話番号|手机|手機|携帯|联系方式|聯絡|热线|熱線|传真|傳真|座机|拨打|致电|微信|ファックス|전화|휴대폰|핸드폰|연락처|팩스)"
    r"\s?(?:(?:number|nummer|no|nr|№|num|numéro|número|番号|번호|号码|號碼|номер|office|work|home)\s?)?[.:：)）/(（]{0,3}\s{0,3}"
    r"(?:is |ist |est |at |是|为|為|は)?$",
    re.IGNORECASE,
)
_OTHER_BEFORE = re.compile(
    r"(?:\b(?:part|p/n|pn|model|item|order|sku|serial|s/n|invoice|ref|reference|article|catalog(?:ue)?|patent|vote[sd]?|"
    r"tally|score|lot|batch|isbn|issn|doi|case|ticket|tracking|account|bestell\w*|teile\w*|artikel\w*|serien\w*|rechnungs\w*)"
    r"|型号|編號|编号|订单|訂單|货号|品番|型番|注文|票)\s?(?:number|numbers|nummer|nr|no|num|code|id|号|號)?[.:：#]{0,2}\s{0,2}"
    r"(?:of |was |is |by )?$",
    re.IGNORECASE,
)
_AMOUNT_AFTER = re.compile(
    r"\s?(?:votes?\b|people\b|dollars?\b|euros?\b|pounds?\b|yen\b|km\b|kg\b|mm\b|miles\b|stimmen\b|票|元|人|円|원|表|명|万|億|亿)"
)
# One separator throughout: "Clause 252.227-7013" is none.
_NORTH_AMERICAN = re.compile(r"(?:1[ .-])?(?:\([2-9]\d\d\) ?[2-9]\d\d[-. ]|[2-9]\d\d([-.])[2-9]\d\d\1)\d{4}", re.ASCII)
_CHINESE_LANDLINE = re.compile(r"[(（]?0(?:10|2\d|[3-9]\d\d)(?:[-—– ]|[)）][ -]?)\d{7,8}", re.ASCII)
_BEFORE_CHARS = 30  # that a label, and what stands between it and the number, may take
_YEAR = r"(?:1[5-9]|20)[0-9]{2}"
_NOT_ONE = re.compile(  # years, dates, decimals
    rf"{_YEAR}[-/. –](?:{_YEAR}|[0-9]{{1,2}})(?:[-/. ][0-9]{{1,2}})?|[0-9]{{1,2}}[-/. ][0-9]{{1,2}}[-/. ]{_YEAR}"
    r"|[0-9]\.[0-9]+"
)


def phone_in(match: re.Match[str], language: str) -> str:
    """The telephone number that a match of `CANDIDATE` begins with, other digits may follow it; "" where it is none.

    `language`: that of the text (ISO 639-1; "": not known).
    """
    number = match[0]
    while number:
        if _is_phone(number, match.string, match.start(), language):
            return number
        number = number.rpartition(" ")[0]
    return ""


def _is_phone(number: str, text: str, start: int, language: str) -> bool:
    main = _EXTENSION.sub("", number)
    digits = re.sub(r"\D", "", main)
    if not 7 <= len(digits) <= 16 or digits.endswith("000000") or _NOT_ONE.fullmatch(main):
        return False
    if main[0] in "+＋" or main.startswith("00"):
        is_amount = re.fullmatch(r"[+＋]\d{1,3}(?:[ .]\d{3})*[ .]000", main)
        return not is_amount and len(main) > len(digits) and _is_possible(re.sub(r"^00", "+", main), "ZZ")
    before = text[max(0, start - _BEFORE_CHARS) : start]
    regions = dict.fromkeys((*_regions(language), *_ALWAYS))
    if _LABEL.search(before):
        return any(_is_possible(main, region) for region in dict.fromkeys((*regions, *_LABELLED)))
    if _OTHER_BEFORE.search(before) or _AMOUNT_AFTER.match(text, start + len(number)):
        return False
    return any(_is_grouped(main, digits, region) for region in regions)


def _regions(language: str) -> tuple[str, ...]:
    return _REGIONS.get(language.partition("-")[0].lower(), ())


@functools.lru_cache(4096)
def _is_possible(number: str, region: str) -> bool:
    try:
        parsed = parse(number, region)
    except NumberParseException:
        return False
    return is_possible_number_with_reason(parsed) == ValidationResult.IS_POSSIBLE or is_valid_number(parsed)


def _is_valid(number: str, region: str) -> bool:
    return is_valid_number(parse(number, region))


@functools.lru_cache(4096)
def _is_grouped(number: str, digits: str, region: str) -> bool:
    """Valid there and grouped as there; a bare run of digits where it begins as few others do: 0…, China's 1[3-9]…"""
    if region == "CN" and _CHINESE_LANDLINE.fullmatch(number):
        return _is_possible(number, region)  # towns whose numbers had seven digits were renumbered, their pages not
    groups = re.findall(r"\d+", number)
    is_chinese = region == "CN" and re.fullmatch(r"(?:86)?1[3-9]\d{9}|[48]00\d{7}", digits) is not None
    if region == "US":
        return _NORTH_AMERICAN.fullmatch(number) is not None and _is_valid(number, region)
    is_sure = digits[0] == "0" or is_chinese or "(" in number
    if len(groups) == 1 and not (is_sure and len(digits) >= 10):
        return False
    is_short = len(groups) < 3 and not (len(digits) == 10 and " " in number)
    if not is_sure and (is_short or re.fullmatch(r"\d{1,3}(?:\.\d{3})+", number)):
        return False
    whole = number.strip("()（） ")
    matches = PhoneNumberMatcher(number, region, leniency=Leniency.STRICT_GROUPING)
    return any(whole in match.raw_string for match in matches)
