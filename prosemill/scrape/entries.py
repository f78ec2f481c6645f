"""One URL of a crawl, what came back for it, and which reasons pass by themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

from prosemill.scrape.ledger import LedgerRow
from prosemill.scrape.links import PageOutline

REFUSALS = frozenset({"connection_refused", "dns_error", "tls_error"})  # of the host, not of one page
TRANSPORT = REFUSALS | {"timeout", "connection_lost", "truncated"}
# Reasons that may pass: a page that was live before stays live.
TRANSIENT = TRANSPORT | {"deferred", "robots_unavailable", "host_down", "time_limit", "page_limit"}
# Answers whose decision stands as long as the server says "not modified".
PERMANENT = frozenset({"non_html", "empty", "noindex", "ai_opt_out", "same_content"})


@dataclass(frozen=True)
class Answer:
    """What came back for one URL. `reason` is set when there is nothing to decide: not asked, or no usable answer."""

    reason: str = ""
    status: int = 0
    location: str = ""
    etag: str = ""
    last_modified: str = ""
    content_type: str = ""
    body: bytes = b""
    content_sha256: str = ""
    fetched_at: str = ""
    opt_out: str = ""
    opt_out_reason: str = ""  # "", ai_opt_out or noindex
    follow: bool = True
    outline: PageOutline = field(default_factory=PageOutline)
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Entry:
    """One URL of the crawl. `row` is its line of the ledger; final once `is_decided`."""

    row: LedgerRow
    is_start: bool = False
    chain: tuple[int, ...] = ()  # entries that redirected here
    index: int = 0
    is_decided: bool = False
    conditional: bool = True
    answer: Answer | None = None

    @property
    def url(self) -> str:
        return self.row.url
