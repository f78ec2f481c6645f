"""Readers of sources, one a kind: `readers/KIND.py`, or a plugin's. To define a reader is to register it."""

from __future__ import annotations

import functools
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from prosemill.config import plugins
from prosemill.config.settings import Scrape, Source
from prosemill.errors import SourceError
from prosemill.scrape import keeping, local
from prosemill.scrape.ledger import LedgerRow
from prosemill.storage.manifest import digest
from prosemill.storage.store import SnapshotWriter, Store

_READERS: dict[str, type[Reader]] = {}


class Reader(ABC):
    """Reads one source. A kind gives its items; one that is not read item by item overrides `read`."""

    kind: ClassVar[str] = ""
    version: ClassVar[int] = 1  # raised when the same source gives other pages than before
    is_remote = False  # across the network: stops at max_pages, and only reading tells whether anything changed

    def __init__(self, source: Any, settings: Scrape) -> None:
        """`source` is of the settings class of this kind."""
        self.source, self.settings = source, settings

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.kind:
            _READERS[cls.kind] = cls

    def identity(self) -> dict[str, Any]:
        """The source's settings as they enter the snapshot's id and its manifest."""
        identity: dict[str, Any] = self.source.identity()
        return identity

    @abstractmethod
    def contents(self) -> str:
        """Digest of what the source holds now, as far as that can be told without reading it."""

    def origins(self) -> list[str]:
        """Where the text comes from, for the lineage: URLs or paths."""
        return []

    def items(self, fetched_at: str) -> Iterable[local.Item]:
        """Every page, or why there is none, in a fixed order; `fetched_at` is the time to give to a page without."""
        raise NotImplementedError

    def read(self, store: Store, writer: SnapshotWriter, previous: str, as_of: str) -> list[LedgerRow]:
        """Write the ledger and what is new or changed since `previous`; the ledger's rows."""
        fetched_at = as_of if "T" in as_of else f"{as_of}T00:00:00Z"
        limit = self.settings.max_pages if self.is_remote else None  # files on disk cost no server anything
        rows = keeping.keep(self.items(fetched_at), self.source, store, writer, previous, max_pages=limit)
        if not any(row.is_live for row in rows):
            raise keeping.nothing_in(self.source, rows, f"no text in {getattr(self.source, 'path', '') or 'it'}")
        return rows

    def content_digest(self) -> str:
        """`contents`, and the version of a reader that was mended so that it reads more of the same."""
        return digest([self.contents(), self.version]) if self.version > 1 else self.contents()


class LocalReader(Reader):
    """Reads files below `source.path`; where that lies is not part of the snapshot's id."""

    @functools.cached_property
    def files(self) -> list[local.File]:
        return local.list_files(self.source.name, self.source.path)

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in super().identity().items() if name != "path"}

    def contents(self) -> str:
        return local.fingerprint(self.files)

    def origins(self) -> list[str]:
        return [self.source.path]


def reader_of(source: Source, settings: Scrape) -> Reader:
    """The reader of a source's kind; SourceError if there is none."""
    plugins.load()
    if source.kind not in _READERS:
        name = f"{__name__}.{source.kind.replace('-', '_')}"
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    if source.kind not in _READERS:
        raise SourceError(
            f"source {source.name}: nothing reads kind {source.kind!r}; "
            "import its reader in the module that PROSEMILL_PLUGINS names"
        )
    return _READERS[source.kind](source, settings)
