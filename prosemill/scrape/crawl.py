"""Runs the crawling child and watches over it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from prosemill.errors import CrawlerDied
from prosemill.runtime import progress, subprocesses
from prosemill.scrape.job import Job

GRACE_SECONDS = 120.0  # beyond max_minutes: starting, and writing the ledger of a million URLs


@dataclass(frozen=True)
class CrawlReport:
    """What the child reports at its end; pages and ledger lie in the job's folder."""

    files: list[tuple[str, int]]
    partial: bool
    links_left_out: int
    requests: int
    received_bytes: int
    trouble: str


def crawl(job: Job, work: Path) -> CrawlReport:
    """Crawl in a process of its own. CrawlerDied with the last line of its log (`<work>/crawl.log`) when it fails."""
    log = work / "crawl.log"
    done: list[CrawlReport] = []

    def hear(message: subprocesses.Message) -> None:
        if "done" in message:
            fields = message["done"]
            done.append(CrawlReport(**{**fields, "files": [(name, pages) for name, pages in fields["files"]]}))
        else:
            progress.report(f"scrape {job.source}", message["answered"], message["known"])

    try:
        subprocesses.run_child(
            "prosemill.scrape.child",
            asdict(job),
            timeout_seconds=job.max_minutes * 60 + GRACE_SECONDS,
            on_line=hear,
            log=log,
        )
    except subprocesses.ChildDied as died:
        raise CrawlerDied(f"source {job.source}: {died}; its log: {log}") from died
    if not done:
        raise CrawlerDied(f"source {job.source}: the crawling process ended without a report; its log: {log}")
    return done[0]
