"""How two models are compared on the same documents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from prosemill.config.settings import Gate
from prosemill.evaluation.bootstrap import Floats, ratio_interval
from prosemill.gate.slices import FAILED, PASSED, TOO_FEW, UNDECIDED, Row


def compare(one: Sequence[Row], other: Sequence[Row], settings: Gate, confidence: float) -> Row:
    """The paired difference in bits per byte (negative: `one` is better) on the same documents in the same order."""
    gain = (_column(one, "nats") - _column(other, "nats")) / math.log(2)
    size = _column(one, "size_bytes")
    low, high = ratio_interval(gain, size, confidence=confidence, resamples=settings.resamples, seed=settings.seed)
    return {
        "difference_bits_per_byte": float(gain.sum() / size.sum()),
        "interval": [low, high],
        "confidence": confidence,
        "documents": len(one),
        "improved_documents": int((gain < 0).sum()),
    }


def non_inferiority(one: Sequence[Row], other: Sequence[Row], bound: float, settings: Gate) -> Row:
    """Whether `one` loses less than `bound` bits per byte: fields of a slice's row. Too few documents do not refuse."""
    numbers = compare(one, other, settings, settings.confidence)
    low, high = numbers["interval"]
    if numbers["documents"] < settings.min_test_documents:
        answer, why = TOO_FEW, f"{numbers['documents']} documents are too few to decide on"
    elif high < bound:
        answer, why = PASSED, f"it loses less than {bound:g} bits per byte"
    elif low > bound:
        answer, why = FAILED, f"it loses more than {bound:g} bits per byte ({low:+.4f} to {high:+.4f})"
    else:
        answer, why = UNDECIDED, f"it may lose more than {bound:g} bits per byte ({low:+.4f} to {high:+.4f})"
    return {"asks": f"worse by less than {bound:g}", **numbers, "answer": answer, "why": why}


def _column(rows: Sequence[Row], name: str) -> Floats:
    return np.array([row[name] for row in rows], dtype=np.float64)
