"""Whether one model is shown to be better than another, as a function of their scores, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosemill.config.settings import Gate
from prosemill.gate.alpha_spending import confidence_of
from prosemill.gate.rule import combine
from prosemill.gate.slices import Evidence
from prosemill.gate.slices.superiority import Superiority

Numbers = Sequence[float] | NDArray[Any]


@dataclass(frozen=True)
class GateDecision:
    """`decision`: promote, reject or not-enough-evidence. Differences are in bits per byte; negative is better."""

    decision: str
    reason: str  # one sentence with the numbers
    difference: float
    interval: tuple[float, float]
    confidence: float  # of the interval
    documents: int
    improved_documents: int


def decide(
    challenger: Numbers, champion: Numbers, size_bytes: Numbers, settings: Gate | None = None, *, use: int = 1
) -> GateDecision:
    """The decision on a challenger by two models' scores of the same documents, which neither has trained on.

    Args:
        challenger: Nats of each document (`score(…).nats`), shape (documents,).
        champion: The same of the model in use, for the same documents in the same order.
        size_bytes: Size of each document in UTF-8 (`score(…).size_bytes`), shape (documents,).
        settings: `prosemill.config.settings.Gate`: `margin` to gain beyond (0.005 bits per byte), `confidence` (0.95),
            `min_test_documents` (5), `resamples`, `seed`.
        use: The how-manieth decision on these documents it is, from 1: each takes more evidence than the one before.

    The interval is a paired bootstrap over documents, percentile method (Efron & Tibshirani 1993); repeated use spends
    alpha (Foster & Stine 2008). promote: the interval lies below -margin. reject: it is shown not to. Else
    not-enough-evidence. ValueError where the shapes differ, a size is not positive, or a number is not finite.

    >>> from prosemill import decide
    >>> champion = [700.0, 812.5, 655.0, 930.0, 701.0, 788.0]
    >>> found = decide([nats - 40 for nats in champion], champion, [900, 1000, 850, 1200, 880, 990])
    >>> found.decision, round(found.difference, 3), found.improved_documents
    ('promote', -0.059, 6)
    >>> decide(champion, champion, [900, 1000, 850, 1200, 880, 990]).decision
    'reject'
    """
    settings = settings or Gate()
    nats = [np.asarray(scores, np.float64) for scores in (challenger, champion)]
    sizes = np.asarray(size_bytes, np.float64)
    _check(nats[0], nats[1], sizes, use)
    one, other = (
        [{"part": "test", "nats": value, "size_bytes": size} for value, size in zip(scores, sizes, strict=True)]
        for scores in nats
    )
    confidence = confidence_of(use, settings.confidence)
    numbers = Superiority().answer(Evidence(one, other, "champion", confidence, {}, settings))
    decided = combine([numbers], "champion")
    return GateDecision(
        decision=decided["decision"],
        reason=decided["reason"],
        difference=numbers["difference_bits_per_byte"],
        interval=(numbers["interval"][0], numbers["interval"][1]),
        confidence=numbers["confidence"],
        documents=numbers["documents"],
        improved_documents=numbers["improved_documents"],
    )


def _check(challenger: NDArray[Any], champion: NDArray[Any], sizes: NDArray[Any], use: int) -> None:
    shapes = challenger.shape, champion.shape, sizes.shape
    if len(set(shapes)) > 1 or sizes.ndim != 1 or not len(sizes):
        raise ValueError(f"challenger, champion and size_bytes have shapes {shapes}; give a number a document in each")
    if not all(np.isfinite(values).all() for values in (challenger, champion, sizes)) or sizes.min() <= 0:
        raise ValueError("every score must be a finite number, and every document have at least a byte")
    if use < 1:
        raise ValueError(f"use = {use}: the first decision on these documents is 1")
