"""Slices of the gate: one question to the challenger each, one a module, or a plugin's. To define one registers it.

Thresholds of the slices here are fields of `[gate]`; a slice of your own decides where a recipe has its table,
`[gate.slices.NAME]`, and finds its settings by `own_settings`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from prosemill.config import plugins
from prosemill.config.settings import Gate
from prosemill.errors import RecipeError

Row = dict[str, Any]

PASSED, FAILED, UNDECIDED, TOO_FEW = "passed", "failed", "undecided", "too few documents"

LEADING = "test"  # the slice whose numbers are the decision's; the others can only refuse
_SLICES: dict[str, type[Slice]] = {}


@dataclass(frozen=True)
class Evidence:
    """What an evaluation says of the challenger, and of the model that it is compared with."""

    challenger: Sequence[Row]  # rows of schemas.SCORE, one a document
    other: Sequence[Row]  # the other model's, of the same documents in the same order
    against: str  # champion, or base where there is none
    confidence: float  # that the test documents take; fewer uses of them, less
    summary: Mapping[str, Any]  # of the evaluation: dates, figures by model
    settings: Gate

    @property
    def quality(self) -> Mapping[str, Any]:
        """What the challenger's continuations are like; empty where none were made."""
        models = (self.summary.get("quality") or {}).get("models", {})
        return models.get("challenger", {})  # type: ignore[no-any-return]

    @property
    def natural(self) -> Mapping[str, Any]:
        """What the test documents themselves are like, by the same measures."""
        return (self.summary.get("quality") or {}).get("natural", {})  # type: ignore[no-any-return]

    def of_part(self, part: str) -> tuple[list[Row], list[Row]]:
        """Both models' rows of one part: test, validation, train or general."""
        pairs = [pair for pair in zip(self.challenger, self.other, strict=True) if pair[0]["part"] == part]
        return [one for one, _ in pairs], [other for _, other in pairs]


class Slice(ABC):
    """One question. A challenger is promoted if no slice failed or is undecided."""

    name: ClassVar[str] = ""
    position: ClassVar[int] = 100  # in the decision, after LEADING

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            _SLICES[cls.name] = cls

    @abstractmethod
    def answer(self, evidence: Evidence) -> Row | None:
        """The row of the decision (see `row`), or None where there is nothing to answer by."""

    def row(self, asks: str, answer: str, why: str, **figures: Any) -> Row:
        """What pages, the model card and `prosemill decision` show: the question, the answer and its reason in words.

        `answer` is PASSED, FAILED, UNDECIDED or TOO_FEW; `figures` are kept beside them.
        """
        return {"slice": self.name, "asks": asks, **figures, "answer": answer, "why": why}

    def limit(self, what: str, value: float, limit: float) -> Row:
        """The row of a value that must not be above `limit`."""
        number = "g" if isinstance(value, int) else ".3f"
        answer = PASSED if value <= limit else FAILED
        why = f"{what}: {value:{number}} of at most {limit:{number}}"
        return self.row(f"{what} at most {limit:.4g}", answer, why, value=value, limit=limit)

    def own_settings(self, evidence: Evidence) -> Any:
        """The table of this slice in the recipe."""
        return evidence.settings.slices[self.name]


@functools.lru_cache(maxsize=8)
def slices_of(named: frozenset[str]) -> tuple[Slice, ...]:
    """The slices that always decide, and those of plugins that are `named`; LEADING is the first."""
    own = {importlib.import_module(f"{__name__}.{module.name}").__name__ for module in pkgutil.iter_modules(__path__)}
    if named:
        plugins.load()
    if missing := sorted(named - _SLICES.keys()):
        raise RecipeError(f"gate.slices.{missing[0]}: has settings, but no slice; define one of that name")
    chosen = [kind for kind in _SLICES.values() if kind.__module__ in own or kind.name in named]
    return tuple(kind() for kind in sorted(chosen, key=lambda kind: (kind.name != LEADING, kind.position, kind.name)))
