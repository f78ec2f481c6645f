"""Which texts are worth learning from: one filter a module, or a plugin's. To define a filter is to register it.

Thresholds of the filters here are fields of `[strip]`; a filter of your own works where a recipe has its table,
`[strip.filters.NAME]`, and finds its settings by `own_settings`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from prosemill.config import plugins
from prosemill.config.settings import Strip
from prosemill.errors import RecipeError
from prosemill.text.words import words

# Of a text longer than this, evenly spaced parts are judged: time and memory stay bounded, shares stay what they are.
_CHECKED_CHARS, _CHECKED_PARTS = 1_000_000, 8

_FILTERS: dict[str, type[Filter]] = {}


class Judged:
    """A text to be judged, and what filters want to know of it."""

    def __init__(self, whole: str, settings: Strip, language: str) -> None:
        self.whole, self.settings = whole, settings
        self.language = language  # the recipe's
        self.found_language = ""  # set by the filter that looks for it; "" before, and where the text is too short
        self.part = _parts_of(whole)  # enough of it for the filters

    @functools.cached_property
    def words(self) -> list[str]:
        """The words of `part`."""
        return words(self.part)


class Filter(ABC):
    """Says what is wrong with a text. Its name is the reason under which dropped documents are counted."""

    name: ClassVar[str] = ""
    position: ClassVar[int] = 100  # the first filter that finds something decides; small numbers come first

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _FILTERS[cls.name] = cls

    @abstractmethod
    def problem(self, text: Judged) -> str:
        """Why not to keep `text`, in a few words with its number; "" to keep it."""

    def own_settings(self, text: Judged) -> Any:
        """The table of this filter in the recipe."""
        return text.settings.filters[self.name]


@dataclass(frozen=True)
class QualityCheck:
    """`reason` is "" for a text to keep; `language` is ISO 639-1, "" when too short to tell."""

    reason: str
    detail: str
    language: str


def check_quality(text: str, settings: Strip, language: str) -> QualityCheck:
    """Whether to keep `text`; the first reason against it counts. `language` is the recipe's."""
    candidate = Judged(text, settings, language)
    for text_filter in filters_of(frozenset(settings.filters)):
        if detail := text_filter.problem(candidate):
            return QualityCheck(text_filter.name, detail, candidate.found_language)
    return QualityCheck("", "", candidate.found_language)


@functools.lru_cache(maxsize=8)
def filters_of(named: frozenset[str]) -> tuple[Filter, ...]:
    """The filters that always work, and those of plugins that are `named`, in their order."""
    built_in = {module.name for module in pkgutil.iter_modules(__path__)}
    for name in built_in:
        importlib.import_module(f"{__name__}.{name}")
    if named:
        plugins.load()
    if missing := sorted(named - _FILTERS.keys()):
        raise RecipeError(
            f"strip.filters.{missing[0]} has settings, but no filter; define one of that name beside them"
        )
    chosen = [_FILTERS[name] for name in built_in | named]
    return tuple(kind() for kind in sorted(chosen, key=lambda kind: (kind.position, kind.name)))


def _parts_of(text: str) -> str:
    """`text`, or where it is very long, parts of it."""
    if len(text) <= _CHECKED_CHARS:
        return text
    size, apart = _CHECKED_CHARS // _CHECKED_PARTS, len(text) // _CHECKED_PARTS
    return "\n".join(text[part * apart : part * apart + size] for part in range(_CHECKED_PARTS))
