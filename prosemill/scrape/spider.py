"""The Scrapy side of a crawl: asks what the frontier wants asked, robots.txt of each origin first."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest, StopDownload
from scrapy.http import Headers, Response
from twisted.python.failure import Failure

from prosemill.scrape import answers, optouts, urls
from prosemill.scrape.compat import set_host_delay
from prosemill.scrape.entries import Answer, Entry
from prosemill.scrape.frontier import Frontier
from prosemill.scrape.links import PageOutline, outline
from prosemill.scrape.politeness import PublicResolver
from prosemill.scrape.robots import MAX_BYTES, MAX_REDIRECTS, Robots, product_token
from prosemill.storage.charsets import label_in
from prosemill.storage.times import moment

_SIDE_FILES = (optouts.TDMREP_PATH, optouts.AI_TXT_PATH)
ROBOTS_SECONDS = 24 * 3600.0  # how long a robots.txt is good for
MARGIN_SECONDS = 0.02  # the server's clock sees a gap a little shorter than ours


@dataclass
class Origin:
    """A scheme, host and port: its rules, and the entries that wait for them."""

    robots: Robots | None = None
    site: optouts.SiteOptOuts = field(default_factory=optouts.SiteOptOuts)
    files: dict[str, bytes] = field(default_factory=dict)
    is_ready: bool = False
    asked_at: float = field(default_factory=time.monotonic)
    waiting: list[Entry] = field(default_factory=list)


class PageSpider(Spider):  # type: ignore[misc]
    """One request in flight per host, in the frontier's order."""

    name = "prosemill"
    crawler: Crawler

    def __init__(self, frontier: Frontier, progress: Callable[[int, int], None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frontier, self.job, self.progress = frontier, frontier.job, progress
        self.token = product_token(self.job.user_agent)
        self.origins: dict[str, Origin] = {}
        self.trouble = ""  # of the first origin that could not be reached
        self._answered = 0

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> PageSpider:
        spider: PageSpider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.on_headers, signals.headers_received)
        crawler.signals.connect(spider.on_bytes, signals.bytes_received)
        return spider

    async def start(self) -> AsyncIterator[Request]:
        for request in self._pump():
            yield request

    # --- pages -------------------------------------------------------------------------------------------------------

    def _pump(self) -> Iterator[Request]:
        """Requests for all that the frontier wants asked by now."""
        while entries := list(self.frontier.take()):
            for entry in entries:
                yield from self._ask(entry)

    def _ask(self, entry: Entry) -> Iterator[Request]:
        name = urls.origin(entry.url)
        origin = self.origins.get(name)
        if origin is not None and origin.is_ready and time.monotonic() - origin.asked_at > ROBOTS_SECONDS:
            origin = None  # RFC 9309, 2.4
        if origin is None:
            origin = self.origins[name] = Origin()
            if self.job.obey_robots or self.job.obey_opt_outs:
                origin.waiting.append(entry)
                yield self._side_request(name, "/robots.txt")
                return
            origin.robots, origin.is_ready = Robots(self.token), True
        if not origin.is_ready:
            origin.waiting.append(entry)
        elif refusal := self._refusal(origin, entry):
            self.frontier.complete(entry, refusal)
        else:
            yield self._page_request(entry)

    def _refusal(self, origin: Origin, entry: Entry) -> Answer | None:
        """The answer that needs no request: robots.txt, an AI opt-out there, a host that is down."""
        robots = origin.robots
        assert robots is not None
        if self.frontier.is_down(entry.url):
            return answers.without_body("host_down")
        if self.job.obey_robots and robots.unavailable:
            own = ("connection_refused", "dns_error", "tls_error", "private_address")
            return answers.without_body(robots.unavailable if robots.unavailable in own else "robots_unavailable")
        if self.job.obey_robots and not robots.allows(entry.url):
            return answers.without_body("robots_disallowed")
        opt_out = robots.opt_out(entry.url)
        if opt_out and self.job.obey_opt_outs:
            return answers.without_body("ai_opt_out", opt_out=opt_out)
        return None

    def _page_request(self, entry: Entry) -> Request:
        prior = self.frontier.condition(entry)
        headers = {}
        if prior is not None and prior.etag:
            headers["If-None-Match"] = prior.etag
        if prior is not None and prior.last_modified:
            headers["If-Modified-Since"] = prior.last_modified
        return Request(
            entry.url,
            headers=headers,
            callback=self.on_page,
            errback=self.on_page_failure,
            cb_kwargs={"entry": entry},
            meta={"page": True},
            dont_filter=True,
        )

    def on_page(self, response: Response, entry: Entry) -> Iterator[Request]:
        yield from self._complete(entry, self._read(response, entry))

    def on_page_failure(self, failure: Failure) -> Iterator[Request]:
        entry: Entry = failure.request.cb_kwargs["entry"]
        yield from self._complete(entry, answers.without_body(_reason(failure)))

    def _complete(self, entry: Entry, answer: Answer) -> Iterator[Request]:
        self.frontier.complete(entry, answer)
        self._answered += 1
        self.progress(self._answered, len(self.frontier.entries))
        yield from self._pump()

    def _read(self, response: Response, entry: Entry) -> Answer:
        """Decide nothing, only read: encodings, type, links, opt-outs."""
        fields = {
            "location": _text(response.headers, "Location"),
            "etag": _text(response.headers, "ETag"),
            "last_modified": _text(response.headers, "Last-Modified"),
            "content_type": _text(response.headers, "Content-Type"),
        }
        if response.status in (429, 503) and response.headers.get("Retry-After"):
            return answers.without_body("deferred", response.status)
        if response.status != 200:
            return answers.without_body("", response.status, **fields)
        try:
            encodings = [part.strip().lower() for part in _text(response.headers, "Content-Encoding").split(",")]
            body = b"" if "download_stopped" in response.flags else response.body
            body = answers.inflate(body, encodings, self.job.max_page_bytes)
            answers.check_page(fields["content_type"], body or b"-" * ("download_stopped" in response.flags))
        except answers.UnusableBody as bad:
            return answers.without_body(str(bad), 200, **fields)
        return self._read_page(response, entry, body, fields)

    def _read_page(self, response: Response, entry: Entry, body: bytes, fields: dict[str, str]) -> Answer:
        kind = fields["content_type"]
        page = outline(body, entry.url, label_in(kind)) if answers.is_html(kind, body) else PageOutline()
        headers = {name.decode("latin-1").lower(): [v.decode("latin-1") for v in values]
                   for name, values in response.headers.items()}  # fmt: skip
        origin = self.origins[urls.origin(entry.url)]
        decision = optouts.decide(
            entry.url,
            robots=origin.robots.opt_out(entry.url) if origin.robots else "",
            site=origin.site,
            headers=headers,
            meta=page.meta,
            token=self.token,
            obey=self.job.obey_opt_outs,
        )
        return Answer(
            status=200,
            body=body,
            content_sha256=answers.sha256(body),
            fetched_at=moment(),
            opt_out=decision.opt_out,
            opt_out_reason=decision.reason,
            follow=decision.follow,
            outline=page,
            headers=tuple((name, value) for name, values in headers.items() for value in values),
            **fields,
        )

    # --- robots.txt, tdmrep.json, ai.txt -----------------------------------------------------------------------------

    def _side_request(self, origin: str, path: str, url: str = "", hops: int = 0) -> Request:
        return Request(
            url or origin + path,
            headers={"Accept-Encoding": "identity"},
            callback=self.on_side_file,
            errback=self.on_side_failure,
            cb_kwargs={"origin": origin, "path": path, "hops": hops},
            meta={"page": False, "received": 0, "max_retry_times": 2 if path == "/robots.txt" else 0},
            dont_filter=True,
            priority=100,
        )

    def on_side_file(self, response: Response, origin: str, path: str, hops: int) -> Iterator[Request]:
        location = _text(response.headers, "Location")
        if 300 <= response.status < 400 and location and hops < MAX_REDIRECTS:
            try:
                url = urls.canonical(location, response.url)
            except ValueError:
                url = ""
            if url and (self.job.allow_private_addresses or not urls.is_private(url.split("/")[2].rsplit(":", 1)[0])):
                yield self._side_request(origin, path, url, hops + 1)
                return
        yield from self._side_done(origin, path, response.status, response.body)

    def on_side_failure(self, failure: Failure) -> Iterator[Request]:
        arguments = failure.request.cb_kwargs
        reason = _reason(failure)
        if arguments["path"] == "/robots.txt":
            self.trouble = self.trouble or reason
            self.origins[arguments["origin"]].robots = Robots(self.token, unavailable=reason)
        yield from self._side_done(arguments["origin"], arguments["path"], 0, b"")

    def _side_done(self, name: str, path: str, status: int, body: bytes) -> Iterator[Request]:
        """Note one file; ask for the next, or let the entries that waited go."""
        origin = self.origins[name]
        if path == "/robots.txt":
            origin.robots = origin.robots or Robots.from_answer(self.token, status, body)
            if origin.robots.unavailable.startswith("http_"):
                self.trouble = self.trouble or f"robots.txt: {origin.robots.unavailable}"
            self._slow_down(name, origin.robots.crawl_delay)
        else:
            origin.files[path] = body if status == 200 else b""
        left = [file for file in _SIDE_FILES if file not in origin.files]
        closed = origin.robots is not None and self.job.obey_robots and not origin.robots.allows(f"{name}/")
        if left and not closed and not self.frontier.is_out_of_time():
            yield self._side_request(name, left[0])
            return
        origin.site = optouts.SiteOptOuts.parse(*(origin.files.get(file, b"") for file in _SIDE_FILES))
        origin.is_ready = True
        for entry in origin.waiting:
            yield from self._ask(entry)
        origin.waiting.clear()
        yield from self._pump()

    def _slow_down(self, origin: str, crawl_delay: float) -> None:
        """robots' crawl-delay is a floor of the recipe's delay, for the whole host."""
        delay = max(self.job.delay_seconds, crawl_delay)
        if delay <= self.job.delay_seconds or self.crawler.engine is None or not self.job.obey_robots:
            return
        set_host_delay(self.crawler, Request(origin), delay + MARGIN_SECONDS)

    # --- signals -----------------------------------------------------------------------------------------------------

    def on_headers(self, headers: Headers, request: Request) -> None:
        """Stop before the body of a picture or a film comes in."""
        kind = _text(headers, "Content-Type")
        if request.meta.get("page") and not answers.is_page_type(kind):
            raise StopDownload(fail=False)

    def on_bytes(self, data: bytes, request: Request) -> None:
        if request.meta.get("page") is False:
            request.meta["received"] += len(data)
            if request.meta["received"] >= MAX_BYTES:
                raise StopDownload(fail=False)


def _reason(failure: Failure) -> str:
    if isinstance(failure.value, IgnoreRequest):
        return str(failure.value)
    reason = answers.failure_reason(failure.value)
    refused = urlsplit(failure.request.url).hostname in PublicResolver.refused
    return "private_address" if refused and reason == "dns_error" else reason


def _text(headers: Headers, name: str) -> str:
    return b", ".join(headers.getlist(name)).decode("latin-1").strip()
