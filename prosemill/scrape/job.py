"""What the parent asks the crawling child to do: plain fields, which travel as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosemill.config.settings import Scrape, Source


@dataclass(frozen=True)
class Job:
    """Everything a crawl depends on. `folder` is where pages and ledger go, `prior` the last ledger ("" for none)."""

    source: str
    kind: str
    urls: tuple[str, ...]  # canonical
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    snapshot: str
    folder: str
    prior: str
    user_agent: str
    delay_seconds: float
    max_pages: int
    max_depth: int
    max_minutes: float
    max_page_megabytes: float
    timeout_seconds: float
    obey_robots: bool
    obey_opt_outs: bool
    allow_private_addresses: bool
    follow_query_strings: bool

    @classmethod
    def of(cls, source: Source, settings: Scrape, urls: list[str], *, snapshot: str, folder: Path, prior: str) -> Job:
        return cls(
            source=source.name,
            kind=source.kind,
            urls=tuple(urls),
            include=tuple(source.include),
            exclude=tuple(source.exclude),
            snapshot=snapshot,
            folder=str(folder),
            prior=prior,
            **settings.model_dump(),
        )

    @property
    def max_page_bytes(self) -> int:
        return int(self.max_page_megabytes * (1 << 20))

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Job:
        """Out of JSON, which has no tuples."""
        values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in fields.items()}
        return cls(**values)
