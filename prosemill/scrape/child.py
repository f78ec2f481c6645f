"""The crawling process: Scrapy's reactor cannot be started twice in one, so each crawl has its own.

Pages and ledger are written into the job's folder; the parent is told how far it is, and at the end what there is.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from scrapy.crawler import Crawler, CrawlerProcess

from prosemill.runtime import subprocesses
from prosemill.scrape import urls
from prosemill.scrape.answers import ACCEPT_ENCODING
from prosemill.scrape.entries import Answer
from prosemill.scrape.frontier import Frontier
from prosemill.scrape.job import Job
from prosemill.scrape.ledger import LEDGER_FILE, read_ledger, write_ledger
from prosemill.scrape.politeness import RETRY_TIMES
from prosemill.scrape.spider import MARGIN_SECONDS, PageSpider
from prosemill.storage.warc import Page, PageArchive, RecordLocation

log = logging.getLogger(__name__)

_PROGRESS_SECONDS = 0.25
# Parts of Scrapy that are off: what the frontier does itself …
_OURS = ("REDIRECT", "METAREFRESH", "COOKIES", "HTTPPROXY", "COMPRESSION", "REFERER")
# … and what listens on a port or tells others of our work.
_SERVICES = ("TELNETCONSOLE", "REMOTE_CONTROL", "MEMUSAGE")


def crawl(fields: dict[str, Any]) -> None:
    """Do one job (the fields of a Job)."""
    job = Job.of_fields(fields)
    with PageArchive(Path(job.folder)) as pages:
        prior = read_ledger(Path(job.prior)) if job.prior else []
        frontier = Frontier(job, prior, lambda url, answer: _store(pages, url, answer))
        process = CrawlerProcess(scrapy_settings(job))
        crawler = process.create_crawler(PageSpider)
        process.crawl(crawler, frontier=frontier, progress=Progress())
        timer = threading.Timer(job.max_minutes * 60, _out_of_time, [job, pages, frontier, crawler])
        timer.daemon = True
        timer.start()
        process.start(install_signal_handlers=False)  # a signal ends this process at once
        timer.cancel()
        _finish(job, pages, frontier, crawler)


def _finish(job: Job, pages: PageArchive, frontier: Frontier, crawler: Crawler) -> None:
    """Write the ledger and tell the parent; raises when the crawl ended by an error of ours."""
    stats, spider = crawler.stats, crawler.spider
    if stats is None or spider is None or stats.get_value("finish_reason", "finished") != "finished":
        raise RuntimeError("the crawl was stopped")
    if stats.get_value("spider_exceptions/count"):
        raise RuntimeError("the crawl met an error of its own; the lines above say which")
    rows = frontier.rows()
    pages.close()
    write_ledger(Path(job.folder) / LEDGER_FILE, rows)
    summary = {
        "files": pages.files,
        "partial": frontier.is_partial,
        "links_left_out": frontier.links_left_out,
        "requests": stats.get_value("downloader/request_count", 0),
        "received_bytes": stats.get_value("downloader/response_bytes", 0),
        "trouble": spider.trouble,
    }
    subprocesses.send(done=summary)


def _out_of_time(job: Job, pages: PageArchive, frontier: Frontier, crawler: Crawler) -> None:
    """Time is up: finish in the reactor's thread and leave at once, whatever pause or answer is being waited for."""
    from twisted.internet import reactor

    def leave() -> None:
        code = 1
        try:
            _finish(job, pages, frontier, crawler)
            code = 0
        except Exception:
            log.exception("the crawl cannot be finished")
        finally:
            os._exit(code)

    reactor.callFromThread(leave)


def _store(pages: PageArchive, url: str, answer: Answer) -> RecordLocation:
    content_type = answer.content_type or "text/html"
    return pages.add(
        Page(
            url=url,
            content_type=content_type,
            body=answer.body,
            fetched_at=answer.fetched_at,
            content_sha256=answer.content_sha256,
            http_status=200,
            http_headers=answer.headers,
        )
    )


class Progress:
    """Writes how far the crawl is, a few times a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, answered: int, known: int) -> None:
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            subprocesses.send(answered=answered, known=known)


def scrapy_settings(job: Job) -> dict[str, Any]:
    ours = "prosemill.scrape.politeness"
    settings: dict[str, Any] = {
        "USER_AGENT": job.user_agent,
        "DEFAULT_REQUEST_HEADERS": {
            "Accept": "text/html,application/xhtml+xml,text/plain;q=0.9,*/*;q=0.1",
            "Accept-Encoding": ACCEPT_ENCODING,
        },
        "DOWNLOAD_DELAY": job.delay_seconds + MARGIN_SECONDS * (job.delay_seconds > 0) or 0.001,  # 0 cannot be held
        "DOWNLOAD_DELAY_JITTER": 0,
        "CONCURRENT_REQUESTS": min(16, 2 * len({urls.scope_of(url) for url in job.urls})),  # hosts at a time
        "CONCURRENT_REQUESTS_PER_DOMAIN": 1,
        "DOWNLOAD_TIMEOUT": job.timeout_seconds,
        "DNS_TIMEOUT": min(job.timeout_seconds, 20),
        "DOWNLOAD_MAXSIZE": job.max_page_bytes,
        "DOWNLOAD_WARNSIZE": 0,
        "DOWNLOAD_VERIFY_CERTIFICATES": True,
        "RETRY_TIMES": RETRY_TIMES,
        "RETRY_PRIORITY_ADJUST": 10,  # soon, since later answers wait to be decided on
        "RETRY_GIVE_UP_LOG_LEVEL": "INFO",
        "DOWNLOADER_MIDDLEWARES": {
            "scrapy.downloadermiddlewares.retry.RetryMiddleware": None,
            f"{ours}.PoliteRetry": 550,
            "scrapy.downloadermiddlewares.offsite.OffsiteMiddleware": None,  # the frontier's scope decides
        },
        "SPIDER_MIDDLEWARES": dict.fromkeys(
            [
                "scrapy.spidermiddlewares.referer.RefererMiddleware",
                "scrapy.spidermiddlewares.urllength.UrlLengthMiddleware",
                "scrapy.spidermiddlewares.depth.DepthMiddleware",
            ]
        ),
        "DUPEFILTER_CLASS": "scrapy.dupefilters.BaseDupeFilter",  # the frontier asks each URL once
        "SCHEDULER_MEMORY_QUEUE": "scrapy.squeues.FifoMemoryQueue",
        "HTTPERROR_ALLOW_ALL": True,
        "LOG_LEVEL": "INFO",
        "TWISTED_DNS_RESOLVER": "scrapy.resolver.CachingThreadedResolver"
        if job.allow_private_addresses
        else f"{ours}.PublicResolver",
    }
    for name in (*_OURS, *_SERVICES):
        settings[f"{name}_ENABLED"] = False
    return settings


if __name__ == "__main__":
    subprocesses.serve(crawl)
