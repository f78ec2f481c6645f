"""What a table of scores says: perplexity and bits per byte with intervals, and the paired differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prosemill.bootstrap import Floats, ratio_interval

LABELS = ("base", "champion", "challenger")
AGAINST = (("challenger", "champion"), ("challenger", "base"), ("champion", "base"))


def summarise(scores: pa.Table, *, share_tokenizer: bool) -> dict[str, Any]:
    """summary.json: `models` by label; `differences` by "challenger-champion" … (negative: the first is better).

    Perplexity is per token and only compares models with one tokenizer, `share_tokenizer`; bits per byte compares any.
    """
    tables = {label: scores.filter(pc.equal(scores["model"], label)) for label in LABELS}
    found = {label: table for label, table in tables.items() if table.num_rows}
    differences = {
        f"{one}-{other}": difference(found[one], found[other])
        for one, other in AGAINST
        if one in found and other in found
    }
    return {
        "models": {label: _of_model(table) for label, table in found.items()},
        "differences": differences,
        "share_tokenizer": share_tokenizer,
    }


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


def _of_model(table: pa.Table) -> dict[str, Any]:
    sources = sorted(set(table["source"].to_pylist()))
    by_source = {source: table.filter(pc.equal(table["source"], source)) for source in sources}
    nats, tokens, size = floats(table, "nats"), floats(table, "num_tokens"), floats(table, "size_bytes")
    return {
        "id": table["model_id"][0].as_py(),
        **_figures(table),
        "perplexity_interval": [math.exp(end) for end in ratio_interval(nats, tokens)],
        "bits_per_byte_interval": [_bits(end) for end in ratio_interval(nats, size)],
        "sources": {source: _figures(part) for source, part in by_source.items()},
    }


def _figures(table: pa.Table) -> dict[str, Any]:
    nats, tokens, size = (math.fsum(floats(table, name)) for name in ("nats", "num_tokens", "size_bytes"))
    return {
        "perplexity": math.exp(nats / tokens),
        "bits_per_byte": _bits(nats / size),
        "documents": table.num_rows,
        "tokens": int(tokens),
        "bytes": int(size),
    }


def _bits(nats: float) -> float:
    return float(nats) / math.log(2)
