"""What a table of scores says: perplexity and bits per byte with intervals, by slice, and the paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prosemill.evaluation.bootstrap import Floats, ratio_interval
from prosemill.evaluation.documents import GENERAL, PARTS, TEST, week_of

LABELS = ("base", "previous", "champion", "challenger")
AGAINST = (
    ("challenger", "champion"),
    ("challenger", "base"),
    ("champion", "base"),
    ("champion", "previous"),
)
OLD, FRESH = "old", "fresh"  # test documents that the champion's corpus knew of, and newer ones


def summarise(scores: pa.Table, *, share_tokenizer: bool, dates: Mapping[str, str] | None = None) -> dict[str, Any]:
    """summary.json: `models` by label; `differences` by "challenger-champion" … (negative: the first is better).

    The figures of a model are those of the test split; `parts`, `sources`, `weeks` and `slices` break them down.
    Perplexity is per token and only compares models with one tokenizer, `share_tokenizer`; bits per byte compares any.
    `dates`: the newest corpus that each model learned from. What is old and fresh is told by the champion's.
    """
    dates = dict(dates or {})
    whole = {label: scores.filter(pc.equal(scores["model"], label)) for label in LABELS}
    tables = {label: table for label, table in whole.items() if table.num_rows}
    known = dates.get("champion", "")
    pairs = [(one, other) for one, other in AGAINST if one in tables and other in tables]
    return {
        "models": {label: _of_model(table, known, dates.get(label, "")) for label, table in tables.items()},
        "differences": {f"{a}-{b}": difference(_test(tables[a]), _test(tables[b])) for a, b in pairs},
        "slices": {f"{a}-{b}": _sliced(tables[a], tables[b], known) for a, b in pairs},
        "dates": dates,
        "share_tokenizer": share_tokenizer,
    }


def slices_of(table: pa.Table, known: str) -> dict[str, pa.Table]:
    """old, fresh and general parts of one model's scores, those that there are; `known` is the champion's date."""
    test = _test(table)
    is_old = np.array([bool(known) and first <= known for first in test["first_seen"].to_pylist()], dtype=bool)
    cut = {
        OLD: test.filter(pa.array(is_old)),
        FRESH: test.filter(pa.array(~is_old)),
        GENERAL: table.filter(pc.equal(table["part"], GENERAL)),
    }
    return {name: part for name, part in cut.items() if part.num_rows}


def difference(one: pa.Table, other: pa.Table, **options: Any) -> dict[str, Any]:
    """Bits per byte of `one` minus those of `other` on the same documents, in the same order, with its interval."""
    if one["document"].to_pylist() != other["document"].to_pylist():
        raise ValueError("two models were scored on different documents")
    gain, size = floats(one, "nats") - floats(other, "nats"), floats(one, "size_bytes")
    value, (low, high) = gain.sum() / size.sum(), ratio_interval(gain, size, **options)
    return {
        "bits_per_byte": _bits(value),
        "interval": [_bits(low), _bits(high)],
        "documents": one.num_rows,
        "improved_documents": int((gain < 0).sum()),
    }


def floats(table: pa.Table, column: str) -> Floats:
    return table[column].to_numpy().astype(np.float64)  # type: ignore[no-any-return]


def _test(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["part"], TEST))


def _sliced(one: pa.Table, other: pa.Table, known: str) -> dict[str, Any]:
    """Differences by slice, and on the test documents of each source."""
    first, second = slices_of(one, known), slices_of(other, known)
    by_source = (_by(_test(one), "source"), _by(_test(other), "source"))
    differences = {name: difference(first[name], second[name]) for name in first}
    return differences | {f"source {name}": difference(part, by_source[1][name]) for name, part in by_source[0].items()}


def _of_model(table: pa.Table, known: str, date: str) -> dict[str, Any]:
    test = _test(table)
    nats, tokens, size = (floats(test, name) for name in ("nats", "num_tokens", "size_bytes"))
    parts = {part: table.filter(pc.equal(table["part"], part)) for part in PARTS}
    weeks = test.append_column("week", pa.array([week_of(day) for day in test["first_seen"].to_pylist()]))
    newer = test.filter(pc.greater(test["first_seen"], date))
    return {
        "id": table["model_id"][0].as_py(),
        **_figures(test),
        "perplexity_interval": [math.exp(end) for end in ratio_interval(nats, tokens)],
        "bits_per_byte_interval": [_bits(end) for end in ratio_interval(nats, size)],
        "sources": {source: _figures(part) for source, part in _by(test, "source").items()},
        "weeks": {week: _figures(part) for week, part in _by(weeks, "week").items()},
        "parts": {part: _figures(rows) for part, rows in parts.items() if rows.num_rows},
        "slices": {name: _figures(part) for name, part in slices_of(table, known).items()},
        "newer_than_model": _figures(newer) if newer.num_rows else None,
    }


def _by(table: pa.Table, column: str) -> dict[str, pa.Table]:
    return {value: table.filter(pc.equal(table[column], value)) for value in sorted(set(table[column].to_pylist()))}


def _figures(table: pa.Table) -> dict[str, Any]:
    nats, tokens, size = (math.fsum(floats(table, name)) for name in ("nats", "num_tokens", "size_bytes"))
    return {
        "perplexity": math.exp(nats / tokens) if tokens else math.nan,
        "bits_per_byte": _bits(nats / size),
        "documents": table.num_rows,
        "tokens": int(tokens),
        "bytes": int(size),
    }


def _bits(nats: float) -> float:
    return float(nats) / math.log(2)
