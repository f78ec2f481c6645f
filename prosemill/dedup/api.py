"""Near-duplicate removal as a function of texts or a table, without a store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prosemill.config.environment import DedupEngine
from prosemill.config.settings import Dedup
from prosemill.dedup.index import History
from prosemill.dedup.inputs import Data, take_rows, text_table
from prosemill.dedup.minhash import BATCH_TEXTS, Parameters, sign_arrays
from prosemill.dedup.search import choose
from prosemill.dedup.tables import pairs_table, removed_table
from prosemill.storage import arrow


@dataclass(frozen=True)
class DedupResult(Generic[Data]):
    """What stays and what goes.

    `keepers` are rows of the input, in its order and of its kind, and `rows` their numbers. `removed` (a pyarrow table:
    id, url, keeper, keeper_url, similarity, reason exact | near) has a row for each of the others; `pairs` (a, b,
    similarity) names keepers that are alike, though not enough to be copies: to be kept on one side of a split.
    """

    keepers: Data
    rows: NDArray[np.int64]
    removed: pa.Table
    pairs: pa.Table


def remove_duplicates(
    data: Data,
    settings: Dedup | None = None,
    *,
    text_column: str = "text",
    threshold: float | None = None,
    engine: DedupEngine | None = None,
) -> DedupResult[Data]:
    """Exact and near-copies out of a list of texts or a table, keeping the first of each.

    Args:
        data: A list or tuple of texts; a table of pyarrow, pandas or polars; a Dataset of `datasets`. Columns `id` (row
            numbers where absent) and `url` name documents in the results.
        settings: `prosemill.config.settings.Dedup`: length of signatures and shingles, both thresholds.
        text_column: The column that holds the text; null is an empty text.
        threshold: Jaccard similarity of word 5-grams, 0.5 to 1, from which a text is a copy; by default that of
            `settings`, 0.8.
        engine: What signs the texts, numba or datasketch, to the same result; by default numba where it works.

    Candidates are found by MinHash and bands (Broder 1997; Leskovec, Rajaraman & Ullman 2014, chapter 3), then compared
    exactly: nothing is removed that is less alike than the threshold. Repeated lines are left alone. TypeError for
    another kind of data, RecipeError for a table without the column, ValueError for a threshold out of bounds.

    >>> from prosemill import remove_duplicates
    >>> salt = "The mill at the bottom of the sea grinds salt, which is why the sea is salt to this day."
    >>> found = remove_duplicates([salt, "A heron waits.", salt.upper()])
    >>> found.keepers[1:], found.rows.tolist()
    (['A heron waits.'], [0, 1])
    >>> found.removed.select(["id", "keeper", "reason"]).to_pylist()
    [{'id': '2', 'keeper': '0', 'reason': 'exact'}]
    """
    settings = settings or Dedup()
    if threshold is not None:
        loose = min(threshold, settings.loose_threshold)
        settings = Dedup.model_validate(settings.model_dump() | {"threshold": threshold, "loose_threshold": loose})
    table = text_table(data, text_column)
    signed = sign_arrays(_texts(table), Parameters.of(settings), engine=engine)
    choice = choose(signed, History([]), settings)
    rows = np.array(choice.kept, np.int64)
    arrived = _names(table)
    keepers = arrived.take(arrow.numbers(rows))
    return DedupResult(
        take_rows(data, rows, text_column), rows, removed_table(choice, arrived, keepers), pairs_table(choice, keepers)
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
