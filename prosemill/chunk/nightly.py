"""The stage: a night's new training and validation documents become chunks; those of earlier nights are inherited.

A chunk is exactly `chunk_tokens` ids. Each document ends with the end-of-text id; what is left of a chunk is filled
with the same id and is no part of `num_tokens`. `starts` lists where positions restart: at each piece, and at the
padding, so that padding is a piece of its own that nothing else attends to.

Files are Arrow streams, as `datasets.Dataset.from_file` maps them: two bytes a token where the vocabulary allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prosemill.bases import Base, end_of_text_id, load_tokenizer
from prosemill.chunk.engine import Encode, engine_for
from prosemill.chunk.packing import Piece, pack, pieces_of
from prosemill.chunk.past import Past, read_past
from prosemill.corpus import assignments_of, documents_of
from prosemill.errors import CorpusEmpty, RecipeError
from prosemill.progress import report
from prosemill.records import CHUNK_MAP, Counts, snapshot_id
from prosemill.settings import Chunk
from prosemill.storage import SnapshotWriter, Store

STAGE = "chunk"
STAGE_VERSION = 1
PARTS = ("train", "validation")  # test documents are scored one by one, never chunked
UINT16_VOCABULARY = 65_536  # the largest whose ids fit into two bytes
BATCH_DOCUMENTS = 256  # encoded at once: enough for every thread of the tokenizer
BATCH_CHUNKS = 1024  # rows of an Arrow batch: 2 MB of ids

Ids = NDArray[np.uint16] | NDArray[np.int32]


def check_length(base: Base, settings: Chunk) -> None:
    """Refuse chunks that the base cannot take in; cheap enough to ask before anything is read."""
    if settings.chunk_tokens > base.context_tokens:
        raise RecipeError(
            f"chunk.chunk_tokens {settings.chunk_tokens} is longer than the context of base {base.name} "
            f"({base.context_tokens} tokens); set it to {base.context_tokens} or less"
        )


def chunk(
    store: Store,
    dedup: str,
    split: str,
    base: Base,
    settings: Chunk,
    *,
    as_of: str,
    previous: str = "",
    flow_run_id: str = "",
) -> str:
    """Chunk what `split` assigned to train and validation; the id of the snapshot of all chunks so far.

    Roles train and validation (input_ids, starts, num_tokens) and map (records.CHUNK_MAP). Chunks of `previous` are
    kept if it was made with the same tokenizer and settings on the way to this split; else all are made anew. No chunk
    holds a document that is withdrawn: the files that do are made anew without it, the others stay.
    Counts are of the documents that this run looked at.
    """
    check_length(base, settings)
    dtype = "uint16" if base.vocabulary_size <= UINT16_VOCABULARY else "int32"
    options = settings.model_dump() | {"tokenizer": base.tokenizer_digest, "dtype": dtype}
    parents = [dedup, split, previous] if previous else [dedup, split]
    id = snapshot_id(STAGE, STAGE_VERSION, inputs=parents, settings=options)
    if store.has(id):
        return id
    store.require(*parents)
    past = read_past(store, previous, options, STAGE_VERSION, dedup, split)
    with store.write(
        id, stage=STAGE, version=STAGE_VERSION, parents=parents, settings=options, as_of=as_of, flow_run_id=flow_run_id
    ) as writer:
        writer.inherit(past.shards)
        encoder = _Encoder.of(base, settings, np.dtype(dtype))
        written = {part: _chunk_part(store, writer, encoder, part, (dedup, split), past) for part in PARTS}
        writer.counts = _counts(store, split, past.known, written)
        writer.totals = _totals(past, written, settings)
        if not writer.totals["train_chunks"]:
            raise CorpusEmpty(f"chunk: no text to train on ({split}); add pages or sources")
    return id


@dataclass
class Written:
    """What this run chunked of one split; new is what no earlier night had."""

    documents: int = 0
    tokens: int = 0
    chunks: int = 0
    new_documents: int = 0
    new_tokens: int = 0


# --- encoding ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Encoder:
    ids_of: Encode
    end_of_text: int
    chunk_tokens: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, base: Base, settings: Chunk, dtype: np.dtype[Any]) -> _Encoder:
        return cls(engine_for(load_tokenizer(base.folder)), end_of_text_id(base.folder), settings.chunk_tokens, dtype)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, the end-of-text id included."""
        return [np.append(ids, self.end_of_text).astype(self.dtype) for ids in self.ids_of(texts)]


