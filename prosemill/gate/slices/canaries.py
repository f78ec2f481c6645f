"""Slice canaries: the challenger gives away no planted sentence."""

from __future__ import annotations

from prosemill.gate.slices import Evidence, Row, Slice


class Canaries(Slice):
    name = "canaries"
    position = 70

    def answer(self, evidence: Evidence) -> Row | None:
        if not evidence.quality.get("canaries"):
            return None
        return self.limit("planted sentences given away", len(evidence.quality["canaries_given_away"]), 0)
