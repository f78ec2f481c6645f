"""One page to one document, or to the reason why it gives none."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prosemill.config.settings import Strip
from prosemill.strip.clean import clean
from prosemill.strip.decode import decode
from prosemill.strip.extract import ExtractionFailed, MainText, extract
from prosemill.strip.filters import check_quality
from prosemill.strip.page import MAX_TITLE
from prosemill.strip.render import PRIVATE_USE, show_code
from prosemill.strip.scrub import scrub

# Why a page gives no document, beside what filters.check_quality says (thin, symbols, repetition, language).
BAD_TEXT = "bad_text"  # binary, or mostly undecodable
NO_TEXT = "no_text"  # decodes, but holds no main text
EXTRACTION_FAILED = "extraction_failed"  # broke the libraries that read it
TOO_SLOW = "too_slow"
TOO_LARGE = "too_large"

# Twice what the crawler keeps of a page by default; and more than four of the longest novels. 24 MB of text took 10 s.
MAX_BYTES, MAX_CHARACTERS = 20 << 20, 12_000_000

_HEAD_CHARS = 20_000  # enough to see what a page is
_HTML_TYPE = re.compile(r"html|xml", re.IGNORECASE)
_LOOKS_LIKE_HTML = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_HAS_TAGS = re.compile(r"<(?:p|div|br|h[1-6]|span|table|ul|article|section|main)\b[^>]*>", re.I)


@dataclass(frozen=True)
class StrippedPage:
    """`reason` "": kept. Else why not, with `detail`; `text` is then what was checked ("" where there was none)."""

    text: str
    title: str = ""
    date: str = ""  # ISO
    language: str = ""  # ISO 639-1, "" when too short to tell
    charset: str = ""
    reason: str = ""
    detail: str = ""
    scrubbed: int = 0  # how many e-mail addresses, numbers … were replaced


_DEFAULTS = Strip()


def strip_html(
    body: bytes,
    *,
    url: str = "",
    content_type: str = "",
    settings: Strip = _DEFAULTS,
    language: str = "en",
    title: str = "",
) -> StrippedPage:
    """The document in a page's bytes: HTML, or plain text and Markdown, which are taken as they are.

    `language` (ISO 639-1) is kept when `settings.languages` names none; `title` goes before the page's own.
    """
    if len(body) > MAX_BYTES:
        return StrippedPage("", reason=TOO_LARGE, detail=f"{len(body):,} bytes, more than {MAX_BYTES:,}")
    decoded = decode(body, content_type)
    if decoded.problem:
        return StrippedPage("", charset=decoded.charset, reason=BAD_TEXT, detail=decoded.problem)
    try:
        found = _main_text(decoded.text, url, content_type, settings)
    except ExtractionFailed as error:
        return StrippedPage("", charset=decoded.charset, reason=EXTRACTION_FAILED, detail=str(error))
    if len(found.text) > MAX_CHARACTERS:
        detail = f"{len(found.text):,} characters of text, more than {MAX_CHARACTERS:,}"
        return StrippedPage("", charset=decoded.charset, reason=TOO_LARGE, detail=detail)
    title = clean((title or found.title)[:MAX_TITLE]).replace("\n", " ").strip()
    text = show_code(clean(found.text))
    if not text:
        return StrippedPage("", title, found.date, charset=decoded.charset, reason=NO_TEXT)
    quality = check_quality(text, settings, language)
    text, scrubbed = scrub(text, settings)
    title, scrubbed_title = scrub(title, settings)
    return StrippedPage(
        text,
        title,
        found.date,
        quality.language,
        decoded.charset,
        quality.reason,
        quality.detail,
        scrubbed + scrubbed_title,
    )


def _main_text(text: str, url: str, content_type: str, settings: Strip) -> MainText:
    if is_html(text, content_type):
        return extract(text, url=url, tables=settings.keep_tables, comments=settings.keep_comments)
    heading = re.match(r"\s*# +(\S[^\n]*)\n", text)
    return MainText(PRIVATE_USE.sub("", text), title=heading[1].strip(" #") if heading else "")


def is_html(text: str, content_type: str) -> bool:
    """By what the page is, where that is plain to see; else by what it says it is."""
    if _LOOKS_LIKE_HTML.match(text[:_HEAD_CHARS]):
        return True
    kind = content_type.partition(";")[0].strip()
    if kind:
        return bool(_HTML_TYPE.search(kind))
    return len(_HAS_TAGS.findall(text[:_HEAD_CHARS])) >= 2
