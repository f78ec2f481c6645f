"""What the search decided, as the tables that a snapshot holds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from prosemill.dedup.known_index import Names
from prosemill.dedup.search import KeeperChoice
from prosemill.storage import arrow
from prosemill.storage.schemas import PAIR, REMOVED

MAX_STRING_BYTES = 2**30  # Arrow's limit for a string array is twice that


def takeable(table: pa.Table, column: str = "text") -> pa.Table:
    """`table`, its texts with 64-bit offsets where their sum would overflow those of Arrow's `take`."""
    place = table.column_names.index(column)
    if table[column].nbytes < MAX_STRING_BYTES:
        return table
    return table.set_column(place, column, table[column].cast(pa.large_string()))


def removed_table(choice: KeeperChoice, arrived: pa.Table, keepers: pa.Table | Names) -> pa.Table:
    """records.REMOVED. `arrived`: id and url of the documents of the run; `keepers`: of all keepers, by ordinal."""
    rows = arrived.take(_ordinals(removal.row for removal in choice.removed))
    twins = keepers.take(_ordinals(removal.keeper for removal in choice.removed))
    similarity = arrow.numbers(np.array([removal.similarity for removal in choice.removed], np.float64))
    reason = arrow.strings([removal.reason for removal in choice.removed])
    columns = [rows["id"], rows["url"], twins["id"], twins["url"], similarity, reason]
    return pa.Table.from_arrays(columns, schema=REMOVED)


def pairs_table(choice: KeeperChoice, keepers: pa.Table | Names) -> pa.Table:
    """records.PAIR, the older keeper first."""
    older = keepers.take(_ordinals(pair[0] for pair in choice.pairs))["id"]
    newer = keepers.take(_ordinals(pair[1] for pair in choice.pairs))["id"]
    similarity = arrow.numbers(np.array([pair[2] for pair in choice.pairs], np.float64))
    return pa.Table.from_arrays([older, newer, similarity], schema=PAIR)


def _ordinals(values: Iterable[int]) -> pa.Array:
    return arrow.numbers(np.fromiter(values, np.int64))
