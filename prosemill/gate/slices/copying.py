"""Slice copying: how much of what the challenger writes stands in the training text."""

from __future__ import annotations

from prosemill.gate.slices import Evidence, Row, Slice


class Copying(Slice):
    name = "copying"
    position = 40

    def answer(self, evidence: Evidence) -> Row | None:
        if not evidence.quality:
            return None
        limit = evidence.settings.max_copied + evidence.natural["copied"]
        return self.limit("share of copied 13-word runs", evidence.quality["copied"], limit)
