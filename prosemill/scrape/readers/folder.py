"""Source kind folder: files on disk, and the texts within those that hold several."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

from prosemill.config.sources import FolderSource
from prosemill.scrape.epub import BadEpub, iter_chapters
from prosemill.scrape.local import File, Item, bounded, is_readable, iter_json, iter_jsonl, page_item, url_of
from prosemill.scrape.readers import LocalReader
from prosemill.scrape.urls import UrlFilter

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


class FolderReader(LocalReader):
    """Every file (and every text within a .json, .jsonl or .epub) of a folder."""

    kind = "folder"
    source: FolderSource

    def items(self, fetched_at: str) -> Iterator[Item]:
        chosen = UrlFilter.of(self.source.name, self.source.include, self.source.exclude)
        limit = self.settings.max_page_bytes
        for file in self.files:
            url, suffix = url_of("folder", self.source.name, file.name), file.path.suffix.lower()
            reason = chosen.reason(file.name)
            if not reason and ((suffix not in _TYPES and suffix not in _CONTAINERS) or not file.path.is_file()):
                reason = "unsupported_type"
            if not reason and not is_readable(file.path):
                reason = "unreadable"
            if reason:
                yield Item(url, reason=reason)
            elif suffix in _TYPES:
                yield _whole_file(file, url, _TYPES[suffix], fetched_at, limit)
            else:
                yield from bounded(_iter_entries(self.source, file, suffix, fetched_at), limit)


def _whole_file(file: File, url: str, content_type: str, fetched_at: str, limit: int) -> Item:
    if file.path.stat().st_size > limit:
        return Item(url, reason="too_large")
    return page_item(url, content_type, file.path.read_bytes(), fetched_at)


def _iter_entries(source: FolderSource, file: File, suffix: str, fetched_at: str) -> Iterator[Item]:
    url = url_of("folder", source.name, file.name)
    if suffix == ".epub":
        yield from _iter_epub(source, file, fetched_at)
    elif suffix == ".json":
        yield from iter_json(file.path, url, source.text_column, fetched_at)
    else:
        yield from iter_jsonl(file.path, url, source.text_column, fetched_at)


def _iter_epub(source: FolderSource, file: File, fetched_at: str) -> Iterator[Item]:
    try:
        for chapter in iter_chapters(file.path):
            url = url_of("folder", source.name, file.name, chapter.name)
            yield page_item(url, "application/xhtml+xml", chapter.body, fetched_at, chapter.book)
    except (BadEpub, zipfile.BadZipFile):
        yield Item(url_of("folder", source.name, file.name), reason="bad_epub")
