"""One Parquet file to a folder of chunks, without a store: `prosemill chunk`."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from prosemill.chunk.packing import pack, pieces_of
from prosemill.chunk.writing import BATCH_DOCUMENTS, Encoder, TokenSpill, write_chunks, write_map
from prosemill.errors import RecipeError
from prosemill.models.bases import load_tokenizer, tokenizer_folder
from prosemill.runtime.progress import report
from prosemill.storage.disk import disk_errors, sync
from prosemill.storage.parquet_input import iter_named, opened

CHUNKS_FILE, MAP_FILE, INFO_FILE = "chunks.arrow", "map.parquet", "info.json"


@dataclass(frozen=True)
class ChunkedFile:
    """What `chunk_file` wrote; the content of info.json, but for the folder."""

    folder: str
    tokenizer: str
    end_of_text: int
    dtype: str
    chunk_tokens: int
    documents: int
    tokens: int
    chunks: int
    padding_share: float


def chunk_file(source: Path, target: Path, tokenizer: str, chunk_tokens: int = 1024) -> ChunkedFile:
    """Chunk the rows of `source` into the new folder `target`, which appears whole or not at all.

    Needs a column `text`; `id` (row numbers where absent) and `url` name documents in the map. `tokenizer`: demo, a
    folder, or a Hugging Face name. chunks.arrow (input_ids, starts, num_tokens) is an Arrow stream as
    `datasets.Dataset.from_file` maps it, map.parquet is records.CHUNK_MAP, info.json says what is needed to train on
    them. Memory holds no ids. RecipeError for a file of another kind, without text, or that would be overwritten.
    """
    if os.path.lexists(target):
        raise RecipeError(f"{target}: exists already; give the name of a new folder")
    folder = tokenizer_folder(tokenizer)
    size = max(load_tokenizer(folder).get_vocab().values()) + 1
    with opened(source) as file, disk_errors(str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            chunked = _write(file, aside, Encoder.of(folder, chunk_tokens, size), str(target), tokenizer)
            if not chunked.chunks:
                raise RecipeError(f"{source}: no row has any text, so there is nothing to chunk")
            info = {key: value for key, value in asdict(chunked).items() if key != "folder"}
            (aside / INFO_FILE).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
            aside.chmod(0o755)
            sync(aside)
            aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return chunked


def _write(file: pq.ParquetFile, folder: Path, encoder: Encoder, target: str, tokenizer: str) -> ChunkedFile:
    names: list[tuple[str, str]] = []
    with TokenSpill(folder, encoder.dtype) as tokens:
        for batch in iter_named(file, BATCH_DOCUMENTS):
            rows = [row for row in batch if row[2]]
            names.extend((id, url) for id, url, _ in rows)
            tokens.extend(encoder.encode([text for _, _, text in rows]))
            report("tokenising documents", len(names), file.metadata.num_rows)
        chunks = pack(pieces_of(tokens.sizes, encoder.chunk_tokens), encoder.chunk_tokens)
        write_chunks(folder / CHUNKS_FILE, chunks, tokens, encoder)
        write_map(folder / MAP_FILE, "train", chunks, names, CHUNKS_FILE)
        total, room = sum(tokens.sizes), encoder.chunk_tokens * len(chunks)
    return ChunkedFile(
        target, tokenizer, encoder.end_of_text, encoder.dtype.name, encoder.chunk_tokens,
        len(names), total, len(chunks), round(1 - total / room, 6) if room else 0.0,
    )  # fmt: skip
