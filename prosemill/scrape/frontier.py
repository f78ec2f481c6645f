"""Which URL is asked next, and what each answer means: the crawl without the network.

URLs are asked breadth first, links in page order. Answers may come in any order (several hosts, retries), but are
decided in the order of asking, as a processor retires its instructions: so the ledger of a site that does not change is
always the same, whatever the network does. At most WINDOW URLs are asked ahead of the oldest unanswered one, which
bounds memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from scrapy.linkextractors import IGNORED_EXTENSIONS

from prosemill.scrape import urls
from prosemill.scrape.entries import PERMANENT, REFUSALS, TRANSIENT, TRANSPORT, Answer, Entry
from prosemill.scrape.job import Job
from prosemill.scrape.ledger import LedgerRow
from prosemill.scrape.links import PageOutline
from prosemill.storage.warc import RecordLocation

WINDOW = 64
MAX_REDIRECTS = 10  # browsers allow 20; two are usual
MAX_CLAIMS = 10  # pages that name one and the same canonical address; more is a broken template, not one page
REFUSED_LIMIT = 3  # refused connections in a row until a host counts as down …
ERROR_LIMIT = 10  # … and time-outs, resets and 5xx, which single bad pages give too
_NOT_PAGES = frozenset(IGNORED_EXTENSIONS) - {"txt", "md"}


class Frontier:
    """`take` says what to ask, `complete` takes an answer, `rows` is the ledger. `archive` stores a body."""

    def __init__(self, job: Job, prior: list[LedgerRow], archive: Callable[[str, Answer], RecordLocation]) -> None:
        self.job, self.archive = job, archive
        self.prior = {row.url: row for row in prior}
        self.entries: list[Entry] = []
        self.links_left_out = 0
        self._known: dict[str, Entry] = {}
        self._filter = urls.UrlFilter.of(job.source, job.include, job.exclude)
        self._scope = {urls.scope_of(url) for url in job.urls}
        self._children: dict[str, list[str]] = {}
        self._aliases: dict[str, list[str]] = {}
        for row in prior:
            self._children.setdefault(row.referrer, []).append(row.url)
            if row.reason == "same_content":
                self._aliases.setdefault(row.redirected_to, []).append(row.url)
        self._by_sha: dict[str, Entry] = {}
        self._by_key: dict[str, Entry] = {}
        self._claims: dict[str, int] = {}
        self._queries: dict[str, int] = {}
        self._again: list[Entry] = []
        self._errors: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._next = self._oldest = self._live = self._pending = 0
        self._with_old_pages = False
        self._max_known = max(10_000, 20 * job.max_pages)  # a bound for memory: some 600 bytes each
        self._deadline = time.monotonic() + job.max_minutes * 60
        for url in job.urls:
            self._discover(url, depth=0, referrer="", is_start=True)
        self._advance()

    # --- asking ------------------------------------------------------------------------------------------------------

    def take(self) -> Iterator[Entry]:
        """Entries to ask now; each is given out once (or again after a 304 that helped nothing)."""
        while self._again:
            yield self._again.pop(0)
        while self._next < min(len(self.entries), self._oldest + WINDOW) and not self.is_out_of_time():
            if self._live + self._pending >= self.job.max_pages:
                return
            entry = self.entries[self._next]
            self._next += 1
            if not entry.is_decided:
                self._pending += 1
                yield entry

    def is_out_of_time(self) -> bool:
        return time.monotonic() > self._deadline

    def condition(self, entry: Entry) -> LedgerRow | None:
        """The row of the last scrape whose ETag and date may be sent: its body or its decision is still good."""
        prior = self.prior.get(entry.url)
        if prior is None or not entry.conditional or not (prior.etag or prior.last_modified):
            return None
        if prior.reason in ("ai_opt_out", "noindex") and not self.job.obey_opt_outs:
            return None
        if prior.is_live and prior.opt_out and self.job.obey_opt_outs:
            return None
        listed = self._filter.reason(entry.url)
        return prior if (prior.is_live and not listed) or prior.reason in (PERMANENT | {listed}) - {""} else None

    def is_down(self, url: str) -> bool:
        """The circuit breaker: this origin has failed too often in a row."""
        origin = urls.origin(url)
        return self._refusals.get(origin, 0) >= REFUSED_LIMIT or self._errors.get(origin, 0) >= ERROR_LIMIT

    # --- deciding ----------------------------------------------------------------------------------------------------

    def complete(self, entry: Entry, answer: Answer) -> None:
        entry.answer = answer
        self._count_errors(entry, answer)
        self._advance()

    def rows(self) -> list[LedgerRow]:
        """The ledger; what was known but not asked has reason time_limit or page_limit."""
        self._add_old_pages()
        for entry in self.entries:
            if not entry.is_decided:
                self._fail(entry, Answer("time_limit" if self.is_out_of_time() else "page_limit"), "skipped")
        return [entry.row for entry in self.entries]

    @property
    def is_partial(self) -> bool:
        """Whether some URL gave no page for a reason that may pass (entries.TRANSIENT)."""
        reasons = {entry.row.reason for entry in self.entries}
        kept = any(entry.row.is_live and entry.row.reason not in ("", "page_limit") for entry in self.entries)
        return kept or bool(reasons & (TRANSIENT - {"page_limit", "truncated"}))

    def _count_errors(self, entry: Entry, answer: Answer) -> None:
        origin = urls.origin(entry.url)
        if answer.reason in REFUSALS:
            self._refusals[origin] = self._refusals.get(origin, 0) + 1
        elif answer.reason in TRANSPORT or answer.status >= 500:
            self._errors[origin] = self._errors.get(origin, 0) + 1
        elif answer.status:
            self._refusals[origin] = self._errors[origin] = 0

    def _advance(self) -> None:
        """Decide on every answer whose predecessors are decided."""
        while True:
            while self._oldest < len(self.entries):
                entry = self.entries[self._oldest]
                if not entry.is_decided:
                    if entry.answer is None or not self._decide(entry, entry.answer):
                        return
                    entry.answer = None
                    self._pending -= 1
                    self._live += entry.row.is_live
                    entry.is_decided = True
                self._oldest += 1
            if self._with_old_pages:
                return
            self._with_old_pages = True
            self._add_old_pages()

    def _add_old_pages(self) -> None:
        """Pages of the last scrape that no page links to any more; they are asked again."""
        for row in self.prior.values():
            if row.is_live and row.url not in self._known:
                entry = self._discover(row.url, depth=row.depth, referrer=row.referrer, is_old=True)
                if entry is not None and self.job.kind == "urls":  # a list says all there is
                    entry.row.state, entry.row.reason, entry.is_decided = "gone", "removed", True

    def _decide(self, entry: Entry, answer: Answer) -> bool:
        """Fill in the row and follow the links; False when the URL has to be asked once more."""
        row = entry.row
        row.http_status, row.opt_out = answer.status, answer.opt_out
        if answer.reason:
            self._fail(entry, answer)
        elif answer.status == 304:
            return self._decide_unmodified(entry)
        elif answer.location and 300 <= answer.status < 400:
            self._decide_redirect(entry, answer)
        elif answer.status != 200:
            self._fail(entry, replace(answer, reason=f"http_{answer.status}"), "gone" if answer.status == 410 else "")
        else:
            self._decide_page(entry, answer)
        return True

    def _fail(self, entry: Entry, answer: Answer, state: str = "") -> None:
        """No page: but one that was live stays so while the trouble may pass."""
        row, prior = entry.row, self.prior.get(entry.url)
        row.http_status, row.opt_out = answer.status, answer.opt_out
        row.etag, row.last_modified, row.content_type = answer.etag, answer.last_modified, answer.content_type
        is_transient = answer.reason in TRANSIENT or answer.status >= 500 or answer.status in (408, 429)
        if prior is not None and prior.is_live and is_transient:
            entry.row = replace(prior, state="unchanged", reason=answer.reason, http_status=answer.status)
            return
        failed = answer.reason in TRANSPORT or answer.reason == "deferred" or answer.status >= 400
        row.state, row.reason = state or ("failed" if failed else "skipped"), answer.reason

    def _decide_unmodified(self, entry: Entry) -> bool:
        prior = self.condition(entry)
        twin = self._known.get(prior.redirected_to) if prior is not None else None
        is_alias = prior is not None and prior.reason == "same_content"
        if prior is None or (is_alias and not (twin and twin.is_decided and twin.row.state == "unchanged")):
            if not entry.conditional:
                self._fail(entry, Answer("http_304", status=304), "failed")
                return True
            entry.conditional, entry.answer = False, None  # no copy that this answer could stand for
            self._again.append(entry)
            return False
        row = entry.row
        entry.row = replace(prior, http_status=304, depth=row.depth, referrer=row.referrer)
        if row.opt_out:
            entry.row.opt_out = row.opt_out
        if prior.is_live:
            entry.row.state, entry.row.reason = "unchanged", ""
            self._register(entry, entry.url)
        for url in self._children.get(entry.url, []):  # an unchanged page has the links it had
            self._discover(url, depth=row.depth + 1, referrer=entry.url)
        return True

    def _decide_redirect(self, entry: Entry, answer: Answer) -> None:
        row, chain = entry.row, (*entry.chain, entry.index)
        row.state, row.reason = "skipped", "redirected"
        try:
            row.redirected_to = urls.canonical(answer.location, entry.url)
        except ValueError:
            row.redirected_to, row.reason = answer.location[: urls.MAX_URL_LENGTH], "unsupported_scheme"
            return
        if len(chain) > MAX_REDIRECTS or any(self.entries[index].url == row.redirected_to for index in chain):
            for index in chain:
                self.entries[index].row.state, self.entries[index].row.reason = "failed", "redirect_limit"
            return
        if urls.scope_of(row.redirected_to) not in self._scope:
            row.reason = "out_of_scope"
            return
        self._discover(row.redirected_to, depth=row.depth, referrer=entry.url, is_start=entry.is_start, chain=chain)

    def _decide_page(self, entry: Entry, answer: Answer) -> None:
        row, prior = entry.row, self.prior.get(entry.url)
        row.fetched_at, row.etag, row.last_modified = answer.fetched_at, answer.etag, answer.last_modified
        row.content_type, row.content_sha256 = answer.content_type, answer.content_sha256
        row.size_bytes = len(answer.body)
        key = self._key(entry.url, answer.outline.canonical)
        twin = self._by_sha.get(answer.content_sha256) or self._by_key.get(key)
        listed = self._filter.reason(entry.url)  # a start URL that is read for its links alone
        row.reason = answer.opt_out_reason or listed or ("same_content" if twin else "")
        if row.reason:
            row.state = "skipped"
            row.redirected_to = twin.url if twin and row.reason == "same_content" else ""
        elif prior is not None and prior.is_live and prior.content_sha256 == answer.content_sha256:
            entry.row = replace(
                prior, state="unchanged", reason="", http_status=200, etag=row.etag, last_modified=row.last_modified,
                depth=row.depth, referrer=row.referrer, opt_out=row.opt_out,
            )  # fmt: skip
            self._register(entry, key)
        else:
            place = self.archive(entry.url, answer)
            row.state, row.warc = "fetched", f"{self.job.snapshot}/{place.file}"
            row.warc_offset, row.warc_length = place.offset, place.length
            self._register(entry, key)
        if answer.follow and (entry.row.is_live or answer.content_sha256 not in self._by_sha):
            self._follow(entry, answer.outline)

    def _key(self, url: str, stated: str) -> str:
        """The address under which a page is one page: the canonical one that it states, where that can be believed."""
        if not stated:
            return url
        try:
            key = urls.canonical(stated)
        except ValueError:
            return url
        path, own_path = urlsplit(key).path, urlsplit(url).path
        if urls.scope_of(key) != urls.scope_of(url) or (path == "/" and own_path != "/"):
            return url  # "everything is the front page" is a broken template
        self._claims[key] = self._claims.get(key, 0) + (key != url)
        return key if self._claims[key] <= MAX_CLAIMS else url

    def _register(self, entry: Entry, key: str) -> None:
        self._by_sha.setdefault(entry.row.content_sha256, entry)
        for name in (key, entry.url, *self._aliases.get(entry.url, [])):
            self._by_key.setdefault(name, entry)

    def _follow(self, entry: Entry, outline: PageOutline) -> None:
        self.links_left_out += outline.links_left_out
        if self.job.kind != "site":
            return
        for link in outline.links:
            try:
                url = urls.canonical(link)
            except ValueError:
                continue
            self._discover(url, depth=entry.row.depth + 1, referrer=entry.url)

    # --- finding -----------------------------------------------------------------------------------------------------

    def _discover(
        self, url: str, *, depth: int, referrer: str, is_start: bool = False, is_old: bool = False,
        chain: tuple[int, ...] = (),
    ) -> Entry | None:  # fmt: skip
        """Add a URL, once (None if it is known); one that may not be asked is decided at once."""
        if url in self._known:
            return None
        if len(self.entries) >= self._max_known and not is_old:
            self.links_left_out += 1
            return None
        entry = Entry(
            LedgerRow(url, self.job.source, depth=depth, referrer=referrer), is_start, chain, len(self.entries)
        )
        self.entries.append(entry)
        self._known[url] = entry
        entry.row.reason = self._refusal(entry, is_redirect=bool(chain), is_old=is_old)
        entry.is_decided = bool(entry.row.reason)
        return entry

    def _refusal(self, entry: Entry, *, is_redirect: bool, is_old: bool) -> str:
        url = entry.url
        if not self.job.allow_private_addresses and urls.is_private(urlsplit(url).hostname or ""):
            return "private_address"
        if entry.is_start:
            return self._filter.reason(url) if self.job.kind == "urls" else ""
        if urls.scope_of(url) not in self._scope:
            return "out_of_scope"
        listed = self._filter.reason(url)
        if listed:
            return listed
        checks = {
            "query_string": "?" in url and not self.job.follow_query_strings and not is_redirect,
            "non_html": _is_not_a_page(url),
            "trap": not is_old and (urls.is_trap(url) or self._has_too_many_queries(url)),
            "depth_limit": not is_old and entry.row.depth > self.job.max_depth,
        }
        return next((reason for reason, holds in checks.items() if holds), "")

    def _has_too_many_queries(self, url: str) -> bool:
        path, mark, _ = url.partition("?")
        if not mark:
            return False
        self._queries[path] = self._queries.get(path, 0) + 1
        return self._queries[path] > urls.MAX_QUERIES


def _is_not_a_page(url: str) -> bool:
    """By its file name: a picture, an archive, a style sheet."""
    name = urlsplit(url).path.rsplit("/", 1)[-1].lower()
    return "." in name and name.rsplit(".", 1)[-1] in _NOT_PAGES
