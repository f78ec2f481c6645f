"""Slice old text: no worse than the champion on test documents that the champion's corpus knew."""

from __future__ import annotations

from prosemill.gate.comparison import non_inferiority
from prosemill.gate.slices import Evidence, Row, Slice


class OldText(Slice):
    name = "old text"
    position = 20

    def answer(self, evidence: Evidence) -> Row | None:
        known = str(evidence.summary.get("dates", {}).get("champion", ""))
        one, other = evidence.of_part("test")
        old = [pair for pair in zip(one, other, strict=True) if known and pair[0]["first_seen"] <= known]
        if evidence.against != "champion" or not old:
            return None
        rows = [one for one, _ in old], [other for _, other in old]
        return self.row(**non_inferiority(*rows, evidence.settings.max_old_loss, evidence.settings))
