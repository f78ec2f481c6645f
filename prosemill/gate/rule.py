"""The rule of the gate: what the answers of its slices together mean.

    test            superiority: the paired interval of challenger minus other lies below -margin
    old, general    non-inferiority against the champion: the interval lies below the bound
    copying, repetition, canaries    limits on what the challenger writes, whatever the other does

A challenger is promoted if every test says yes. That it takes them all needs no correction for their number (an
intersection-union test, Berger 1982); that the same documents are used again does (`prosemill.gate.alpha_spending`).
"""

from __future__ import annotations

from collections.abc import Sequence

from prosemill.gate.slices import FAILED, TOO_FEW, UNDECIDED, Row

PROMOTE, REJECT, NOT_ENOUGH_EVIDENCE = "promote", "reject", "not-enough-evidence"


def combine(slices: Sequence[Row], against: str) -> Row:
    """decision, reason (one sentence that names the slices it rests on) and `refused`, the names of failed slices."""
    first, rest = slices[0], slices[1:]
    failed = [row for row in rest if row["answer"] == FAILED]
    unsure = [row for row in rest if row["answer"] == UNDECIDED]
    refused = [row["slice"] for row in slices if row["answer"] == FAILED]
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


def _list(slices: Sequence[Row]) -> str:
    return "; ".join(f"{row['slice']} ({row['why']})" for row in slices)


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
