"""The confidence that a decision takes when its test documents were used before.

Every comparison on the same documents is another chance to be promoted by luck: a hundred runs at 2.5 % each all but
promise a false promotion. So the chance is a budget that is spent (alpha spending: Lan & DeMets 1983; for an endless
row of tests Foster & Stine 2008; for a reused held-out set Blum & Hardt 2015). The k-th use of a set may promote a
model that is no better with probability (1 - confidence) / (k (k + 1)). These add up to 1 - confidence over all uses
there will ever be, however they depend on one another (Bonferroni); the first is the usual two-sided interval, 2.5 %
at 95 %. The price is small: it takes 2.0 standard errors at the first use, 3.9 at the thirtieth, 5.0 after a year.

New test documents are unspent. A use counts by the share of this run's test text that it saw; the sum is rounded
up: exact where test sets are equal (k counts all uses) or disjoint (k is 1), and between the two where they overlap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set


def uses(sizes: Mapping[str, float], earlier: Sequence[Set[str]]) -> int:
    """Which use of this run's test set this is, 1 for the first. `sizes`: size by document; `earlier`: of each use."""
    total = sum(sizes.values())
    seen = math.fsum(sum(size for id, size in sizes.items() if id in before) for before in earlier)
    return 1 + math.ceil(round(seen / total, 6)) if total else 1


def confidence_of(use: int, confidence: float) -> float:
    """Of the two-sided interval whose one end has to be beyond the margin at the `use`-th use."""
    return 1 - 2 * (1 - confidence) / (use * (use + 1))
