"""The main text of an HTML page: trafilatura where it finds one, else a plain look at the page."""

from __future__ import annotations

import itertools
import logging
import threading
from dataclasses import dataclass

import trafilatura
from bs4 import BeautifulSoup
from bs4.exceptions import ParserRejectedMarkup
from lxml import etree, html
from lxml.html import HtmlElement

from prosemill.strip import page
from prosemill.strip.render import render
from prosemill.text.words import words

_TOO_LITTLE = 200  # characters: below trafilatura's own minimum (250) it is unsure of what it found …
_MUCH_MORE = 3.0  # … so a plain look at the page wins when it sees this many times more
# trafilatura's precision mode drops teasers and credits, but on some sites half of the article with them (F1 .79 on one
# set): it is believed where it agrees nearly.
_NEARLY_ALL = 0.9
# trafilatura takes ~0.1 ms an element, several times over; beyond this only the plain look is tried.
_MAX_ELEMENTS = 30_000
# Its second opinion, jusText, looks for every paragraph at all the others where all are alike: 5 s for 10,000 of them.
# And it replaces white space run by run, 8 s for 4 MB. Beyond either it is not asked for one.
_MANY_ELEMENTS, _MANY_CHARACTERS = 4_000, 1_000_000
_HUGE = 3_000_000  # characters: one opinion of trafilatura's takes seconds, and the stricter one is not asked for
_TOO_MANY_ELEMENTS, _TOO_MANY_ATTRIBUTES = 120_000, 300_000  # the plain look, too, takes seconds
_BOILERPLATE = ("nav", "header", "footer", "aside", "script", "style", "form", "noscript", "template", "iframe", "svg",
                "button", "select", "dialog", "head")  # fmt: skip
_BOILERPLATE_ROLES = ("navigation", "banner", "contentinfo", "search", "complementary", "dialog", "alert")


@dataclass(frozen=True)
class MainText:
    """`text` with code still hidden (render.show_code), and what the page says of itself."""

    text: str
    title: str = ""
    date: str = ""


class ExtractionFailed(Exception):
    """The page broke the libraries that read it."""


class _Silence:
    """While a page is read, in any thread, trafilatura logs nothing; its level is its user's again afterwards.

    Its warnings do not name the page ("discarding data: None"); what became of a page is in our own records.
    """

    def __init__(self) -> None:
        self._lock, self._num_pages, self._level = threading.Lock(), 0, logging.NOTSET

    def __enter__(self) -> None:
        with self._lock:
            if not self._num_pages:
                self._level = _TRAFILATURA.level
                _TRAFILATURA.setLevel(logging.CRITICAL)
            self._num_pages += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_pages -= 1
            if not self._num_pages:
                _TRAFILATURA.setLevel(self._level)


_TRAFILATURA, _SILENCE = logging.getLogger("trafilatura"), _Silence()


def extract(text: str, *, url: str = "", tables: bool = True, comments: bool = False) -> MainText:
    """Title, date and main text of the page `text`; an empty text when it has none. Raises ExtractionFailed."""
    with _SILENCE:
        return _extract(text, url, tables, comments)


def _extract(text: str, url: str, tables: bool, comments: bool) -> MainText:
    try:
        tree = page.parse(text)
        if tree is None:
            return MainText("")
        num_elements = sum(1 for _ in tree.iter("*"))
        if num_elements > _TOO_MANY_ELEMENTS:
            raise ExtractionFailed(f"{num_elements:,} elements, more than {_TOO_MANY_ELEMENTS:,}")
        num_attributes = sum(len(element.attrib) for element in tree.iter("*"))
        if num_attributes > _TOO_MANY_ATTRIBUTES:
            raise ExtractionFailed(f"{num_attributes:,} attributes, more than {_TOO_MANY_ATTRIBUTES:,}")
        title, date = page.title_of(tree), page.date_of(tree, url)
        page.make_readable(tree)
        return MainText(_without_title(_main_text(tree, len(text), tables, comments), title), title, date)
    except (RecursionError, MemoryError, etree.LxmlError, ValueError, LookupError, TypeError, AttributeError) as error:
        # what trafilatura and lxml have raised on damaged trees; anything else is a bug of ours and goes through
        if plain := _by_soup(text):
            return MainText(plain)
        raise ExtractionFailed(f"{type(error).__name__}: {str(error)[:200]}") from error


