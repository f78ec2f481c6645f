"""One Parquet file to a folder of chunks, without a store: `prosemill chunk`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from prosemill.chunk.packing import pack, pieces_of
from prosemill.chunk.writing import BATCH_DOCUMENTS, Encoder, TokenSpill, write_chunks, write_map
from prosemill.errors import RecipeError
from prosemill.models.bases import load_tokenizer, tokenizer_folder
from prosemill.runtime.progress import report
from prosemill.storage.atomic import new_folder
from prosemill.storage.disk import disk_errors
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


def chunk_file(
    source: Path | str, tokenizer: Path | str, target: Path | str, *, chunk_tokens: int = 1024
) -> ChunkedFile:
    """Text as training examples of one length: the rows of a Parquet file, tokenised and packed.

    Args:
        source: A Parquet file with a column `text`; `id` (row numbers where absent) and `url` name texts in the map.
        tokenizer: A folder with a tokenizer, a name on the Hugging Face hub (gpt2 …), or "demo".
        target: A new folder, which appears whole or not at all: chunks.arrow (`input_ids`, `chunk_tokens` of them in
            each row; `starts`, where documents begin in it; `num_tokens` without padding), an Arrow stream that
            `datasets.Dataset.from_file` maps; map.parquet, which text is where; info.json, the value returned.
        chunk_tokens: Token ids a chunk. A longer document is cut; shorter ones are packed best-fit (Ding et al. 2024),
            each with an end-of-text behind it.

    Memory holds no ids, so the file may be larger than it. RecipeError for a file that cannot be read, has no column
    `text` or no text, and for a target that exists; BaseModelError for a tokenizer that is not there.

    >>> import tempfile, pyarrow, pyarrow.parquet
    >>> from pathlib import Path
    >>> from prosemill import chunk_file
    >>> folder = Path(tempfile.mkdtemp())
    >>> table = pyarrow.table({"text": ["The mill grinds salt."] * 40})
    >>> pyarrow.parquet.write_table(table, folder / "text.parquet")
    >>> chunked = chunk_file(folder / "text.parquet", "demo", folder / "chunks", chunk_tokens=64)
    >>> chunked.documents, chunked.chunk_tokens, (folder / "chunks" / "chunks.arrow").exists()
    (40, 64, True)
    """
    source, target, tokenizer = Path(source), Path(target), str(tokenizer)
    if os.path.lexists(target):
        raise RecipeError(f"{target}: exists already; give the name of a new folder")
    folder = tokenizer_folder(tokenizer)
    size = max(load_tokenizer(folder).get_vocab().values()) + 1
    with opened(source) as file, disk_errors(str(target)), new_folder(target) as aside:
        chunked = _write(file, aside, Encoder.of(folder, chunk_tokens, size), str(target), tokenizer)
        if not chunked.chunks:
            raise RecipeError(f"{source}: no row has any text, so there is nothing to chunk")
        info = {key: value for key, value in asdict(chunked).items() if key != "folder"}
        (aside / INFO_FILE).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
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
