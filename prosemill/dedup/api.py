"""Near-duplicate removal as a function of one table, without a store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prosemill.config.settings import Dedup
from prosemill.dedup.index import History
from prosemill.dedup.minhash import BATCH_TEXTS, Parameters, sign_arrays
from prosemill.dedup.search import choose
from prosemill.dedup.tables import pairs_table, removed_table, takeable
from prosemill.errors import RecipeError
from prosemill.storage import arrow


@dataclass(frozen=True)
class DedupTables:
    """keepers: rows of the input, in its order. removed: records.REMOVED. pairs: records.PAIR, between keepers."""

    keepers: pa.Table
    removed: pa.Table
    pairs: pa.Table


def remove_duplicates(table: pa.Table, settings: Dedup | None = None) -> DedupTables:
    """Exact and near-copies out of `table`, keeping the first of each; repeated lines are left alone.

    Needs a column `text`; `id` (row numbers where absent) and `url` name documents in the results.
    """
    settings = settings or Dedup()
    if "text" not in table.column_names:
        found = ", ".join(table.column_names) or "none"
        raise RecipeError(f"no column text among the columns {found}; rename the one that holds the text")
    choice = choose(sign_arrays(_texts(table), Parameters.of(settings)), History([]), settings)
    rows = arrow.numbers(np.array(choice.kept, np.int64))
    arrived = _names(table)
    keepers = arrived.take(rows)
    return DedupTables(
        takeable(table).take(rows), removed_table(choice, arrived, keepers), pairs_table(choice, keepers)
    )


def _texts(table: pa.Table) -> Iterator[pa.LargeStringArray]:
    for chunk in table["text"].cast(pa.large_string()).chunks:
        for start in range(0, len(chunk), BATCH_TEXTS):
            texts = chunk.slice(start, BATCH_TEXTS)
            yield pc.fill_null(texts, "") if texts.null_count else texts


def _names(table: pa.Table) -> pa.Table:
    numbers = arrow.strings(map(str, range(table.num_rows)))
    ids = table["id"].cast(pa.string()) if "id" in table.column_names else numbers
    urls = table["url"].cast(pa.string()) if "url" in table.column_names else arrow.strings([""] * table.num_rows)
    return pa.Table.from_arrays([ids, urls], names=["id", "url"])