def _main_text(tree: HtmlElement, size: int, tables: bool, comments: bool) -> str:
    main = ""
    num_elements = sum(1 for _ in tree.iter("*"))
    if num_elements <= _MAX_ELEMENTS:
        many = num_elements > _MANY_ELEMENTS or size > _MANY_CHARACTERS
        main = _ask_trafilatura(tree, tables, comments, fast=many)
        if len(main) >= _TOO_LITTLE and size > _HUGE:
            return main
        if len(main) >= _TOO_LITTLE:
            strict = _ask_trafilatura(tree, tables, comments, fast=many, favor_precision=True)
            return strict if len(strict) >= _NEARLY_ALL * len(main) else main
    plain = _plain_look(tree)
    # Of a page with hardly any text, trafilatura returns the menu: then the plain text is a part of what it found.
    is_menu = bool(plain) and _letters(plain) in _letters(main)
    return plain if is_menu or len(plain) > _MUCH_MORE * len(main) else main


def _ask_trafilatura(
    tree: HtmlElement, tables: bool, comments: bool, *, fast: bool, favor_precision: bool = False
) -> str:
    document = trafilatura.bare_extraction(
        tree,
        fast=fast,
        include_tables=tables,
        include_comments=comments,
        include_formatting=False,
        favor_precision=favor_precision,
        output_format="xml",  # its tree, rendered by us: its own text has no paragraph breaks
    )
    if document is None:
        return ""
    parts = [render(document.body), render(document.commentsbody) if comments else ""]
    return "\n\n".join(part for part in parts if part)


def _plain_look(tree: HtmlElement) -> str:
    """Everything in the article, main or body element but navigation, headers, footers, forms and link lists.

    Takes `tree` apart."""
    for element in list(tree.iter(*_BOILERPLATE)):
        _drop(element)
    for element in [element for element in tree.iter("*") if element.get("role") in _BOILERPLATE_ROLES]:
        _drop(element)
    main = _main_element(tree)
    if main is None:
        return ""
    for element in list(main.iter("ul", "ol", "div", "p")):
        if element is not main and _is_only_links(element):
            _drop(element)
    if main.tag == "body":
        return render(main)
    parent = html.Element("div")
    main.tail = None
    parent.append(main)
    return render(parent)


def _by_soup(text: str) -> str:
    """The text of a page whose tree has broken what we read it with; "" where it breaks Beautiful Soup, too."""
    if len(text) > _MANY_CHARACTERS:
        return ""
    try:
        soup = BeautifulSoup(text, "lxml")
        for tag in soup.find_all(_BOILERPLATE):
            tag.extract()
        return soup.get_text("\n\n", strip=True)
    except (RecursionError, ValueError, ParserRejectedMarkup):
        return ""


def _main_element(tree: HtmlElement) -> HtmlElement | None:
    articles = list(itertools.islice(tree.iter("article"), 2))
    if len(articles) == 1:
        return articles[0]
    by_role = (element for element in tree.iter("*") if element.get("role") == "main")
    return next(itertools.chain(tree.iter("main"), by_role, tree.iter("body")), None)


def _drop(element: HtmlElement) -> None:
    if element.getparent() is not None:
        element.drop_tree()


def _is_only_links(element: HtmlElement) -> bool:
    if next(element.iter("a"), None) is None:
        return False
    length = _length(element)
    return length > 0 and sum(map(_length, element.iter("a"))) > 0.9 * length


def _length(element: HtmlElement) -> int:
    """Characters of text, without the white space around each piece."""
    return sum(len(piece.strip()) for piece in element.itertext())


def _without_title(text: str, title: str) -> str:
    """The title is a field of its own; a text that opens with it would hold it twice."""
    first, _, rest = text.partition("\n\n")
    if title and rest and _letters(first) == _letters(title):
        return rest
    return text


def _letters(text: str) -> str:
    return "".join(words(text))
