"""What was done to something that is applied: created, changed (and in which fields), removed, or left as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Change:
    kind: str  # work pool, queue, deployment, automation …
    name: str
    change: Literal["created", "changed", "unchanged", "removed"]
    fields: Sequence[str] = field(default_factory=list)

    def __str__(self) -> str:
        which = f" ({', '.join(self.fields)})" if self.fields else ""
        return f"{self.kind} {self.name}: {self.change}{which}"


def change(kind: str, name: str, fields: Sequence[str]) -> Change:
    """Of something that was there before: changed in these fields, or unchanged when there is none."""
    return Change(kind, name, "changed" if fields else "unchanged", list(fields))


def differing(wanted: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Names of the fields in which what there is differs from what shall be."""
    return [name for name, value in wanted.items() if current.get(name) != value]
