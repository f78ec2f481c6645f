"""Arrow columns without pandas.

`pyarrow.array` imports pandas, where it is installed, to check whether its input is of pandas; so does the data set
reader behind `pyarrow.parquet.read_table`: half a CPU second, as much as 10,000 documents cost dedup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray


def numbers(values: NDArray[Any]) -> pa.Array:
    """Integers or floats; the memory is shared."""
    whole = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(whole.dtype), len(whole), [None, pa.py_buffer(whole)])


def flags(values: NDArray[np.bool_]) -> pa.Array:
    bits = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])


def strings(values: Iterable[str]) -> pa.Array:
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(encoded), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))])


def is_one_of(column: str, values: Iterable[str]) -> pc.Expression:
    """The filter for rows whose text in `column` is among `values`; of none when there are none.

    Arrow takes an empty list for one of nulls, and refuses to compare text with it.
    """
    return pc.field(column).isin(pa.array(values, pa.string()))


def to_numbers(values: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """A column of integers without null; the memory is shared where it lies in one piece."""
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    kind = np.dtype(str(whole.type))
    buffer = whole.buffers()[1]
    return np.frombuffer(buffer, kind, len(whole), whole.offset * kind.itemsize) if len(whole) else np.empty(0, kind)


def to_flags(values: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    """A column of booleans without null."""
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if not len(whole):
        return np.empty(0, bool)
    bits = np.unpackbits(np.frombuffer(whole.buffers()[1], np.uint8), bitorder="little")
    return bits[whole.offset : whole.offset + len(whole)].astype(bool)


def counted(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value is there."""
    return {row["values"]: row["counts"] for row in values.value_counts().to_pylist()}


def read(path: Path, names: Sequence[str]) -> pa.Table:
    """These columns of a Parquet file, in this order."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        return file.read(columns=list(names)).select(list(names))
