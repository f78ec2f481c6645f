"""Sources whose new pages suddenly give hardly any text: rebuilt sites, login walls, a template that hides the article.

Compared is the text a page gives, of what is new in this run, with that of all pages of the run before. Pages that were
there before stay; the new ones wait, and are looked at again every run, until they give text again or a person lets
them through (`strip.quarantine_share = 0`).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from prosemill.storage.store import Store

REASON = "quarantined"
LEAST_PAGES = 10  # the average of fewer pages hangs on one of them

PageKey = tuple[str, str]  # URL and content_sha256


@dataclass
class SourceText:
    """What the pages of a source gave."""

    pages: int = 0
    size_bytes: int = 0  # of text

    @property
    def of_a_page(self) -> float:
        return self.size_bytes / self.pages if self.pages else 0.0

    def add(self, size_bytes: int) -> None:
        self.pages += 1
        self.size_bytes += size_bytes


@dataclass(frozen=True)
class PreviousStrip:
    """The strip snapshot of the run before: its pages, and what those of each source gave. Empty on a first run."""

    pages: Set[PageKey] = frozenset()
    sources: Mapping[str, SourceText] = field(default_factory=dict)

    @classmethod
    def read(cls, store: Store, previous: str) -> PreviousStrip:
        if not previous:
            return cls()
        pages: set[PageKey] = set()
        sources: dict[str, SourceText] = {}
        manifest = store.manifest(previous)
        for role, column in (("documents", "size_bytes"), ("dropped", "reason")):
            for shard in manifest.shards_of(role):
                table = pq.read_table(store.local(shard.path), columns=["url", "content_sha256", "source", column])
                for url, content, source, value in zip(*table.to_pydict().values(), strict=True):
                    if value != REASON:
                        pages.add((url, content))
                        sources.setdefault(source, SourceText()).add(value if role == "documents" else 0)
        for source, (was, _) in manifest.totals.get("quarantined", {}).items():  # what is left of it says nothing
            sources[source] = SourceText(LEAST_PAGES, round(was * LEAST_PAGES))
        return cls(pages, sources)


def collapsed(before: PreviousStrip, new: Mapping[str, SourceText], share: float) -> dict[str, tuple[float, float]]:
    """Bytes of text a page then and now, of the sources whose new pages give less than `share` of what pages gave."""
    sizes = {}
    for source, now in sorted(new.items()):
        was = before.sources.get(source, SourceText())
        enough = was.pages >= LEAST_PAGES and now.pages >= LEAST_PAGES
        if enough and now.of_a_page < share * was.of_a_page:
            sizes[source] = (round(was.of_a_page, 1), round(now.of_a_page, 1))
    return sizes
