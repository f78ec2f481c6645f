"""One page to one document, or to the reason why it gives none."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prosemill.config.settings import Strip
from prosemill.strip.clean import clean
from prosemill.strip.decode import checked, decode
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

    @property
    def is_kept(self) -> bool:
        """Whether the page is a document worth learning from, by the settings that it was judged by."""
        return not self.reason


_DEFAULTS = Strip()


def strip_html(
    html: bytes | str,
    url: str | None = None,
    *,
    content_type: str = "",
    settings: Strip = _DEFAULTS,
    language: str = "en",
    title: str = "",
) -> StrippedPage:
    """The document in a page: its main text, cleaned, judged, and without personal data.

    Args:
        html: HTML, or plain text and Markdown, which are taken as they are. Bytes are decoded by what they are,
            whatever they say; text is taken as decoded.
        url: Where the page is from; dates in it help to date the page.
        content_type: The server's header, "" where there is none.
        settings: What is filtered and scrubbed (`prosemill.config.settings.Strip`): by default pages with fewer than
            `min_words` words, symbols, repetition, other languages; e-mail addresses and numbers of persons.
        language: ISO 639-1; pages in it are kept where `settings.languages` names none.
        title: Goes before the page's own.

    No page raises an error: one that gives no document says why in `reason` and `detail`. TypeError for neither bytes
    nor text. Main text is found as Barbaresi 2021 does (trafilatura), with a plain look at the page where that fails.

    >>> from prosemill import strip_html
    >>> page = "<nav>Home</nav><article><h1>Salt</h1><p>The mill ground salt, and the sea kept it.</p></article>"
    >>> document = strip_html(page, "https://mill.example/salt")
    >>> document.title, document.text
    ('Salt', 'The mill ground salt, and the sea kept it.')
    >>> document.is_kept, document.reason
    (False, 'thin')
    >>> strip_html(b"%PDF-1.7").reason
    'bad_text'
    """
    if not isinstance(html, bytes | str):
        raise TypeError(f"a page is bytes or text, not {type(html).__name__}; read a file with Path.read_bytes()")
    if len(html) > MAX_BYTES:
        unit = "bytes" if isinstance(html, bytes) else "characters"
        return StrippedPage("", reason=TOO_LARGE, detail=f"{len(html):,} {unit}, more than {MAX_BYTES:,}")
    decoded = decode(html, content_type) if isinstance(html, bytes) else checked(_without_surrogates(html), "")
    if decoded.problem:
        return StrippedPage("", charset=decoded.charset, reason=BAD_TEXT, detail=decoded.problem)
    try:
        main = _main_text(decoded.text, url or "", content_type, settings)
    except ExtractionFailed as error:
        return StrippedPage("", charset=decoded.charset, reason=EXTRACTION_FAILED, detail=str(error))
    if len(main.text) > MAX_CHARACTERS:
        detail = f"{len(main.text):,} characters of text, more than {MAX_CHARACTERS:,}"
        return StrippedPage("", charset=decoded.charset, reason=TOO_LARGE, detail=detail)
    title = clean((title or main.title)[:MAX_TITLE]).replace("\n", " ").strip()
    text = show_code(clean(main.text))
    if not text:
        return StrippedPage("", title, main.date, charset=decoded.charset, reason=NO_TEXT)
    quality = check_quality(text, settings, language)
    text, scrubbed = scrub(text, settings, quality.language or language)
    title, scrubbed_title = scrub(title, settings, quality.language or language)
    return StrippedPage(
        text,
        title,
        main.date,
        quality.language,
        decoded.charset,
        quality.reason,
        quality.detail,
        scrubbed + scrubbed_title,
    )


def _without_surrogates(text: str) -> str:
    """Two halves of a character as one, as some programs hand them over; a half that stands alone as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
