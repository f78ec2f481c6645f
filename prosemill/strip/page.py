"""An HTML page as a tree that can be read: hidden parts gone, code made safe; and its title and date."""

from __future__ import annotations

import datetime
import itertools
import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from lxml import etree, html
from lxml.html import HtmlElement

from prosemill.strip.render import PARAGRAPH_END, PRIVATE_USE, hide_code

MAX_DEPTH = 200  # trafilatura and the renderer recurse; real pages stay below 60
MAX_ATTRIBUTES = 500  # of one element: libxml2 compares each with all before it, 0.4 s for 20,000
MAX_ATTRIBUTE_CHARACTERS = 10_000  # trafilatura looks into class and id dozens of times; data: pictures are of no use
_CROWDED = re.compile(
    r"""(<[a-zA-Z][\w:-]*+)(?:\s++[^\s=<>"'/]++(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s<>"']++))?+){"""
    f"{MAX_ATTRIBUTES + 1},}}+"
)

_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_NEVER_HIDDEN = {"html", "body", "head", "main", "article"}  # hidden until a script shows them: then they are the page
_LINES = {"p", "li", "div", "blockquote", "strong", "h2", "h3", "h4", "h5", "h6"}
_MAX_TEASER = 250  # characters
_TEASER = re.compile(
    r"\W*(?:read (?:also|more|next)|also read|see also|related|more on|don't miss|recommended|"
    r"lesen sie (?:auch|mehr)|mehr (?:zum thema|dazu|lesen)|siehe auch|auch interessant|lire (?:aussi|la suite)|à lire|"
    r"voir aussi|le[ea] (?:también|más)|leer (?:más|también)|ver también|leia (?:também|mais)|veja (?:também|mais)|"
    r"leggi anche|vedi anche|lees (?:ook|meer)|läs (?:också|mer|även)|les også|læs også|czytaj (?:także|też|więcej)|"
    r"zobacz (?:także|też)|čtěte (?:také|též)|читайте (?:также|еще|ещё)|смотрите также|читайте також|devamını oku|"
    r"相关阅读|延伸阅读|推荐阅读|相關閱讀|延伸閱讀|関連記事|あわせて読みたい|관련 ?기사)",
    re.IGNORECASE,
)
MAX_TITLE = 1_000  # characters: what is longer is not a title, and what stands before each of its joints is compared
_MAX_HEADINGS = 50
_TITLE_JOINTS = re.compile(r"\s+[|–—·•»:]+\s+|\s+-+\s+|\s*[|_｜]\s*|\s*::\s*")
_DATE = re.compile(r"\b(1[89]\d\d|20\d\d)[-/.年](0?[1-9]|1[0-2])[-/.月](0?[1-9]|[12]\d|3[01])(?!\d)")
_DATE_METAS = (
    *("article:published_time", "og:article:published_time", "datepublished", "dc.date.issued", "dcterms.issued"),
    *("dcterms.created", "citation_publication_date", "citation_date", "parsely-pub-date", "sailthru.date"),
    *("publishdate", "publish_date", "pubdate", "dc.date", "dcterms.date", "date"),
)


