"""Source kind urls: just these pages."""

from __future__ import annotations

from prosemill.scrape.readers.site import SiteReader


class UrlsReader(SiteReader):
    """Reads the URLs of a list; the crawl follows no links for this kind."""

    kind = "urls"
