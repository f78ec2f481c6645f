"""Near-duplicate removal as a function of one table, without a store."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from prosemill.dedup.index import History
from prosemill.dedup.minhash import Parameters, sign
from prosemill.dedup.search import choose
from prosemill.dedup.tables import pairs_table, removed_table, takeable
from prosemill.errors import RecipeError
from prosemill.settings import Dedup


@dataclass(frozen=True)
class Deduplicated:
    """keepers: rows of the input, in its order. removed: records.REMOVED. pairs: records.PAIR, between keepers."""

    keepers: pa.Table
    removed: pa.Table
    pairs: pa.Table


def remove_duplicates(table: pa.Table, settings: Dedup | None = None) -> Deduplicated:
    """Exact and near-copies out of `table`, keeping the first of each; repeated lines are left alone.

    Needs a column `text`; `id` (row numbers where absent) and `url` name documents in the results.
    """
    settings = settings or Dedup()
    if "text" not in table.column_names:
        found = ", ".join(table.column_names) or "none"
        raise RecipeError(f"no column text among the columns {found}; rename the one that holds the text")
    texts = (text or "" for chunk in table["text"].chunks for text in chunk.to_pylist())
    choice = choose(sign(texts, Parameters.of(settings)), History([]), settings)
    rows = pa.array(choice.kept, pa.int64())
    arrived = _names(table)
    keepers = arrived.take(rows)
    return Deduplicated(
        takeable(table).take(rows), removed_table(choice, arrived, keepers), pairs_table(choice, keepers)
    )


def _names(table: pa.Table) -> pa.Table:
    numbers = pa.array([str(row) for row in range(table.num_rows)], pa.string())
    ids = table["id"].cast(pa.string()) if "id" in table.column_names else numbers
    urls = table["url"].cast(pa.string()) if "url" in table.column_names else pa.array([""] * table.num_rows)
    return pa.table({"id": ids, "url": urls})