def parse(text: str) -> HtmlElement | None:
    """The tree of `text`, None when there is not one element in it. libxml2 cuts nesting at 2,048 levels."""
    # as bytes: lxml refuses a str that carries an XML declaration; huge: attributes beyond 10 MB
    parser = html.HTMLParser(
        encoding="utf-8",
        huge_tree=True,
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
        default_doctype=False,
    )
    if len(text) > 4 * MAX_ATTRIBUTES:
        text = _CROWDED.sub(r"\1", text)
    try:
        tree = etree.fromstring(text.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError:
        return None
    return tree if isinstance(tree, html.HtmlElement) else None


def make_readable(tree: HtmlElement) -> None:
    """Drop what a reader does not see, protect code from squeezed white space, cap the depth; in place."""
    _flatten(tree)
    for element in list(tree.iter("*")):
        if element.tag in ("template", "xmp") or _is_hidden(element) or (element.tag in _LINES and _is_teaser(element)):
            _drop(element)
    for element in tree.iter("*"):
        if element.text and PRIVATE_USE.search(element.text):
            element.text = PRIVATE_USE.sub("", element.text)
        if element.tail and PRIVATE_USE.search(element.tail):
            element.tail = PRIVATE_USE.sub("", element.tail)
        for name, value in element.attrib.items():
            if len(value) > MAX_ATTRIBUTE_CHARACTERS:
                del element.attrib[name]
        for span in ("colspan", "rowspan"):  # trafilatura would pad the row: 100 cells for each cell of a hostile page
            element.attrib.pop(span, None)
    for line_break in tree.iter("br", "hr"):
        _mark_paragraph(line_break)
    _unframe_code(tree)
    for pre in list(tree.iter("pre")):
        _protect_code(pre)


def _flatten(tree: HtmlElement) -> None:
    """Replace what lies deeper than MAX_DEPTH by its text."""
    depth = 0
    too_deep = []
    for event, element in etree.iterwalk(tree, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if event == "start" and depth == MAX_DEPTH and len(element):
            too_deep.append(element)
    for element in too_deep:
        text = " ".join(piece for piece in element.itertext() if piece.strip())
        for child in list(element):
            element.remove(child)
        element.text = text


def _is_teaser(element: HtmlElement) -> bool:
    """ "Read also: …" — a short line of the text that is mostly a link to another page."""
    # enough to match, whatever the size of the element: the expression tries each place in a run of non-letters
    pieces = (piece[: 4 * _MAX_TEASER] for piece in itertools.islice(element.itertext(), 6))
    if not _TEASER.match("".join(pieces).lstrip()[: _MAX_TEASER + 1]):
        return False
    text = element.text_content().strip()
    if len(text) > _MAX_TEASER:
        return False
    return sum(len(link.text_content()) for link in element.iter("a")) > len(text) / 2


def _is_hidden(element: HtmlElement) -> bool:
    if element.tag in _NEVER_HIDDEN:
        return False
    if element.get("hidden") is not None and element.get("hidden") != "until-found":
        return True
    return element.get("aria-hidden") == "true" or bool(_HIDDEN_STYLE.search(element.get("style", "")))


def _drop(element: HtmlElement) -> None:
    if element.getparent() is not None:
        element.drop_tree()


def _mark_paragraph(line_break: HtmlElement) -> None:
    """The second of two line breaks ends a paragraph: trafilatura would make one line break of both."""
    before = line_break.getprevious()
    is_second = before is not None and before.tag == "br" and not (before.tail or "").strip()
    if is_second or line_break.tag == "hr":
        line_break.tail = PARAGRAPH_END + (line_break.tail or "")


def _unframe_code(tree: HtmlElement) -> None:
    """Highlighters put line numbers and code into the two cells of a table: keep the code."""
    for table in list(tree.iter("table")):
        blocks = list(table.iter("pre"))
        if len(blocks) == 2 and not re.search(r"[^\d\s]", blocks[0].text_content()):
            blocks[1].tail = table.tail
            table.getparent().replace(table, blocks[1])


def _protect_code(pre: HtmlElement) -> None:
    """Make of a `pre` a paragraph whose white space survives: trafilatura drops blank lines and indentation."""
    for line_break in pre.iter("br"):
        line_break.tail = "\n" + (line_break.tail or "").replace(PARAGRAPH_END, "")
    text = pre.text_content()
    for child in list(pre):
        pre.remove(child)
    pre.attrib.clear()
    pre.tag, pre.text = "p", hide_code(text)


# --- title and date --------------------------------------------------------------------------------------------------


def title_of(tree: HtmlElement) -> str:
    """The page's own title: its <title> without the site's name, where heading or og:title agree on what that is."""
    metas = dict(_metas(tree))
    full = _text_of(tree.find(".//head/title")) or _text_of(tree.find(".//title"))
    headings = [_text_of(heading) for heading in itertools.islice(tree.iter("h1"), _MAX_HEADINGS)]
    candidates = [text for text in (*headings, metas.get("og:title", "")) if 0 < len(text) <= MAX_TITLE]
    if not full:
        return next((text for text in (metas.get("og:title", ""), *headings) if text), "")
    parts = [part for part in _TITLE_JOINTS.split(full) if part]
    for candidate in candidates:
        if candidate.casefold() != full.casefold() and candidate.casefold() in (
            parts[0].casefold(),
            *_beginnings(full),
        ):
            return candidate
    site = metas.get("og:site_name", "").casefold()
    if site and len(parts) > 1 and parts[-1].casefold() == site:
        return full[: full.rindex(parts[-1])].rstrip(" |–—·•»:-_｜")
    return full


def date_of(tree: HtmlElement, url: str) -> str:
    """ISO date of publication as stated by meta tags, JSON-LD, microdata, the first <time>, the URL; or ""."""
    metas = dict(_metas(tree))
    for name in _DATE_METAS:
        if date := iso_date(metas.get(name, "")):
            return date
    for script in tree.iter("script"):
        if script.get("type") == "application/ld+json":
            stated = re.search(r'"datePublished"\s*:\s*("[^"]{8,40}")', script.text or "")
            if stated and (date := iso_date(json.loads(stated[1], strict=False))):
                return date
    for element in tree.iter("time", "span", "abbr"):
        is_stated = (
            element.tag == "time" or "published" in (element.get("class") or element.get("itemprop") or "").lower()
        )
        if is_stated and (date := iso_date(element.get("datetime") or element.get("title") or "")):
            return date
    return iso_date(urlsplit(url).path.strip("/")) if url else ""


def iso_date(text: str) -> str:
    """The first full date in `text`, year first, as YYYY-MM-DD; "" when there is none or no such day."""
    compact = re.match(r"(\d{4})(\d\d)(\d\d)(?:T|\d{6}|$)", text)
    match = compact or _DATE.search(text)
    if match is None:
        return ""
    try:
        return datetime.date(*map(int, match.groups())).isoformat()
    except ValueError:
        return ""


def _metas(tree: HtmlElement) -> Iterator[tuple[str, str]]:
    """Names and contents of meta tags, first one last, so that it wins in a dict."""
    for meta in reversed(list(tree.iter("meta"))):
        name = meta.get("property") or meta.get("name") or meta.get("itemprop")
        if name and meta.get("content"):
            yield name.strip().lower(), " ".join(meta.get("content").split())


def _beginnings(title: str) -> Iterator[str]:
    """What stands before each joint of a title: "A - B - Site" gives "a" and "a - b"."""
    for joint in _TITLE_JOINTS.finditer(title):
        yield title[: joint.start()].strip().casefold()


def _text_of(element: HtmlElement | None) -> str:
    """Its text in one line; of a long one the beginning."""
    if element is None:
        return ""
    pieces, room = [], 10 * MAX_TITLE  # white space included
    for piece in element.itertext():
        pieces.append(piece[:room])
        room -= len(piece)
        if room <= 0:
            break
    return " ".join("".join(pieces).split())[:MAX_TITLE]
