"""Source kind warc: pages that somebody else fetched."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from prosemill.config.settings import Scrape
from prosemill.config.sources import WarcSource
from prosemill.scrape import answers, optouts, urls
from prosemill.scrape.links import outline
from prosemill.scrape.local import File, Item, url_of
from prosemill.scrape.readers import LocalReader
from prosemill.scrape.robots import product_token
from prosemill.storage.charsets import label_in
from prosemill.storage.warc import Page
from prosemill.storage.warc_reader import BAD_FILE, BadRecord, iter_records

_ARCHIVE = re.compile(r"\.warc(\.\w+)?$", re.IGNORECASE)
log = logging.getLogger(__name__)


class WarcReader(LocalReader):
    """The newest good answer for every URL of the archives, in the order in which they hold it.

    A record that cannot be read has an item of its own: by its URL, or by file and offset where the URL is unknown or
    another record has given a page for it.
    """

    kind = "warc"
    version = 2  # 1 lost the records after one whose encodings misled it. Pages that it read have the same ids still.
    source: WarcSource

    def items(self, fetched_at: str) -> Iterator[Item]:
        return _iter_warc(self.source, self.settings, fetched_at, self.files)


def _iter_warc(source: WarcSource, settings: Scrape, fetched_at: str, files: list[File]) -> Iterator[Item]:
    chosen = urls.UrlFilter.of(source.name, source.include, source.exclude)
    limit = settings.max_page_bytes
    newest: dict[str, tuple[str, int]] = {}
    for number, (_, page) in enumerate(_iter_all(source, files, limit)):
        if isinstance(page, Page) and page.http_status in (0, 200):
            url = _address(page.url)
            if (page.fetched_at, number) >= newest.get(url, ("", -1)):
                newest[url] = (page.fetched_at, number)
    reported: set[str] = set()
    for number, (file, page) in enumerate(_iter_all(source, files, limit)):
        url = _address(page.url)
        if isinstance(page, BadRecord):
            log.warning("source %s: %s: the record at byte %d: %s", source.name, file.path, page.offset, page.why)
            named = url and url not in newest and url not in reported
            url = url if named else url_of("warc", source.name, file.name, f"byte-{page.offset}")
        elif newest.get(url, ("", number))[1] != number or url in reported:
            continue
        reported.add(url)
        if isinstance(page, BadRecord):
            yield Item(url, reason=page.reason)
        else:
            yield _item(url, page, chosen.reason(url), settings, limit, fetched_at)


def _iter_all(source: WarcSource, files: list[File], limit: int) -> Iterator[tuple[File, Page | BadRecord]]:
    for file in files:
        if len(files) > 1 and not _ARCHIVE.search(file.name):  # a list of contents, a checksum …
            yield file, BadRecord("", 0, "unsupported_type", "not named as a web archive")
            continue
        try:
            for page in iter_records(file.path, max_body_bytes=limit):
                yield file, page
        except (ValueError, OSError) as error:
            yield file, BadRecord("", 0, BAD_FILE, f"damaged or not a web archive ({error})")


def _item(url: str, page: Page, listed: str, settings: Scrape, limit: int, fetched_at: str) -> Item:
    if listed or page.http_status not in (0, 200):
        return Item(url, reason=listed or f"http_{page.http_status}")
    if len(page.body) > limit:
        return Item(url, reason="too_large")
    try:
        answers.check_page(page.content_type, page.body)
    except answers.UnusableBody as bad:
        return Item(url, reason=str(bad))
    decision = _opt_outs(url, page, settings)
    if decision.reason:
        return Item(url, reason=decision.reason, opt_out=decision.opt_out)
    kept = Page(
        url, page.content_type, page.body, page.fetched_at or fetched_at,
        title=page.title, http_status=page.http_status, http_headers=page.http_headers,
    )  # fmt: skip
    return Item(url, kept, opt_out=decision.opt_out)


def _opt_outs(url: str, page: Page, settings: Scrape) -> optouts.Decision:
    """Of the page and its headers; what the site's files said then is not in the archive."""
    headers: dict[str, list[str]] = {}
    for name, value in page.http_headers:
        headers.setdefault(name.lower(), []).append(value)
    is_html = answers.is_html(page.content_type, page.body)
    meta = outline(page.body, url, label_in(page.content_type)).meta if is_html else {}
    token = product_token(settings.user_agent)
    site = optouts.SiteOptOuts()
    return optouts.decide(
        url, robots="", site=site, headers=headers, meta=meta, token=token, obey=settings.obey_opt_outs
    )


def _address(url: str) -> str:
    try:
        return urls.canonical(url)
    except ValueError:  # urn:…, or an address of ours such as folder://…
        return url
