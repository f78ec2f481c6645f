"""Slice repetition: how much the challenger repeats itself."""

from __future__ import annotations

from prosemill.gate.slices import Evidence, Row, Slice


class Repetition(Slice):
    name = "repetition"
    position = 60

    def answer(self, evidence: Evidence) -> Row | None:
        if not evidence.quality:
            return None
        limit = evidence.settings.max_repetition
        return self.limit("share of repeated 4-word runs", evidence.quality["repetition"], limit)
