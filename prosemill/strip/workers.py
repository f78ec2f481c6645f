"""Pages stripped side by side in processes that may hang or die without taking the run with them.

A pool of the standard library cannot stop one worker; here a page that takes too long costs its worker, which is
replaced, and nothing else. Results come in the order of the pages, so the output does not depend on timing.

Pebble's pool can stop one, at 5 % more CPU, but all its workers share one pipe and its lock: one killed while 8 MB went
through cost 37 to 40 of 40 results in four trials of five. And its time limit is of wall time, not of CPU.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess

import psutil

from prosemill.config.settings import Strip
from prosemill.runtime.progress import report, track
from prosemill.storage.warc import Page
from prosemill.strip.document import EXTRACTION_FAILED, TOO_SLOW, StrippedPage, strip_html

# Of CPU, so that a busy machine drops no other page than an idle one, for each 10 MB begun, which is what the crawler
# keeps of a page by default. 990 real pages take ≤ 0.4 s, 10 MB of plain prose 2 s, the worst that was thought of 5 s.
PAGE_SECONDS = 5.0
PAGE_BYTES = 10 << 20
_WALL_FACTOR = 30  # a worker that waits for ever uses no CPU; it is ended after this many times PAGE_SECONDS
_START_SECONDS = 120.0  # importing the libraries takes 1.5 s, on a busy machine a few times that
# A process costs ~1.5 s to start, a page 30 ms: few small pages are stripped right here, where nothing stops one. But
# a page of this size does not take PAGE_SECONDS: the worst of 35 hostile ones took 0.7 s. Small plain texts, however
# many, are stripped right here too: at 0.3 ms each, 128 poems are done before a process has imported its libraries.
_FEW_PAGES, _FEW_BYTES, _SMALL_PAGE = 64, 4 << 20, 128 << 10
_PAGES_A_WORKER = 32
_WARM_UP = (
    b"<html><body><p>" + b"A few plain words, to have all that is loaded late loaded now. " * 9 + b"</p></body></html>"
)


def strip_pages(
    pages: Sequence[Page], settings: Strip, language: str, *, page_seconds: float = PAGE_SECONDS
) -> list[StrippedPage]:
    """One result a page, in their order; `too_slow` for a page that took longer than `page_seconds` for each 10 MB."""
    heavy = [page for page in pages if not _is_light(page)]
    sizes = [len(page.body) for page in heavy]
    if len(heavy) < _FEW_PAGES and sum(sizes) < _FEW_BYTES and max(sizes, default=0) <= _SMALL_PAGE:
        return [_strip(page, settings, language) for page in track("pages stripped", pages, len(pages))]
    num_workers = min(len(os.sched_getaffinity(0)), -(-len(heavy) // _PAGES_A_WORKER))
    from_crew = iter(_WorkerPool(settings, language, num_workers, page_seconds).strip(heavy))
    return [_strip(page, settings, language) if _is_light(page) else next(from_crew) for page in pages]


def _is_light(page: Page) -> bool:
    """Small plain text: nothing is parsed, so that nothing can take long."""
    is_plain = page.content_type.startswith(("text/plain", "text/markdown"))
    return is_plain and len(page.body) <= _SMALL_PAGE and not page.body.lstrip().startswith(b"<")


def _strip(page: Page, settings: Strip, language: str) -> StrippedPage:
    return strip_html(
        page.body, url=page.url, content_type=page.content_type, settings=settings, language=language, title=page.title
    )


def _cpu_seconds(process: BaseProcess) -> float:
    """CPU seconds that a process has used so far; infinite for one that is gone."""
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.Error:
        return math.inf
    return float(times.user + times.system)


def _serve(pipe: connection.Connection, settings: Strip, language: str) -> None:
    """In the worker: pages in, results out, until the parent closes the pipe (also by dying)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    strip_html(_WARM_UP, settings=settings, language=language)  # models and word lists: not in the first page's time
    pipe.send("ready")
    while True:
        try:
            page = pipe.recv()
        except EOFError:
            return
        pipe.send(_strip(page, settings, language))


