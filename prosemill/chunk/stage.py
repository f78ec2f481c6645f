"""The stage: a run's new training and validation documents become chunks; those of earlier runs are inherited.

A chunk is exactly `chunk_tokens` ids. Each document ends with the end-of-text id; what is left of a chunk is filled
with the same id and is not part of `num_tokens`. `starts` lists where positions restart: at each piece, and at the
padding, so that padding is a piece of its own that nothing else attends to.

Files are Arrow streams, as `datasets.Dataset.from_file` maps them: two bytes a token where the vocabulary allows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from prosemill.chunk.packing import pack, pieces_of
from prosemill.chunk.previous import PreviousChunks, read_past
from prosemill.chunk.writing import Encoder, TokenSpill, batches, dtype_for, write_chunks, write_map
from prosemill.config.settings import Chunk
from prosemill.errors import CorpusEmpty, RecipeError
from prosemill.models.bases import Base
from prosemill.runtime.progress import report
from prosemill.storage import stages
from prosemill.storage.corpus import assignments_of, documents_of
from prosemill.storage.manifest import Counts, snapshot_id
from prosemill.storage.store import SnapshotWriter, Store

STAGE = stages.of("chunk")
PARTS = ("train", "validation")  # test documents are scored one by one, never chunked


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
    dtype = dtype_for(base.vocabulary_size)
    options = settings.model_dump() | {"tokenizer": base.tokenizer_digest, "dtype": dtype.name}
    parents = [dedup, split, previous] if previous else [dedup, split]
    id = snapshot_id(STAGE.name, STAGE.version, inputs=parents, settings=options)
    if store.has(id):
        return id
    store.require(*parents)
    past = read_past(store, previous, options, STAGE.version, dedup, split)
    with store.write(
        id,
        stage=STAGE.name,
        version=STAGE.version,
        parents=parents,
        settings=options,
        as_of=as_of,
        flow_run_id=flow_run_id,
    ) as writer:
        writer.inherit(past.shards)
        encoder = Encoder.of(base.folder, settings.chunk_tokens, base.vocabulary_size)
        written = {part: _chunk_part(store, writer, encoder, part, (dedup, split), past) for part in PARTS}
        writer.counts = _counts(store, split, past.known, written)
        writer.totals = _totals(past, written, settings)
        if not writer.totals["train_chunks"]:
            raise CorpusEmpty(f"chunk: no text to train on ({split}); add pages or sources")
    return id


@dataclass
class ChunkTotals:
    """What this run chunked of one split; new is what no earlier run had."""

    documents: int = 0
    tokens: int = 0
    chunks: int = 0
    new_documents: int = 0
    new_tokens: int = 0


# --- one split -----------------------------------------------------------------------------------------------------


def _chunk_part(
    store: Store, writer: SnapshotWriter, encoder: Encoder, part: str, of: tuple[str, str], past: PreviousChunks
) -> ChunkTotals:
    """Tokenise, pack and write the documents of one split that no kept shard holds."""
    names: list[tuple[str, str]] = []  # id, url
    with TokenSpill(writer.folder, encoder.dtype) as tokens:
        for batch in batches(documents_of(store, *of, part, known_shards=past.known, again=past.again)):
            names.extend((document["id"], document["url"]) for document in batch)
            tokens.extend(encoder.encode([document["text"] for document in batch]))
            report(f"tokenising {part} documents", len(names))
        chunks = pack(pieces_of(tokens.sizes, encoder.chunk_tokens), encoder.chunk_tokens)
        file, map_file = f"{part}-00000.arrow", f"map-{part}-00000.parquet"
        if chunks:
            write_chunks(writer.path(file), chunks, tokens, encoder)
            writer.add(file, part, len(chunks))
            num_pieces = write_map(writer.path(map_file), part, chunks, names, f"{writer.id}/{file}")
            writer.add(map_file, "map", num_pieces)
        new = [size for (id, _), size in zip(names, tokens.sizes, strict=True) if id not in past.again]
        return ChunkTotals(len(names), sum(tokens.sizes), len(chunks), len(new), sum(new))


# --- figures -------------------------------------------------------------------------------------------------------


def _counts(store: Store, split: str, known: set[str], written: dict[str, ChunkTotals]) -> Counts:
    kept = sum(part.documents for part in written.values())
    left_out = Counter(
        {part: len(assignments_of(store, split, part, known_shards=known)) for part in ("test", "excluded")}
    )
    dropped = {part: number for part, number in left_out.items() if number}
    return Counts(kept + sum(dropped.values()), kept, dropped)


def _totals(past: PreviousChunks, written: dict[str, ChunkTotals], settings: Chunk) -> dict[str, Any]:
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
