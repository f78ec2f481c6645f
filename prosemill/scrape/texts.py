"""Texts inside JSON: which field is the text, which the title, in whatever shape people publish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_TITLES = ("title", "headline", "rhythmic", "chapter", "subchapter", "section", "name", "subject", "type")
_USUAL = ("paragraphs", "text", "content", "body", "para", "lines", "article")  # where people put the text
_NOT_TEXT = frozenset(
    {*_TITLES, "id", "uuid", "url", "link", "author", "date", "time", "lang", "language", "tags", "source"}
)
LINE_CHARACTERS = 40  # paragraphs shorter than this on average are lines of verse, not paragraphs


def iter_texts(value: Any, text_column: str, titles: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """(title, text) of every text in a JSON value, in its order.

    A string is a text. An object's text is its `text_column`, else a field with one of the usual names, else the string
    or list of strings that holds the most text; where the objects nested in it hold more, each of them is a text of its
    own, under the titles above it. A list that is nobody's field is a list of texts.
    """
    if isinstance(value, str):
        if value.strip():
            yield _joined(titles), value
    elif isinstance(value, list):
        for item in value:
            yield from iter_texts(item, text_column, titles)
    elif isinstance(value, dict):
        yield from _texts_of_object(value, text_column, titles)


def _texts_of_object(value: dict[str, Any], text_column: str, titles: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    stated = next((str(value[name]).strip() for name in _TITLES if isinstance(value.get(name), str)), "")
    titles = (*titles, stated) if stated else titles
    text = next(filter(None, (_flat(value.get(name)) for name in (text_column, *_USUAL))), "")
    if text:
        yield _joined(titles), text
        return
    own = {name: _flat(field) for name, field in value.items() if name.lower() not in _NOT_TEXT}
    best = max(own, key=lambda name: len(own[name]), default="")
    nested = {name: list(iter_texts(value[name], text_column, titles)) for name in own if not own[name]}
    most = max(nested, key=lambda name: _size(nested[name]), default="")
    if most and _size(nested[most]) > len(own[best]):
        yield from nested[most]
    elif best and own[best].strip():
        yield _joined(titles), own[best]


def _size(texts: list[tuple[str, str]]) -> int:
    return sum(len(text) for _, text in texts)


def _flat(value: Any) -> str:
    """A string, or a list (of lists) of strings as paragraphs or lines; "" for anything else."""
    parts = list(_strings(value))
    if not parts or None in parts:
        return ""
    texts = [part for part in parts if part and part.strip()]
    average = sum(map(len, texts)) / max(len(texts), 1)
    return ("\n" if average < LINE_CHARACTERS else "\n\n").join(texts)


def _strings(value: Any) -> Iterator[str | None]:
    """The strings of nested lists in order; None for anything that is neither."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    else:
        yield None


def _joined(titles: tuple[str, ...]) -> str:
    """The nearest two titles, such as a poem's and its book's."""
    return " · ".join(dict.fromkeys(titles[-2:]))