@dataclass
class _Worker:
    process: BaseProcess
    pipe: connection.Connection
    deadline: float
    seconds: float = 0.0  # of CPU that its page may take
    page: int = -1  # index of the page it is at; -1: starting or idle
    cpu_before: float = 0.0  # seconds the process had used when it was given the page
    gives_up_at: float = 0.0
    is_ready: bool = False


class _WorkerPool:
    def __init__(self, settings: Strip, language: str, num_workers: int, page_seconds: float) -> None:
        self._job = (settings, language)
        self._num_workers, self._page_seconds = num_workers, page_seconds
        self._results: dict[int, StrippedPage] = {}
        self._crew: list[_Worker] = []

    def strip(self, pages: Sequence[Page]) -> list[StrippedPage]:
        waiting = iter(range(len(pages)))
        try:
            self._crew = [self._hire() for _ in range(self._num_workers)]
            while len(self._results) < len(pages):
                for worker in self._crew:
                    self._feed(worker, pages, waiting)
                self._collect()
                report("pages stripped", len(self._results), len(pages))
            return [self._results[index] for index in range(len(pages))]
        finally:
            for worker in self._crew:
                self._dismiss(worker)

    def _hire(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, *self._job), daemon=True, name="prosemill-strip")
        process.start()
        theirs.close()
        return _Worker(process, ours, time.monotonic() + _START_SECONDS)

    def _dismiss(self, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.kill()
        worker.process.join()

    def _feed(self, worker: _Worker, pages: Sequence[Page], waiting: Iterator[int]) -> None:
        if not worker.is_ready or worker.page >= 0:
            return
        index = next(waiting, -1)
        if index < 0:
            return
        now = time.monotonic()
        worker.seconds = self._page_seconds * -(-len(pages[index].body) // PAGE_BYTES or 1)
        worker.page, worker.deadline = index, now + worker.seconds
        worker.cpu_before, worker.gives_up_at = _cpu_seconds(worker.process), now + _WALL_FACTOR * worker.seconds
        try:
            worker.pipe.send(pages[index])
        except OSError:  # it died between two pages; `_collect` sees the same and blames the page, which nobody retries
            return

    def _collect(self) -> None:
        """Wait for something to happen: results, deaths, deadlines."""
        busy = [worker for worker in self._crew if worker.page >= 0 or not worker.is_ready]
        soonest = min(worker.deadline for worker in busy)
        ready = connection.wait([worker.pipe for worker in busy], max(0.0, soonest - time.monotonic()))
        for worker in busy:
            if worker.pipe in ready:
                self._receive(worker)
            elif time.monotonic() > worker.deadline and not self._may_go_on(worker):
                self._replace(worker, StrippedPage("", reason=TOO_SLOW, detail=f"more than {worker.seconds:g} seconds"))

    def _may_go_on(self, worker: _Worker) -> bool:
        """Whether a worker past its deadline has only been kept waiting for a processor; if so, a later deadline."""
        now, used = time.monotonic(), _cpu_seconds(worker.process) - worker.cpu_before
        if worker.page < 0 or used >= worker.seconds or now >= worker.gives_up_at:
            return False
        worker.deadline = now + max(0.1, worker.seconds - used)
        return True

    def _receive(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(5)
            code = worker.process.exitcode
            self._replace(
                worker, StrippedPage("", reason=EXTRACTION_FAILED, detail=f"the process died with exit code {code}")
            )
            return
        if worker.is_ready:
            self._results[worker.page] = message
        worker.is_ready, worker.page = True, -1

    def _replace(self, worker: _Worker, result: StrippedPage) -> None:
        """End a worker and put a new one in its place; its page gets `result`."""
        self._dismiss(worker)
        if not worker.is_ready:
            raise RuntimeError(f"a worker process of strip does not start: {result.detail}")
        self._results[worker.page] = result
        self._crew[self._crew.index(worker)] = self._hire()
