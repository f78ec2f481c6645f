"""Source kind site: the pages that links lead to from the start URLs, fetched by a child process."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from prosemill.config.sources import SiteSource, UrlsSource
from prosemill.errors import SourceEmpty, SourceError, SourceUnreachable
from prosemill.scrape import keeping, urls
from prosemill.scrape.crawl import CrawlReport, crawl
from prosemill.scrape.job import Job
from prosemill.scrape.ledger import LEDGER_FILE, LedgerRow, read_ledger
from prosemill.scrape.readers import Reader
from prosemill.storage.manifest import digest
from prosemill.storage.store import SnapshotWriter, Store

# The site as a whole did not answer, in words for a person.
_UNREACHABLE = {
    "connection_refused": "the connection was refused",
    "dns_error": "its name cannot be resolved",
    "tls_error": "its certificate is not valid",
    "timeout": "no answer in time",
    "connection_lost": "the connection was lost",
    "robots_unavailable": "its robots.txt cannot be read",
    "host_down": "it stopped answering",
    "deferred": "it asks to be left alone for now",
}


class SiteReader(Reader):
    """Follows links from the start URLs, within their hosts."""

    kind = "site"
    is_remote = True
    source: SiteSource | UrlsSource

    @functools.cached_property
    def starts(self) -> list[str]:
        return _start_urls(self.source)

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in super().identity().items() if name != "path"}  # its URLs are contents

    def contents(self) -> str:
        return digest(self.starts)

    def origins(self) -> list[str]:
        return self.starts

    def read(self, store: Store, writer: SnapshotWriter, previous: str, as_of: str) -> list[LedgerRow]:
        prior = str(store.local(f"{previous}/{LEDGER_FILE}")) if previous else ""
        job = Job.of(self.source, self.settings, self.starts, snapshot=writer.id, folder=writer.folder, prior=prior)
        with store.work_folder(writer.id) as work:
            crawled = crawl(job, work)
        rows = read_ledger(writer.folder / LEDGER_FILE)
        if not any(row.is_live for row in rows):
            raise _nothing(self.source, rows, self.starts, crawled)
        for name, pages in crawled.files:
            writer.add(name, "pages", pages)
        writer.partial = crawled.partial
        writer.totals |= {
            "requests": crawled.requests,
            "received_bytes": crawled.received_bytes,
            "links_left_out": crawled.links_left_out,
        }
        return rows


def _start_urls(source: SiteSource | UrlsSource) -> list[str]:
    """Canonical start URLs, of the recipe and of the list file, each once, in order."""
    addresses = list(source.urls)
    if source.path:
        path = Path(source.path)
        if not path.is_file():
            raise SourceError(f"source {source.name}: {path}: no such file of URLs; correct `path` in the recipe")
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        addresses += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    starts: dict[str, None] = {}
    for url in addresses:
        try:
            starts[urls.canonical(url)] = None
        except ValueError as error:
            raise SourceError(
                f"source {source.name}: {url!r} is not an address that can be read ({error}); "
                'give http:// or https:// URLs, or kind = "folder" for files'
            ) from None
    if not starts:
        raise SourceEmpty(f"source {source.name}: the list of URLs is empty; add some or remove the source")
    return list(starts)


def _nothing(
    source: SiteSource | UrlsSource, rows: list[LedgerRow], starts: list[str], crawled: CrawlReport
) -> SourceError:
    first = next(row for row in rows if row.url == starts[0])
    if first.reason in _UNREACHABLE or first.http_status >= 500:
        what = _UNREACHABLE.get(first.reason, f"it answers with status {first.http_status}")
        detail = f" ({crawled.trouble})" if crawled.trouble and crawled.trouble != first.reason else ""
        return SourceUnreachable(
            f"source {source.name}: {first.url} cannot be read: {what}{detail}; "
            "check the address and that the site is up, then run the same command again"
        )
    if first.reason == "out_of_scope":
        return SourceEmpty(
            f"source {source.name}: {first.url} leads to {first.redirected_to}; give that address instead"
        )
    return keeping.nothing_in(source, rows, f"no page at {first.url}")
