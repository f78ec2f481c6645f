"""The rule of the gate: which slices are compared, by which test, and what the answers together mean.

    test            superiority: the paired interval of challenger minus other lies below -margin
    old, general    non-inferiority against the champion: the interval lies below the bound
    copying, repetition, canaries    limits on what the challenger writes, whatever the other does

A challenger is promoted if every test says yes. That it takes them all needs no correction for their number (an
intersection-union test, Berger 1982); that the same documents are used again does (`prosemill.gate.alpha_spending`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prosemill.config.settings import Gate
from prosemill.evaluation.bootstrap import Floats, ratio_interval

Row = dict[str, Any]

PROMOTE, REJECT, NOT_ENOUGH_EVIDENCE = "promote", "reject", "not-enough-evidence"
PASSED, FAILED, UNDECIDED, TOO_FEW = "passed", "failed", "undecided", "too few documents"
TEST, OLD, FRESH, GENERAL = "test", "old text", "fresh text", "general text"


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


def superiority(numbers: Row, settings: Gate) -> Row:
    """The slice test. Passed: better by more than the margin. Failed: shown not to be. Else undecided."""
    low, high = numbers["interval"]
    bound = f"-{settings.margin:g}" if settings.margin else "0"
    if numbers["documents"] < settings.min_test_documents:
        wanted = settings.min_test_documents
        answer = TOO_FEW, f"fewer than {wanted} test documents (gate.min_test_documents) are no evidence"
    elif high < -settings.margin:
        answer = PASSED, f"the interval lies below {bound}, so it is shown to be better"
    elif low > 0:
        answer = FAILED, "the interval lies above 0, so it is shown to be worse"
    elif low >= -settings.margin:
        answer = FAILED, f"the interval does not reach below {bound}, so it is shown not to be better by enough"
    else:
        answer = UNDECIDED, f"the interval reaches beyond {bound} on both sides, so it may be better or not"
    return {"slice": TEST, "asks": f"better by more than {settings.margin:g}", **numbers, **_as_fields(answer)}


def non_inferiority(name: str, numbers: Row, bound: float, settings: Gate) -> Row:
    """A slice on which the challenger must not lose more than `bound` bits per byte. Too few documents do not judge."""
    low, high = numbers["interval"]
    if numbers["documents"] < settings.min_test_documents:
        answer = TOO_FEW, f"{numbers['documents']} documents are too few to judge by"
    elif high < bound:
        answer = PASSED, f"it loses less than {bound:g} bits per byte"
    elif low > bound:
        answer = FAILED, f"it loses more than {bound:g} bits per byte ({low:+.4f} to {high:+.4f})"
    else:
        answer = UNDECIDED, f"it may lose more than {bound:g} bits per byte ({low:+.4f} to {high:+.4f})"
    return {"slice": name, "asks": f"worse by less than {bound:g}", **numbers, **_as_fields(answer)}


def limits(quality: Mapping[str, Any], natural: Mapping[str, Any], settings: Gate) -> list[Row]:
    """Slices of what the challenger writes: `quality` is its own, `natural` that of the test documents."""
    copied = settings.max_copied + natural["copied"]
    longest = max(settings.max_verbatim_words, natural["longest_run_words"])
    given_away = quality["canaries_given_away"]
    found = [
        _limit("copying", "share of copied 13-word runs", quality["copied"], copied),
        _limit("verbatim run", "words in the longest copied run", quality["longest_run_words"], longest),
        _limit("repetition", "share of repeated 4-word runs", quality["repetition"], settings.max_repetition),
    ]
    if quality["canaries"]:
        found.append(_limit("canaries", "planted sentences given away", len(given_away), 0))
    return found


def combine(slices: Sequence[Row], against: str) -> Row:
    """decision, reason (one sentence that names the slices it rests on) and `refused`, the names of failed slices."""
    first, rest = slices[0], slices[1:]
    failed = [each for each in rest if each["answer"] == FAILED]
    unsure = [each for each in rest if each["answer"] == UNDECIDED]
    refused = [each["slice"] for each in slices if each["answer"] == FAILED]
    if first["answer"] == TOO_FEW:
        decision, why = NOT_ENOUGH_EVIDENCE, first["why"]
    elif failed:
        decision, why = REJECT, f"{first['why']}, but refused for {_list(failed)}"
    elif first["answer"] == FAILED:
        decision, why = REJECT, first["why"]
    elif first["answer"] == UNDECIDED:
        decision, why = NOT_ENOUGH_EVIDENCE, first["why"]
    elif unsure:
        decision, why = NOT_ENOUGH_EVIDENCE, f"{first['why']}, but it is not shown to hold its own: {_list(unsure)}"
    else:
        decision, why = PROMOTE, first["why"]
    return {"decision": decision, "reason": _sentence(first, against, why), "refused": refused}


def _limit(name: str, what: str, value: float, limit: float) -> Row:
    is_within = value <= limit
    why = (
        f"{what}: {value:g} of at most {limit:g}"
        if isinstance(value, int)
        else f"{what}: {value:.3f} of at most {limit:.3f}"
    )
    answer = PASSED if is_within else FAILED
    return {"slice": name, "asks": f"{what} at most {limit:.4g}", "value": value, "limit": limit} | _as_fields(
        (answer, why)
    )


def _as_fields(answer: tuple[str, str]) -> Row:
    return {"answer": answer[0], "why": answer[1]}


def _list(slices: Sequence[Row]) -> str:
    return "; ".join(f"{each['slice']} ({each['why']})" for each in slices)


def _sentence(numbers: Row, against: str, why: str) -> str:
    """ "The challenger needs 0.031 bits per byte less than the champion (95 % interval -0.040 to -0.022, …): …" """
    difference, (low, high) = numbers["difference_bits_per_byte"], numbers["interval"]
    return (
        f"The challenger needs {abs(difference):.4f} bits per byte {'less' if difference < 0 else 'more'} than the "
        f"{against} ({_percent(numbers['confidence'])} interval {low:+.4f} to {high:+.4f}, better on "
        f"{numbers['improved_documents']} of {numbers['documents']} test documents): {why}."
    )


def _percent(confidence: float) -> str:
    """ "95%"; as many digits as it takes not to say 100%."""
    text = f"{100 * confidence:.4g}"
    return "over 99.99%" if text == "100" else f"{text}%"


def _column(rows: Sequence[Row], name: str) -> Floats:
    return np.array([row[name] for row in rows], dtype=np.float64)
