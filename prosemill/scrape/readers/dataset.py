"""Source kind dataset: local tables (parquet, csv, json, jsonl, txt), or a data set of the Hugging Face hub."""

from __future__ import annotations

import csv
import functools
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prosemill.config.settings import Scrape
from prosemill.config.sources import DatasetSource
from prosemill.errors import SourceError, SourceUnreachable
from prosemill.scrape.local import (
    File,
    Item,
    bounded,
    iter_json,
    iter_jsonl,
    list_files,
    page_item,
    text_item,
    url_of,
)
from prosemill.scrape.readers import LocalReader
from prosemill.scrape.texts import iter_texts
from prosemill.scrape.urls import UrlFilter

_TABLES = (".parquet", ".csv", ".tsv")


class DatasetReader(LocalReader):
    """Every row of every table, by file name and row number from 0; of the hub where nothing lies at the path."""

    kind = "dataset"
    source: DatasetSource

    @functools.cached_property
    def is_remote(self) -> bool:  # type: ignore[override]  # here it depends on the source
        """True for "owner/name" or "name" that is not a file here: a data set of the hub."""
        path = self.source.path
        if Path(path).exists():
            return False
        is_path = path.startswith(("/", "./", "../", "~")) or bool(Path(path).suffix)
        return not is_path and len(path.strip("/").split("/")) <= 2

    @functools.cached_property
    def files(self) -> list[File]:
        return [] if self.is_remote else list_files(self.source.name, self.source.path)

    def identity(self) -> dict[str, Any]:
        return self.source.identity() if self.is_remote else super().identity()

    def origins(self) -> list[str]:
        return [f"hf:datasets/{self.source.path}"] if self.is_remote else super().origins()

    def items(self, fetched_at: str) -> Iterator[Item]:
        if self.is_remote:
            return _hub_items(self.source, self.settings, fetched_at)
        return _iter_tables(self.source, self.settings, fetched_at, self.files)


def _iter_tables(source: DatasetSource, settings: Scrape, fetched_at: str, files: list[File]) -> Iterator[Item]:
    chosen = UrlFilter.of(source.name, source.include, source.exclude)
    limit = settings.max_page_bytes
    for file in files:
        url, suffix = url_of("dataset", source.name, file.name), file.path.suffix.lower()
        reason = chosen.reason(file.name)
        if reason or suffix not in (*_TABLES, ".json", ".jsonl", ".ndjson", ".txt"):
            yield Item(url, reason=reason or "unsupported_type")
        elif suffix in _TABLES:
            yield from bounded(_iter_rows(source, file, url, fetched_at), limit)
        elif suffix == ".txt":
            yield from bounded([page_item(url, "text/plain", file.path.read_bytes(), fetched_at)], limit)
        else:
            read = iter_json if suffix == ".json" else iter_jsonl
            yield from bounded(read(file.path, url, source.text_column, fetched_at), limit)


def _iter_rows(source: DatasetSource, file: File, url: str, fetched_at: str) -> Iterator[Item]:
    try:
        rows = _parquet_rows(file.path) if file.path.suffix.lower() == ".parquet" else _csv_rows(file.path)
        for number, row in enumerate(rows):
            yield _row_item(source, f"{url}#{number}", row, fetched_at)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, csv.Error, UnicodeDecodeError) as error:
        raise SourceError(f"source {source.name}: {file.path} cannot be read ({str(error)[:200]})") from error


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


def _csv_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default, 128 KiB, is shorter than a long article
    with open(path, newline="", encoding="utf-8-sig") as lines:
        yield from csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")


def _row_item(source: DatasetSource, url: str, row: Mapping[str, Any], fetched_at: str) -> Item:
    """The text column, or what looks most like it: the same rule as for JSON objects."""
    texts = list(iter_texts({name: value for name, value in row.items() if name}, source.text_column))
    return text_item(url, *texts[0], fetched_at) if texts else Item(url, reason="empty")


def _hub_items(source: DatasetSource, settings: Scrape, fetched_at: str) -> Iterator[Item]:
    """Rows of a data set of the hub, streamed, so that nothing is fetched beyond max_pages."""
    import datasets

    place = f"{source.path}, {source.dataset_config or 'default'}, {source.dataset_split}"
    try:
        rows = datasets.load_dataset(
            source.path, source.dataset_config or None, split=source.dataset_split, streaming=True
        )
        for number, row in enumerate(islice(rows, settings.max_pages)):
            yield _row_item(source, f"dataset://{source.path}/{source.dataset_split}#{number}", row, fetched_at)
    except (OSError, ValueError, RuntimeError) as error:  # of requests, httpx, the hub's client: all of these
        raise SourceUnreachable(
            f"source {source.name}: data set {place} cannot be loaded ({' '.join(str(error).split())[:200]}); "
            "check the name and the network, or give a local folder or file as path"
        ) from error
