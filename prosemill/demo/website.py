"""The demo site: messages, listings and the editors' own pages, rendered from data/demo/templates.

The same `until_year` gives the same bytes. A page of a message depends on older messages only, so a week that adds
years leaves the pages of earlier years as they were, to the bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2

from prosemill.demo import planted
from prosemill.demo.layout import DemoSite, SitePage, data_folder, save_site
from prosemill.demo.messages import FIRST_YEAR, WEEKS, Message, load_messages, week_of
from prosemill.errors import DemoError

RELATED_YEARS_BACK = (7, 20, 52)  # "read also": far enough apart to be different presidents
CENTURIES = {1700: "Eighteenth century", 1800: "Nineteenth century", 1900: "Twentieth century", 2000: "This century"}
Answer = tuple[SitePage, bytes]
_DEFAULTS = {  # of base.html
    "charset": "utf-8",
    "language": "en",
    **dict.fromkeys(("description", "robots", "canonical", "published", "refresh"), ""),
}


def render_site(folder: Path, *, until_year: int) -> DemoSite:
    """Render the site as it stands when messages up to `until_year` are published; replaces what `folder` held."""
    messages = [message for message in load_messages() if message.year <= until_year]
    if not messages:
        raise DemoError(f"until_year {until_year} is before the first message; give {FIRST_YEAR} or later")
    as_of = week_of(until_year).as_of
    answers = [*_messages(messages), *_listings(messages, as_of), *_own_pages(), *_files(), *_not_pages()]
    return save_site(folder, as_of, answers)


def _messages(messages: Sequence[Message]) -> Iterator[Answer]:
    by_year = {message.year: message for message in messages}
    for message in messages:
        year = message.year
        view = _message_view(message, by_year)
        body = _render("message.html", view)
        yield _page(f"/messages/{year}.html", body, message.published)
        if year in planted.DOUBLED:
            yield _page(f"/messages/{year}/index.html", body, message.published, listed=False)
        if year in planted.MOVED:
            old = _render("message.html", view | {"canonical": f"/messages/{year}.html"})
            yield _page(f"/archive/{year}.html", old, message.published, listed=False)
        if year in planted.PRINTED:
            yield _page(f"/print/{year}.html", _render("print.html", view), message.published, listed=False)
        if year in planted.SYNDICATED:
            copy = view | {"title": f"{message.title}, as reprinted", "paragraphs": planted.reword(message.paragraphs)}
            yield _page(f"/syndicated/{year}.html", _render("syndicated.html", copy), message.published, listed=False)


def _message_view(message: Message, by_year: dict[int, Message]) -> dict[str, Any]:
    year = message.year
    return {
        "title": message.title,
        "description": f"{message.title}, given by {message.president} on {message.long_date}.",
        "published": message.date,
        "message": message,
        "before": by_year.get(year - 1),
        "related": [by_year[year - back] for back in RELATED_YEARS_BACK if year - back in by_year],
        "printed": year in planted.PRINTED,
        "syndicated": year in planted.SYNDICATED,
        "doubled": year in planted.DOUBLED,
        "moved": year in planted.MOVED,
    }


def _listings(messages: Sequence[Message], as_of: str) -> Iterator[Answer]:
    decades = [(decade, list(group)) for decade, group in groupby(messages, key=lambda message: message.decade)]
    for decade, group in decades:
        view = {
            "title": f"Messages of the {decade}s",
            "robots": "noindex, follow",
            "messages": group,
            "printed": planted.PRINTED,
            "syndicated": planted.SYNDICATED,
            "moved": planted.MOVED,
        }
        yield _page(f"/messages/{decade}s.html", _render("decade.html", view), group[-1].published, listed=False)
    centuries = [
        (CENTURIES[century], [(decade, [message.year for message in group]) for decade, group in part])
        for century, part in groupby(decades, key=lambda item: item[0] // 100 * 100)
    ]
    own_pages = [(page.path, page.title) for page in planted.OWN_PAGES if page.linked and page.language == "en"]
    view = {"title": "The messages, year by year", "centuries": centuries, "own_pages": own_pages}
    yield _page("/", _render("home.html", view), as_of, file="index.html")


def _own_pages() -> Iterator[Answer]:
    start = WEEKS[1].as_of
    for own in planted.OWN_PAGES:
        view = {"title": own.title, "charset": own.charset, "language": own.language}
        view |= {"robots": own.robots, "refresh": own.refresh}
        body = _render(f"pages/{own.template}.html", view, charset=own.charset)
        yield _page(own.path, body, start, content_type=own.content_type, headers=own.headers, listed=own.linked)
    weeks = [[f"{day:02}" for day in range(monday, min(monday + 7, 32))] for monday in range(1, 32, 7)]
    calendar = _render("calendar.html", {"title": "Calendar", "weeks": weeks})
    yield _page("/calendar.html", calendar, start, listed=False)
    missing = _render("not_found.html", {"title": "Not found"})
    yield SitePage("/404.html", "404.html", last_modified=start, status=404, listed=False), missing


def _files() -> Iterator[Answer]:
    start = WEEKS[1].as_of
    style = (data_folder() / "style.css").read_bytes()
    yield _page("/style.css", style, start, content_type="text/css; charset=utf-8", listed=False)
    yield _page("/files/guide.pdf", planted.small_pdf(), start, content_type="application/pdf", listed=False)
    yield _page("/files/catalogue.html", planted.small_pdf(), start, listed=False)  # says HTML, is none
    yield _page("/files/lengths.png", planted.small_png(), start, content_type="image/png", listed=False)


def _not_pages() -> Iterator[Answer]:
    robots = planted.ROBOTS.encode()
    yield _page("/robots.txt", robots, WEEKS[1].as_of, content_type="text/plain; charset=utf-8", listed=False)
    for path, target in sorted(planted.REDIRECTS.items()):
        yield SitePage(path, status=301, headers={"Location": target}, listed=False), b""


def _page(path: str, body: bytes, last_modified: str, *, file: str = "", **options: Any) -> Answer:
    return SitePage(path, file or path.lstrip("/"), last_modified=last_modified, **options), body


def _render(template: str, view: dict[str, Any], *, charset: str = "utf-8") -> bytes:
    text = _environment().get_template(template).render(_DEFAULTS | view)
    return text.encode(charset, "xmlcharrefreplace")


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(data_folder() / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
