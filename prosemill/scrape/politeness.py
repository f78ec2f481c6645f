"""Scrapy components: retries that wait, and a resolver that knows no private addresses."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, ClassVar

from scrapy import Request, Spider
from scrapy.downloadermiddlewares.retry import RetryMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.resolver import CachingThreadedResolver
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError

from prosemill.scrape.answers import retry_after
from prosemill.scrape.compat import hold_host
from prosemill.scrape.urls import is_private

RETRY_TIMES = 2  # three requests in all
BACKOFF_SECONDS = 0.5  # doubled each time; no jitter, since there is one of us per host
RETRY_AFTER_CAP_SECONDS = 30.0  # a server that wants a longer pause is asked again in the next scrape: `deferred`

log = logging.getLogger(__name__)


class PoliteRetry(RetryMiddleware):  # type: ignore[misc]
    """Scrapy's retries, with the whole host left alone for as long as Retry-After or the back-off says."""

    def process_request(self, request: Request, spider: Spider | None = None) -> None:
        """Requests wait in queues; a host may have gone down, or the time run out, since this one was made."""
        frontier = self.crawler.spider.frontier
        if request.meta.get("page") and frontier.is_down(request.url):
            raise IgnoreRequest("host_down")
        if request.meta.get("page") and frontier.is_out_of_time():
            raise IgnoreRequest("time_limit")

    def process_response(self, request: Request, response: Response, spider: Spider | None = None) -> Any:
        stated = response.headers.get("Retry-After") if response.status in (429, 503) else None
        wait = retry_after(stated.decode("latin-1"), datetime.now(UTC)) if stated else None
        if wait is not None and wait > RETRY_AFTER_CAP_SECONDS:
            log.info("%s asks for a pause of %.0f s: left for the next scrape", request.url, wait)
            return response
        retry = super().process_response(request, response)
        if retry is not response:
            hold_host(self.crawler, request, wait if wait is not None else self._backoff(request))
        return retry

    def process_exception(self, request: Request, exception: Exception, spider: Spider | None = None) -> Any:
        retry = super().process_exception(request, exception)
        if retry is not None:
            hold_host(self.crawler, request, self._backoff(request))
        return retry

    @staticmethod
    def _backoff(request: Request) -> float:
        return BACKOFF_SECONDS * float(2 ** request.meta.get("retry_times", 0))


class PublicResolver(CachingThreadedResolver):  # type: ignore[misc]
    """Looks names up, and refuses those that lead to a private address: what is checked is what is connected to.

    Twisted forgets the message of a failed look-up on its way up, so the refused names are kept here.
    """

    refused: ClassVar[set[str]] = set()

    def getHostByName(self, name: str, timeout: Any = ()) -> Deferred[str]:  # noqa: N802 (Twisted's name)
        return super().getHostByName(name, timeout).addCallback(self._check, name)

    @classmethod
    def _check(cls, address: str, name: str) -> str:
        if is_private(address):
            cls.refused.add(name)
            raise DNSLookupError(f"{name} has the private address {address}")
        return address
