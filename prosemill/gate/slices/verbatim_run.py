"""Slice verbatim run: the longest passage that the challenger takes from the training text."""

from __future__ import annotations

from prosemill.gate.slices import Evidence, Row, Slice


class VerbatimRun(Slice):
    name = "verbatim run"
    position = 50

    def answer(self, evidence: Evidence) -> Row | None:
        if not evidence.quality:
            return None
        limit = max(evidence.settings.max_verbatim_words, evidence.natural["longest_run_words"])
        return self.limit("words in the longest copied run", evidence.quality["longest_run_words"], limit)
