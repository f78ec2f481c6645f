"""What the search decided, as the tables that a snapshot holds."""

from __future__ import annotations

import pyarrow as pa

from prosemill.dedup.search import Choice
from prosemill.records import PAIR, REMOVED

MAX_STRING_BYTES = 2**30  # Arrow's limit for a string array is twice that


def takeable(table: pa.Table) -> pa.Table:
    """`table`, its texts with 64-bit offsets where their sum would overflow those of Arrow's `take`."""
    place = table.column_names.index("text")
    if table["text"].nbytes < MAX_STRING_BYTES:
        return table
    return table.set_column(place, "text", table["text"].cast(pa.large_string()))


def removed_table(choice: Choice, arrived: pa.Table, keepers: pa.Table) -> pa.Table:
    """records.REMOVED. `arrived`: id and url of the documents of the night; `keepers`: of all keepers, by ordinal."""
    rows = arrived.take(pa.array([each.row for each in choice.removed], pa.int64()))
    twins = keepers.take(pa.array([each.keeper for each in choice.removed], pa.int64()))
    similarity = pa.array([each.similarity for each in choice.removed], pa.float64())
    reason = pa.array([each.reason for each in choice.removed], pa.string())
    columns = [rows["id"], rows["url"], twins["id"], twins["url"], similarity, reason]
    return pa.table(columns, schema=REMOVED)


def pairs_table(choice: Choice, keepers: pa.Table) -> pa.Table:
    """records.PAIR, the older keeper first."""
    older = keepers["id"].take(pa.array([pair[0] for pair in choice.pairs], pa.int64()))
    newer = keepers["id"].take(pa.array([pair[1] for pair in choice.pairs], pa.int64()))
    return pa.table([older, newer, pa.array([pair[2] for pair in choice.pairs], pa.float64())], schema=PAIR)
