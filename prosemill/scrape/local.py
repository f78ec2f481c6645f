"""Sources on disk and in data sets: folder, warc, dataset. Each gives items in a fixed order, and a fingerprint."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from prosemill.config.settings import Scrape, Source
from prosemill.errors import SourceError
from prosemill.scrape.epub import BadEpub, iter_chapters
from prosemill.scrape.texts import iter_texts
from prosemill.scrape.urls import Filter
from prosemill.storage.disk import file_sha256
from prosemill.storage.manifest import digest
from prosemill.storage.warc import Page

_TYPES = {
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
    ".txt": "text/plain",
    ".text": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
}
_CONTAINERS = (".epub", ".jsonl", ".ndjson", ".json")
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


def list_files(source: Source) -> list[File]:
    """All files of a source in order of their names; hidden ones (`.git`, `.DS_Store`) are not looked at."""
    root = Path(source.path)
    if root.is_file():
        return [File(root, root.name)]
    if not root.is_dir():
        raise SourceError(f"source {source.name}: {root}: no such file or folder; correct `path` in the recipe")
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(folder, name) for name in names if not name.startswith("."))
        found += [File(path, path.relative_to(root).as_posix()) for path in paths]
    return sorted(found, key=lambda file: file.name)


def fingerprint(files: list[File]) -> str:
    """Digest of names and contents: a moved folder is the same, a changed file is not."""
    return digest([[file.name, file_sha256(file.path) if _is_readable(file.path) else ""] for file in files])


def url_of(kind: str, source: str, name: str, entry: str = "") -> str:
    """folder://notes/2024/may.txt, folder://poems/tang.json#17: readable, also in Chinese, and safe in a header."""
    safe = _UNSAFE.sub(lambda match: quote(match.group()), name)
    return f"{kind}://{source}/{safe}" + (f"#{_UNSAFE.sub(lambda m: quote(m.group()), entry)}" if entry else "")


def iter_folder(source: Source, settings: Scrape, fetched_at: str, files: list[File]) -> Iterator[Item]:
    """Every file (and every text within a .json, .jsonl or .epub) of a folder."""
    chosen = Filter.of(source.name, source.include, source.exclude)
    limit = int(settings.max_page_megabytes * (1 << 20))
    for file in files:
        url, suffix = url_of("folder", source.name, file.name), file.path.suffix.lower()
        reason = chosen.reason(file.name)
        if not reason and ((suffix not in _TYPES and suffix not in _CONTAINERS) or not file.path.is_file()):
            reason = "unsupported_type"
        if not reason and not _is_readable(file.path):
            reason = "unreadable"
        if reason:
            yield Item(url, reason=reason)
        elif suffix in _TYPES:
            yield _whole_file(file, url, _TYPES[suffix], fetched_at, limit)
        else:
            for item in _iter_entries(source, file, suffix, fetched_at):
                too_large = item.page is not None and len(item.page.body) > limit
                yield Item(item.url, reason="too_large") if too_large else item


def _whole_file(file: File, url: str, content_type: str, fetched_at: str, limit: int) -> Item:
    if file.path.stat().st_size > limit:
        return Item(url, reason="too_large")
    return page_item(url, content_type, file.path.read_bytes(), fetched_at)


def _iter_entries(source: Source, file: File, suffix: str, fetched_at: str) -> Iterator[Item]:
    url = url_of("folder", source.name, file.name)
    if suffix == ".epub":
        yield from _iter_epub(source, file, fetched_at)
    elif suffix == ".json":
        yield from iter_json(file.path, url, source.text_column, fetched_at)
    else:
        yield from iter_jsonl(file.path, url, source.text_column, fetched_at)


def _iter_epub(source: Source, file: File, fetched_at: str) -> Iterator[Item]:
    try:
        for chapter in iter_chapters(file.path):
            url = url_of("folder", source.name, file.name, chapter.name)
            yield page_item(url, "application/xhtml+xml", chapter.body, fetched_at, chapter.book)
    except (BadEpub, zipfile.BadZipFile):
        yield Item(url_of("folder", source.name, file.name), reason="bad_epub")


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
    """A text that is no file of its own: kept as UTF-8, its title in the record's header."""
    return page_item(url, UTF8_TEXT, text.encode("utf-8", errors="replace"), fetched_at, title)


def page_item(url: str, content_type: str, body: bytes, fetched_at: str, title: str = "") -> Item:
    if not body.strip():
        return Item(url, reason="empty")
    return Item(url, Page(url, content_type, body, fetched_at, title=title))


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)
