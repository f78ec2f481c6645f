"""The documents that a run brings, in order of arrival: their names in memory, their texts on disk.

Order of arrival is (source, URL, id). The shards of strip are in another one, so texts are first dealt out to files
that each hold a stretch of the order and fit into memory, and these are sorted one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prosemill.storage import arrow
from prosemill.storage.schemas import DOCUMENT
from prosemill.storage.store import Store

NAMES = pa.schema([DOCUMENT.field(name) for name in ("id", "url", "source", "content_sha256")])
_LISTED = pa.schema([*NAMES, DOCUMENT.field("size_bytes")])
ORDER = ("source", "url", "id")
GROUP_DOCUMENTS = 1000  # what a reader of the texts holds at once: a few megabytes
STRETCH_BYTES = 64 << 20


@dataclass(frozen=True)
class Arrivals:
    """`names`: NAMES, a row a document. The file at `path` has the same rows as records.DOCUMENT."""

    names: pa.Table
    path: Path

    def __len__(self) -> int:
        return int(self.names.num_rows)

    def batches(self) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path, pre_buffer=False) as file:  # it would keep all that was read
            yield from file.iter_batches(GROUP_DOCUMENTS)

    def arrays(self) -> Iterator[pa.LargeStringArray]:
        """The texts, some megabytes at a time."""
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            for batch in file.iter_batches(GROUP_DOCUMENTS, columns=["text"]):
                yield batch["text"].cast(pa.large_string())

    def texts(self) -> Iterator[str]:
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            for batch in file.iter_batches(GROUP_DOCUMENTS, columns=["text"]):
                yield from batch["text"].to_pylist()


def arrivals(
    store: Store,
    strip: str,
    is_known: Callable[[pa.ChunkedArray], NDArray[np.bool_]],
    known_files: Container[str],
    folder: Path,
) -> tuple[Arrivals, int]:
    """The documents of `strip` that are not known, each once, and how many it has in all; files go to `folder`.

    `known_files` hold known documents only, and are not opened.
    """
    shards = store.manifest(strip).shards_of("documents")
    num_live = sum(shard.rows for shard in shards)
    paths = [store.local(shard.path) for shard in shards if shard.path not in known_files]
    ids = [arrow.read(path, ["id"])["id"].combine_chunks() for path in paths]
    is_new = ~is_known(pa.chunked_array(ids, pa.string()))
    with_new, tables, masks = [], [pa.Table.from_batches([], _LISTED)], [np.empty(0, bool)]
    ends = np.cumsum([len(shard_ids) for shard_ids in ids], dtype=np.int64)
    for path, mine in zip(paths, np.split(is_new, ends[:-1]), strict=True) if paths else ():
        if mine.any():
            with_new.append(path)
            tables.append(arrow.read(path, _LISTED.names))
            masks.append(mine)
    listed = pa.concat_tables(tables)
    rows = _in_order(listed, np.flatnonzero(np.concatenate(masks)))
    names = listed.take(arrow.numbers(rows))
    places = np.full(listed.num_rows, -1, np.int64)
    places[rows] = np.arange(len(rows))
    ends = np.cumsum(arrow.to_numbers(names["size_bytes"])) if len(rows) else np.empty(0, np.int64)
    stretches = (ends // STRETCH_BYTES).astype(np.int64)  # of each place
    target = folder / "arrivals.parquet"
    parts = _deal_out(with_new, places, stretches, folder)
    write_batches(target, (batch for part in parts for batch in _sorted(part)))
    return Arrivals(names.select(NAMES.names), target), num_live


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    with pq.ParquetWriter(path, DOCUMENT, compression="lz4") as file:
        for batch in batches:
            file.write_batch(batch)


def _in_order(listed: pa.Table, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of `rows` that come first under their source, URL and id, sorted by these."""
    keys = listed.select(ORDER).take(arrow.numbers(rows))
    order = arrow.to_numbers(pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in ORDER]))
    keys = keys.take(arrow.numbers(order)).combine_chunks()
    is_first = np.ones(len(order), bool)
    if len(order) > 1:
        same = [arrow.to_flags(pc.equal(keys[name].slice(1), keys[name].slice(0, len(order) - 1))) for name in ORDER]
        is_first[1:] = ~np.logical_and.reduce(same)
    # of several rows with one name the smallest: sort_indices promises no order among them
    first = np.flatnonzero(is_first)
    return np.minimum.reduceat(rows[order], first) if len(first) else rows[:0]


def _deal_out(paths: list[Path], places: NDArray[np.int64], stretches: NDArray[np.int64], folder: Path) -> list[Path]:
    """A file for each stretch of the order, with the documents that belong there and their places."""
    schema = pa.schema([*DOCUMENT, pa.field("place", pa.int64())])
    parts = [folder / f"stretch-{number}.arrow" for number in range(int(stretches[-1]) + 1 if len(stretches) else 0)]
    streams = [pa.ipc.new_stream(str(part), schema) for part in parts]
    first = 0
    try:
        for path in paths:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(GROUP_DOCUMENTS):
                    mine = places[first : first + batch.num_rows]
                    first += batch.num_rows
                    _deal(batch, mine, stretches, streams, schema)
    finally:
        for stream in streams:
            stream.close()
    return parts


def _deal(
    batch: pa.RecordBatch,
    places: NDArray[np.int64],
    stretches: NDArray[np.int64],
    streams: list[pa.ipc.RecordBatchStreamWriter],
    schema: pa.Schema,
) -> None:
    wanted = np.flatnonzero(places >= 0)
    if not len(wanted):
        return
    where = stretches[places[wanted]]
    for stretch in np.unique(where).tolist():
        rows = wanted[where == stretch]
        chosen = [pc.take(batch[name], arrow.numbers(rows)) for name in DOCUMENT.names]
        chosen.append(arrow.numbers(places[rows]))
        streams[stretch].write_batch(pa.RecordBatch.from_arrays(chosen, schema=schema))


def _sorted(part: Path) -> Iterator[pa.RecordBatch]:
    """The documents of a stretch in their order; its file is gone afterwards."""
    with pa.ipc.open_stream(str(part)) as stream:
        table = stream.read_all()
    part.unlink()
    yield from table.sort_by("place").drop_columns("place").combine_chunks().to_batches(GROUP_DOCUMENTS)
