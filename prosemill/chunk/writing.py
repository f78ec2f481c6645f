"""Documents to ids on disk, and packed pieces to Arrow: what the stage of a run and the one on files have in common."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prosemill.chunk.engine import Encode, engine_for
from prosemill.chunk.packing import DocumentPart
from prosemill.models.bases import end_of_text_id, load_tokenizer
from prosemill.storage.schemas import CHUNK_MAP

UINT16_VOCABULARY = 65_536  # the largest whose ids fit into two bytes
BATCH_DOCUMENTS = 256  # encoded at once: enough for every thread of the tokenizer
BATCH_CHUNKS = 1024  # rows of an Arrow batch: 2 MB of ids
MAP_ROWS = 100_000  # of the map that are made at once: some tens of megabytes of Python objects

Ids = NDArray[np.uint16] | NDArray[np.int32]
T = TypeVar("T")


def dtype_for(vocabulary_size: int) -> np.dtype[Any]:
    return np.dtype("uint16" if vocabulary_size <= UINT16_VOCABULARY else "int32")


@dataclass(frozen=True)
class Encoder:
    """A tokenizer, and how its ids are to lie on disk."""

    ids_of: Encode
    end_of_text: int
    chunk_tokens: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, folder: Path, chunk_tokens: int, vocabulary_size: int) -> Encoder:
        """With the tokenizer in `folder`."""
        ids_of = engine_for(load_tokenizer(folder))
        return cls(ids_of, end_of_text_id(folder), chunk_tokens, dtype_for(vocabulary_size))

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, the end-of-text id included."""
        documents = []
        for ids in self.ids_of(texts):
            ended = np.empty(len(ids) + 1, self.dtype)
            ended[:-1], ended[-1] = ids, self.end_of_text
            documents.append(ended)
        return documents


def batches(items: Iterable[T], size: int = BATCH_DOCUMENTS) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class TokenSpill:
    """Ids of all documents end to end in a nameless file: packing needs their sizes at once, but the ids only later."""

    def __init__(self, folder: Path, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.sizes: list[int] = []
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._offsets: list[int] = []

    def __enter__(self) -> TokenSpill:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def extend(self, documents: Iterable[Ids]) -> None:
        for ids in documents:
            self._file.write(ids.data)
            self.sizes.append(len(ids))

    def ids(self, piece: DocumentPart) -> NDArray[Any]:
        """Once the last document is in."""
        if len(self._offsets) <= len(self.sizes):
            self._file.flush()
            self._offsets = [0, *itertools.accumulate(self.sizes)]
        start, size = self._offsets[piece.document] + piece.start, self.dtype.itemsize
        # read, not mapped: a mapped page counts as memory of ours
        return np.frombuffer(os.pread(self._file.fileno(), piece.size * size, start * size), self.dtype)


def chunk_schema(chunk_tokens: int, dtype: np.dtype[Any]) -> pa.Schema:
    offsets = pa.uint16() if chunk_tokens <= UINT16_VOCABULARY else pa.int32()
    return pa.schema(
        [
            ("input_ids", pa.list_(pa.from_numpy_dtype(dtype), chunk_tokens)),
            ("starts", pa.list_(offsets)),
            ("num_tokens", pa.int32()),
        ]
    )


def write_chunks(path: Path, chunks: Sequence[Sequence[DocumentPart]], tokens: TokenSpill, encoder: Encoder) -> None:
    """An Arrow stream, as `datasets.Dataset.from_file` maps it."""
    schema = chunk_schema(encoder.chunk_tokens, encoder.dtype)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for first in range(0, len(chunks), BATCH_CHUNKS):
            stream.write_batch(_batch_of(chunks[first : first + BATCH_CHUNKS], tokens, encoder, schema))


def _batch_of(
    chunks: Sequence[Sequence[DocumentPart]], tokens: TokenSpill, encoder: Encoder, schema: pa.Schema
) -> pa.RecordBatch:
    ids = np.full((len(chunks), encoder.chunk_tokens), encoder.end_of_text, encoder.dtype)
    starts: list[list[int]] = []
    sizes: list[int] = []
    for row, pieces in enumerate(chunks):
        begins, at = [], 0
        for piece in pieces:
            ids[row, at : at + piece.size] = tokens.ids(piece)
            begins.append(at)
            at += piece.size
        sizes.append(at)
        starts.append(begins if at == encoder.chunk_tokens else [*begins, at])
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(ids.ravel()), encoder.chunk_tokens),
        pa.array(starts, schema.field("starts").type),
        pa.array(sizes, pa.int32()),
    ]
    return pa.record_batch(columns, schema=schema)


def write_map(
    path: Path, part: str, chunks: Sequence[Sequence[DocumentPart]], names: Sequence[tuple[str, str]], chunk_file: str
) -> int:
    """records.CHUNK_MAP of one file of chunks, `names` (id, url) by document; how many rows it has."""
    total = 0
    with pq.ParquetWriter(path, CHUNK_MAP, compression="zstd") as file:
        for rows in batches(_map_rows(part, chunks, names, chunk_file), MAP_ROWS):
            columns = zip(zip(*rows, strict=True), CHUNK_MAP, strict=True)
            file.write_table(pa.table([pa.array(column, field.type) for column, field in columns], schema=CHUNK_MAP))
            total += len(rows)
    return total


def _map_rows(
    part: str, chunks: Sequence[Sequence[DocumentPart]], names: Sequence[tuple[str, str]], chunk_file: str
) -> Iterator[tuple[str, str, str, str, int, int, int]]:
    for number, pieces in enumerate(chunks):
        at = 0
        for piece in pieces:
            id, url = names[piece.document]
            yield f"{chunk_file}#{number}", part, id, url, at, piece.start, piece.size
            at += piece.size
