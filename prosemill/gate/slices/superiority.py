"""Slice test: the challenger is better on the test documents, by more than the margin."""

from __future__ import annotations

from prosemill.gate.comparison import compare
from prosemill.gate.slices import FAILED, LEADING, PASSED, TOO_FEW, UNDECIDED, Evidence, Row, Slice


class Superiority(Slice):
    """The paired interval of challenger minus other lies below -margin."""

    name = LEADING

    def answer(self, evidence: Evidence) -> Row:
        settings, (one, other) = evidence.settings, evidence.of_part("test")
        numbers = compare(one, other, settings, evidence.confidence)
        low, high = numbers["interval"]
        bound = f"-{settings.margin:g}" if settings.margin else "0"
        if numbers["documents"] < settings.min_test_documents:
            wanted = settings.min_test_documents
            answer = TOO_FEW, f"fewer than {wanted} test documents (gate.min_test_documents) are not evidence"
        elif high < -settings.margin:
            answer = PASSED, f"the interval lies below {bound}, so it is shown to be better"
        elif low > 0:
            answer = FAILED, "the interval lies above 0, so it is shown to be worse"
        elif low >= -settings.margin:
            answer = FAILED, f"the interval does not reach below {bound}, so it is shown not to be better by enough"
        else:
            answer = UNDECIDED, f"the interval reaches beyond {bound} on both sides, so it may be better or not"
        return self.row(f"better by more than {settings.margin:g}", *answer, **numbers)
