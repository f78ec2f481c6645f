"""What is hard about the demo site, on purpose: its own pages, its copies and traps, and what must become of each."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prosemill.demo.layout import BARE_HTML, HTML

PRINTED = frozenset({1791, 1797, 1823, 1852, 1862, 1901, 1962})  # the same text without masthead: exact copies
SYNDICATED = frozenset({1792, 1795, 1817, 1854, 1863, 1905, 1961})  # reworded here and there: near copies
DOUBLED = frozenset({1796})  # the same bytes under a second URL
MOVED = frozenset({1793})  # a second page that names the first as canonical

# What a reprint changes. One word in 110 gives 5-word shingles a Jaccard of about .9: a changed word touches five.
REWORDED = {
    "upon": "on", "shall": "will", "whilst": "while", "unto": "to", "also": "too", "however": "though",
    "therefore": "so", "respecting": "concerning", "especially": "above all", "particularly": "in particular",
    "necessary": "needful", "various": "several", "great": "considerable", "important": "weighty",
    "immediately": "at once", "render": "make", "sufficient": "enough", "commence": "begin", "present": "current",
}  # fmt: skip
WORDS_PER_CHANGE = 110


@dataclass(frozen=True)
class OwnPage:
    """A page written for the demo: templates/pages/<template>.html, and what is special about how it is served."""

    path: str
    template: str
    title: str
    charset: str = "utf-8"
    language: str = "en"
    robots: str = ""
    refresh: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    linked: bool = True  # from the front page

    @property
    def content_type(self) -> str:
        return HTML if self.charset == "utf-8" else BARE_HTML


OWN_PAGES = (
    OwnPage("/about.html", "about", "About this reading room"),
    OwnPage("/contact.html", "contact", "Contact"),
    OwnPage("/privacy.html", "privacy", "Privacy"),
    OwnPage("/notes/spelling.html", "spelling", "A note on spelling"),
    OwnPage("/notes/reading.html", "reading", "How to read an annual message"),
    OwnPage("/notes/names.html", "names", "A note on Chinese names", charset="gbk"),
    OwnPage("/notes/errata.html", "errata", "Errata"),
    OwnPage("/notices/zh.html", "zh", "阅览室说明", charset="gbk", language="zh"),
    OwnPage("/letters/readers.html", "letters", "Letters from readers"),
    OwnPage("/guests/essay.html", "essay", "Who wrote the messages", robots="noai, noimageai"),
    OwnPage("/guests/lecture.html", "lecture", "Read aloud by a clerk", headers={"X-Robots-Tag": "noai"}),
    OwnPage("/guests/memoir.html", "memoir", "The printer's week", headers={"TDM-Reservation": "1"}),
    OwnPage("/start.html", "start", "Moved", refresh="/about.html", linked=False),
    OwnPage("/private/drafts.html", "drafts", "Drafts", linked=False),
)

REDIRECTS = {"/home": "/"}

# GPTBot is one of the tokens by which sites keep AI crawlers out: who heeds opt-outs stays out of /letters/ as well.
ROBOTS = """User-agent: *
Disallow: /private/

User-agent: GPTBot
User-agent: CCBot
Disallow: /letters/
Disallow: /private/

Sitemap: {origin}/sitemap.xml
"""


@dataclass(frozen=True)
class Expectation:
    """What must become of one planted page, and where that is recorded.

    stage `scrape`: the ledger row has `state` and `reason`. `strip`: fetched, then dropped for `reason`. `dedup`: a
    document, then removed for `reason`. `kept`: it is among the keepers (`reason` is "", or "scrubbed" where something
    was replaced). `path` is a whole URL where it leads off the site.
    """

    path: str
    stage: str
    state: str = ""
    reason: str = ""


def expectations(until_year: int) -> list[Expectation]:
    """What becomes of the planted pages of a site rendered with `until_year`."""
    copies = [
        *(Expectation(f"/print/{year}.html", "dedup", "fetched", "exact") for year in sorted(PRINTED)),
        *(Expectation(f"/syndicated/{year}.html", "dedup", "fetched", "near") for year in sorted(SYNDICATED)),
        *(Expectation(f"/messages/{year}/index.html", "scrape", "skipped", "same_content") for year in sorted(DOUBLED)),
        *(Expectation(f"/archive/{year}.html", "scrape", "skipped", "same_content") for year in sorted(MOVED)),
    ]
    return [*_ALWAYS, *(copy for copy in copies if int(re.findall(r"\d{4}", copy.path)[0]) <= until_year)]


_ALWAYS: Sequence[Expectation] = (
    Expectation("/", "kept", "fetched"),
    Expectation("/about.html", "kept", "fetched"),
    Expectation("/contact.html", "kept", "fetched", "scrubbed"),
    Expectation("/notes/names.html", "kept", "fetched"),
    Expectation("/notes/errata.html", "strip", "fetched", "thin"),
    Expectation("/notices/zh.html", "strip", "fetched", "language"),
    Expectation("/messages/1790s.html", "scrape", "skipped", "noindex"),
    Expectation("/messages/1789.html", "scrape", "failed", "http_404"),
    Expectation("/private/drafts.html", "scrape", "skipped", "robots_disallowed"),
    Expectation("/letters/readers.html", "scrape", "skipped", "ai_opt_out"),
    Expectation("/guests/essay.html", "scrape", "skipped", "ai_opt_out"),
    Expectation("/guests/lecture.html", "scrape", "skipped", "ai_opt_out"),
    Expectation("/guests/memoir.html", "scrape", "skipped", "ai_opt_out"),
    Expectation("/files/guide.pdf", "scrape", "skipped", "non_html"),
    Expectation("/files/lengths.png", "scrape", "skipped", "non_html"),
    Expectation("/files/catalogue.html", "scrape", "skipped", "non_html"),
    Expectation("/calendar.html?month=1790-01", "scrape", "skipped", "query_string"),
    Expectation("/home", "scrape", "skipped", "redirected"),
    Expectation("/start.html", "strip", "fetched", "thin"),  # a soft redirect: to /about.html, which is found anyway
    Expectation("https://example.org/addresses/", "scrape", "skipped", "out_of_scope"),
)


def reword(paragraphs: Sequence[str]) -> list[str]:
    """The paragraphs as a reprint has them: a few words replaced at even distances, semicolons become commas."""
    text = "\n".join(paragraphs)
    places = list(re.finditer(rf"\b({'|'.join(REWORDED)})\b", text))
    wanted = max(1, len(text.split()) // WORDS_PER_CHANGE)
    step = max(1, len(places) // wanted)
    for place in reversed(places[::step][:wanted]):
        text = text[: place.start()] + REWORDED[place[0]] + text[place.end() :]
    return text.replace(";", ",").split("\n")


def small_pdf() -> bytes:
    """A PDF of one empty page, or what passes for one."""
    return (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 420]>>endobj\n"
        b"trailer<</Root 1 0 R>>\n%%EOF\n"
    )


def small_png(width: int = 96, height: int = 48) -> bytes:
    """Grey bars of growing height on white, as an 8-bit greyscale PNG."""
    rows = []
    for y in range(height):
        bars = [(x % 12 < 8 and height - y <= 4 + x // 12 * 6) for x in range(width)]
        rows.append(b"\0" + bytes(0x88 if bar else 0xFF for bar in bars))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
