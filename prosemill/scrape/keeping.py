"""Items of a source kept as pages and ledger: new bodies are stored, missing pages are marked gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from prosemill.config.settings import Source
from prosemill.errors import SourceEmpty
from prosemill.runtime import progress
from prosemill.scrape.ledger import LEDGER_FILE, LedgerRow, read_ledger, write_ledger
from prosemill.scrape.local import Item
from prosemill.storage.store import SnapshotWriter, Store
from prosemill.storage.warc import PageArchive
from prosemill.storage.warc_reader import BAD_FILE, BAD_RECORD, CUT_OFF, INCOMPLETE

_FAILED = ("unreadable", "bad_json", "bad_epub", BAD_RECORD, *INCOMPLETE)


def keep(
    items: Iterable[Item],
    source: Source,
    store: Store,
    writer: SnapshotWriter,
    previous: str,
    *,
    max_pages: int | None = None,
) -> list[LedgerRow]:
    """Write pages and ledger of a snapshot; the ledger's rows. Pages beyond `max_pages` are not kept."""
    prior = {row.url: row for row in read_ledger(store.local(f"{previous}/{LEDGER_FILE}"))} if previous else {}
    with PageArchive(writer.folder) as pages:
        rows = _keep(items, source, writer, pages, prior, max_pages)
    for name, number in pages.files:
        writer.add(name, "pages", number)
    write_ledger(writer.path(LEDGER_FILE), rows)
    return rows


def nothing_in(source: Source, rows: list[LedgerRow], what: str) -> SourceEmpty:
    """What to raise when no row is live: `what` was looked for, with the commonest reasons and what to do."""
    reasons = Counter(row.reason for row in rows if not row.is_live)
    commonest = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common(5)) or "nothing there"
    hints = {
        "private_address": "set allow_private_addresses = true under [scrape] for a site of your own",
        "robots_disallowed": "its robots.txt does not let us in; obey_robots = false is for a site of your own",
        "ai_opt_out": "its owner opted out of AI use; obey_opt_outs = false is for a site of your own",
        BAD_FILE: "it is damaged or not a web archive; fetch it again or remove it",
        CUT_OFF: "it is damaged; fetch it again or remove it",
    }
    hint = hints.get(reasons.most_common(1)[0][0] if reasons else "", "check the address, include and exclude")
    return SourceEmpty(f"source {source.name}: {what} ({commonest}); {hint}")


def _keep(
    items: Iterable[Item],
    source: Source,
    writer: SnapshotWriter,
    pages: PageArchive,
    prior: dict[str, LedgerRow],
    max_pages: int | None,
) -> list[LedgerRow]:
    """A row for every item; bodies that are new go into `pages`. What was live and is not there any more is gone."""
    rows: list[LedgerRow] = []
    seen: dict[str, str] = {}
    live = 0
    for item in progress.track(f"scrape {source.name}", items):
        row = LedgerRow(item.url, source.name, reason=item.reason, opt_out=item.opt_out)
        rows.append(row)
        old = prior.get(item.url)
        if item.page is None:
            row.state = "failed" if item.reason in _FAILED else "skipped"
            if row.state == "failed" and old is not None and old.is_live:
                rows[-1] = replace(old, state="unchanged", reason=item.reason)
            continue
        page = item.page
        row.content_type, row.content_sha256, row.fetched_at = page.content_type, page.content_sha256, page.fetched_at
        row.size_bytes, row.http_status = len(page.body), page.http_status
        if page.content_sha256 in seen:
            row.reason, row.redirected_to = "same_content", seen[page.content_sha256]
        elif max_pages is not None and live >= max_pages:
            row.reason = "page_limit"
        else:
            live += 1
            seen[page.content_sha256] = item.url
            if old is not None and old.is_live and old.content_sha256 == page.content_sha256:
                rows[-1] = replace(old, state="unchanged", reason="")
                continue
            place = pages.add(page)
            row.state, row.warc = "fetched", f"{writer.id}/{place.file}"
            row.warc_offset, row.warc_length = place.offset, place.length
    known = {row.url for row in rows}
    missing = [old for url, old in prior.items() if old.is_live and url not in known]
    writer.partial = any(row.reason in INCOMPLETE for row in rows)
    if writer.partial:  # what is missing may be in the part that could not be read
        return rows + [replace(old, state="unchanged", reason="") for old in missing]
    return rows + [LedgerRow(old.url, source.name, "gone", "removed") for old in missing]