def _chunk_part(
    store: Store, writer: SnapshotWriter, encoder: _Encoder, part: str, of: tuple[str, str], past: Past
) -> Written:
    """Tokenise, pack and write the documents of one split that no kept shard holds."""
    names: list[tuple[str, str]] = []  # id, url
    tokens: list[Ids] = []
    for batch in _batches(documents_of(store, *of, part, known_shards=past.known, again=past.again)):
        names.extend((document["id"], document["url"]) for document in batch)
        tokens.extend(encoder.encode([document["text"] for document in batch]))
        report(f"tokenising {part} documents", len(names))
    pieces = pieces_of([len(ids) for ids in tokens], encoder.chunk_tokens)
    chunks = pack(pieces, encoder.chunk_tokens)
    file = f"{part}-00000.arrow"
    if chunks:
        _write_chunks(writer, file, part, chunks, tokens, encoder)
        _write_map(writer, f"map-{part}-00000.parquet", part, chunks, names, f"{writer.id}/{file}")
    new = [len(ids) for (id, _), ids in zip(names, tokens, strict=True) if id not in past.again]
    return Written(len(names), sum(map(len, tokens)), len(chunks), len(new), sum(new))


def _batches(documents: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for document in documents:
        batch.append(document)
        if len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch = []
    if batch:
        yield batch


# --- writing -------------------------------------------------------------------------------------------------------


def chunk_schema(chunk_tokens: int, dtype: np.dtype[Any]) -> pa.Schema:
    offsets = pa.uint16() if chunk_tokens <= UINT16_VOCABULARY else pa.int32()
    return pa.schema(
        [
            ("input_ids", pa.list_(pa.from_numpy_dtype(dtype), chunk_tokens)),
            ("starts", pa.list_(offsets)),
            ("num_tokens", pa.int32()),
        ]
    )


def _write_chunks(
    writer: SnapshotWriter, file: str, part: str, chunks: list[list[Piece]], tokens: list[Ids], encoder: _Encoder
) -> None:
    schema = chunk_schema(encoder.chunk_tokens, encoder.dtype)
    with pa.OSFile(str(writer.path(file)), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for first in range(0, len(chunks), BATCH_CHUNKS):
            stream.write_batch(_batch_of(chunks[first : first + BATCH_CHUNKS], tokens, encoder, schema))
    writer.add(file, part, len(chunks))


def _batch_of(chunks: list[list[Piece]], tokens: list[Ids], encoder: _Encoder, schema: pa.Schema) -> pa.RecordBatch:
    ids = np.full((len(chunks), encoder.chunk_tokens), encoder.end_of_text, encoder.dtype)
    starts: list[list[int]] = []
    sizes: list[int] = []
    for row, pieces in enumerate(chunks):
        begins, at = [], 0
        for piece in pieces:
            ids[row, at : at + piece.size] = tokens[piece.document][piece.start : piece.start + piece.size]
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


def _write_map(
    writer: SnapshotWriter,
    file: str,
    part: str,
    chunks: list[list[Piece]],
    names: list[tuple[str, str]],
    chunk_file: str,
) -> None:
    rows = []
    for number, pieces in enumerate(chunks):
        at = 0
        for piece in pieces:
            id, url = names[piece.document]
            rows.append((f"{chunk_file}#{number}", part, id, url, at, piece.start, piece.size))
            at += piece.size
    columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), CHUNK_MAP, strict=True)]
    pq.write_table(pa.table(columns, schema=CHUNK_MAP), writer.path(file), compression="zstd")
    writer.add(file, "map", len(rows))


# --- figures -------------------------------------------------------------------------------------------------------


def _counts(store: Store, split: str, known: set[str], written: dict[str, Written]) -> Counts:
    kept = sum(part.documents for part in written.values())
    left_out = Counter(
        {part: len(assignments_of(store, split, part, known_shards=known)) for part in ("test", "excluded")}
    )
    dropped = {part: number for part, number in left_out.items() if number}
    return Counts(kept + sum(dropped.values()), kept, dropped)


def _totals(past: Past, written: dict[str, Written], settings: Chunk) -> dict[str, Any]:
    totals: dict[str, Any] = {}
    for part in PARTS:
        totals[f"{part}_chunks"] = past.totals[f"{part}_chunks"] + written[part].chunks
        totals[f"{part}_tokens"] = past.totals[f"{part}_tokens"] + written[part].tokens
    room = settings.chunk_tokens * sum(totals[f"{part}_chunks"] for part in PARTS)
    used = sum(totals[f"{part}_tokens"] for part in PARTS)
    return totals | {
        "padding_share": round(1 - used / room, 6) if room else 0.0,
        "new_train_documents": written["train"].new_documents,
        "new_train_tokens": written["train"].new_tokens,
    }
