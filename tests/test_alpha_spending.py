"""The same test documents over months: the chance of a false promotion stays within one budget."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from prosemill.evaluation.bootstrap import ratio_interval
from prosemill.gate.alpha_spending import confidence_of, uses

SIZES = {str(number): 100.0 for number in range(10)}


def test_what_is_spent_adds_up_to_the_budget() -> None:
    spent = [(1 - confidence_of(use, 0.95)) / 2 for use in range(1, 100_001)]
    assert spent[0] == pytest.approx(0.025)  # the first use is the plain two-sided interval
    assert all(later < earlier for earlier, later in itertools.pairwise(spent))
    assert math.fsum(spent) == pytest.approx(0.05, rel=1e-4)
    assert math.fsum(spent) < 0.05


def test_a_use_counts_by_what_it_saw() -> None:
    same, other = set(SIZES), {"x", "y"}
    assert uses(SIZES, []) == 1
    assert uses(SIZES, [same] * 5) == 6
    assert uses(SIZES, [other] * 5) == 1
    half = set(list(SIZES)[:5])
    assert uses(SIZES, [half]) == 2  # rounded up, to the safe side
    assert uses(SIZES, [half, half]) == 2
    assert uses({**SIZES, "new": 9000.0}, [same] * 5) == 2  # mostly new text


def test_a_year_of_runs_on_the_same_documents_seldom_promotes_a_model_that_is_no_better() -> None:
    """200 years of 60 runs; without spending two in three years have a false promotion."""
    random = np.random.default_rng(0)
    years, increments, documents = 200, 60, 40
    gains = random.normal(0, 1, (years, increments, documents))
    ends = gains.mean(axis=2) / (gains.std(axis=2, ddof=1) / math.sqrt(documents))  # how a bootstrap would see it
    tails = np.array([(1 - confidence_of(use, 0.95)) / 2 for use in range(1, increments + 1)])
    from scipy.stats import t

    promoted = ends < t.ppf(tails, documents - 1)
    assert promoted.any(axis=1).mean() <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / years)
    assert (ends < t.ppf(0.025, documents - 1)).any(axis=1).mean() > 0.6


def test_a_confidence_beyond_what_resamples_tell_goes_on_as_a_normal_distribution() -> None:
    random = np.random.default_rng(1)
    size = random.integers(500, 1500, 400).astype(float)
    nats = size * 0.1 + random.normal(0, 30, 400)
    plain = ratio_interval(nats, size, confidence=0.95, resamples=10_000)
    strict = ratio_interval(nats, size, confidence=confidence_of(60, 0.95), resamples=10_000)
    middle, error = nats.sum() / size.sum(), 30 * math.sqrt(400) / size.sum()
    assert strict[0] < plain[0] < plain[1] < strict[1]
    assert (middle - strict[0]) / error == pytest.approx(4.19, rel=0.1)  # normal quantile of .05 / 60 / 61
    assert (strict[1] - middle) / error == pytest.approx(4.19, rel=0.1)
