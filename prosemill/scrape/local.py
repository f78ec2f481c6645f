"""What readers of files share: items, the files of a folder and their fingerprint, texts in JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from prosemill.errors import SourceError
from prosemill.scrape.texts import iter_texts
from prosemill.storage.disk import file_sha256
from prosemill.storage.manifest import digest
from prosemill.storage.warc import Page

UTF8_TEXT = "text/plain; charset=utf-8"
_UNSAFE = re.compile(r"[\x00-\x20%#?\x7f]")


@dataclass(frozen=True)
class Item:
    """One URL of a local source: its page, or the reason why there is none."""

    url: str
    page: Page | None = None
    reason: str = ""
    opt_out: str = ""


@dataclass(frozen=True)
class File:
    """A file below a source's folder; `name` is its path from there, with slashes."""

    path: Path
    name: str


def list_files(source: str, path: str) -> list[File]:
    """All files of a source in order of their names; hidden ones (`.git`, `.DS_Store`) are not looked at."""
    root = Path(path)
    if root.is_file():
        return [File(root, root.name)]
    if not root.is_dir():
        raise SourceError(f"source {source}: {root}: no such file or folder; correct `path` in the recipe")
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(folder, name) for name in names if not name.startswith("."))
        files += [File(path, path.relative_to(root).as_posix()) for path in paths]
    return sorted(files, key=lambda file: file.name)


def fingerprint(files: list[File]) -> str:
    """Digest of names and contents: a moved folder is the same, a changed file is not."""
    return digest([[file.name, file_sha256(file.path) if is_readable(file.path) else ""] for file in files])


def url_of(kind: str, source: str, name: str, entry: str = "") -> str:
    """folder://notes/2024/may.txt, folder://poems/tang.json#17: readable, also in Chinese, and safe in a header."""
    safe = _UNSAFE.sub(lambda match: quote(match.group()), name)
    return f"{kind}://{source}/{safe}" + (f"#{_UNSAFE.sub(lambda m: quote(m.group()), entry)}" if entry else "")


def iter_json(path: Path, url: str, text_column: str, fetched_at: str) -> Iterator[Item]:
    """Every text of a JSON file, numbered in its order; bad_json, or empty when there is none in it."""
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError):
        yield Item(url, reason="bad_json")
        return
    number = -1
    for number, (title, text) in enumerate(iter_texts(value, text_column)):
        yield text_item(f"{url}#{number}", title, text, fetched_at)
    if number < 0:
        yield Item(url, reason="empty")


def iter_jsonl(path: Path, url: str, text_column: str, fetched_at: str) -> Iterator[Item]:
    """Every line of a JSON lines file, by line number from 0; a line with several texts has #3, #3.1, #3.2 …"""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                texts = list(iter_texts(json.loads(line.decode("utf-8-sig")), text_column))
            except (ValueError, RecursionError):
                yield Item(f"{url}#{number}", reason="bad_json")
                continue
            if not texts:
                yield Item(f"{url}#{number}", reason="empty")
            for part, (title, text) in enumerate(texts):
                yield text_item(f"{url}#{number}" + (f".{part}" if part else ""), title, text, fetched_at)


def text_item(url: str, title: str, text: str, fetched_at: str) -> Item:
    """A text that is not a file of its own: kept as UTF-8, its title in the record's header."""
    return page_item(url, UTF8_TEXT, text.encode("utf-8", errors="replace"), fetched_at, title)


def page_item(url: str, content_type: str, body: bytes, fetched_at: str, title: str = "") -> Item:
    if not body.strip():
        return Item(url, reason="empty")
    return Item(url, Page(url, content_type, body, fetched_at, title=title))


def bounded(items: Iterable[Item], max_bytes: int) -> Iterator[Item]:
    for item in items:
        too_large = item.page is not None and len(item.page.body) > max_bytes
        yield Item(item.url, reason="too_large") if too_large else item


def is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)
