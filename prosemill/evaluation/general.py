"""The general set: text that is not the corpus's, by which a model's forgetting of everything else is seen.

Without a path of the recipe's it is Python's own reference manual, which every Python carries (`pydoc_data.topics`,
eighty pages, PSF licence). The embedded base learned from that manual, so it shows what fine-tuning makes it forget.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from prosemill.errors import RecipeError
from prosemill.storage.manifest import document_id

Row = dict[str, Any]
SOURCE = "general"
SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")


def general_documents(path: str) -> list[Row]:
    """Rows id, source, text of the folder or file at `path` (txt, md, jsonl or parquet with a column text)."""
    named = _manual() if not path else _files(Path(path).expanduser())
    rows = [
        {"id": document_id(name, text), "source": SOURCE, "text": text, "first_seen": ""}
        for name, text in named
        if text.strip()
    ]
    if not rows:
        kinds = ", ".join(SUFFIXES)
        raise RecipeError(f"evaluate.general_path = {path!r}: no text in it; give a folder of {kinds} files")
    return rows


def _manual() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield f"python:{name}", text


def _files(path: Path) -> Iterator[tuple[str, str]]:
    if not path.exists():
        raise RecipeError(f"evaluate.general_path = {str(path)!r}: does not exist; correct it in the recipe")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
    for file in files:
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        try:
            for number, text in enumerate(_texts(file)):
                yield f"{name}#{number}", text
        except (ValueError, KeyError, OSError) as error:  # damaged files of any of the kinds
            reason = " ".join(str(error).split())[:160]
            raise RecipeError(f"evaluate.general_path: {file} cannot be read ({reason})") from error


def _texts(file: Path) -> Iterator[str]:
    if file.suffix == ".parquet":
        yield from pq.read_table(file, columns=["text"])["text"].to_pylist()
    elif file.suffix == ".jsonl":
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.strip():
                yield str(json.loads(line)["text"])
    else:
        yield file.read_text(encoding="utf-8")
