"""Texts as a library's user has them: a list, a table of pyarrow, pandas or polars, a data set of `datasets`.

None of these packages is imported here: what a value can do says what it is.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prosemill.dedup.tables import takeable
from prosemill.errors import RecipeError
from prosemill.storage import arrow

Data = TypeVar("Data")

TEXT = "text"


def text_table(data: Any, text_column: str) -> pa.Table:
    """The column `text`, and `id` and `url` where it has them, of `data`; else TypeError or RecipeError."""
    if isinstance(data, list | tuple):
        wrong = next((text for text in data if not isinstance(text, str | None)), None)
        if wrong is not None:
            raise TypeError(f"a list of texts holds {type(wrong).__name__}; give texts, or a table and its text_column")
        return pa.Table.from_arrays([arrow.strings(text or "" for text in data)], names=[TEXT])
    columns = list(getattr(data, "column_names", getattr(data, "columns", ())))
    if not columns:
        raise TypeError(f"{type(data).__name__}: is not a list of texts, a table or a data set with columns")
    if text_column not in columns:
        raise RecipeError(f"no column {text_column} among the columns {', '.join(map(str, columns))}; name another")
    wanted = [text_column, *(name for name in ("id", "url") if name in columns and name != text_column)]
    table = _selected(data, wanted)
    return table.rename_columns([TEXT, *wanted[1:]])


def _selected(data: Any, columns: list[str]) -> pa.Table:
    if isinstance(data, pa.Table):
        return data.select(columns)
    if hasattr(data, "with_format"):  # datasets.Dataset
        return pa.table(data.select_columns(columns).with_format("arrow")[:])
    return pa.table(data[columns]).select(columns)  # pandas, whose index comes along, and polars


def take_rows(data: Data, rows: NDArray[np.int64], text_column: str) -> Data:
    """The rows of these numbers, as the kind that `data` is."""
    value: Any = data
    if isinstance(value, list | tuple):
        return type(value)(value[row] for row in rows)  # type: ignore[return-value]
    if isinstance(value, pa.Table):
        return takeable(value, text_column).take(arrow.numbers(rows))  # type: ignore[no-any-return]
    if hasattr(value, "with_format"):
        return value.select(rows)  # type: ignore[no-any-return]
    return value.iloc[rows] if hasattr(value, "iloc") else value[rows.tolist()]  # type: ignore[no-any-return]
