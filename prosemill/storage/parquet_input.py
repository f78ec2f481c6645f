"""A person's own Parquet file: rows with a column `text`, and perhaps `id` and `url`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prosemill.errors import RecipeError


@contextlib.contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """RecipeError in one line for what is not a Parquet file or has no column `text`."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise RecipeError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    with file:
        if "text" not in file.schema_arrow.names:
            columns = ", ".join(file.schema_arrow.names) or "none"
            raise RecipeError(f"{path}: no column text among the columns {columns}; rename the one that holds the text")
        yield file


def iter_named(file: pq.ParquetFile, size: int) -> Iterator[list[tuple[str, str, str]]]:
    """Batches of at most `size` rows as (id, url, text); the row's number where there is no id, "" for no url."""
    columns = [name for name in ("id", "url", "text") if name in file.schema_arrow.names]
    first = 0
    for batch in file.iter_batches(size, columns=columns):
        numbers = map(str, range(first, first + batch.num_rows))
        ids = batch["id"].cast(pa.string()).to_pylist() if "id" in columns else list(numbers)
        urls = batch["url"].cast(pa.string()).to_pylist() if "url" in columns else [""] * batch.num_rows
        texts = (text or "" for text in batch["text"].cast(pa.large_string()).to_pylist())
        yield [(id or "", url or "", text) for id, url, text in zip(ids, urls, texts, strict=True)]
        first += batch.num_rows
