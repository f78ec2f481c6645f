"""Slice general text: no worse than the champion on text of other people, by which forgetting is seen."""

from __future__ import annotations

from prosemill.gate.comparison import non_inferiority
from prosemill.gate.slices import Evidence, Row, Slice


class GeneralText(Slice):
    name = "general text"
    position = 30

    def answer(self, evidence: Evidence) -> Row | None:
        one, other = evidence.of_part("general")
        if evidence.against != "champion" or not one:
            return None
        bound = evidence.settings.max_general_loss
        return self.row(**non_inferiority(one, other, bound, evidence.settings))
