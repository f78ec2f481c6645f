"""The stage: one snapshot per source, with the pages that are new or changed and a ledger of every URL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from prosemill.config.settings import Scrape, Source
from prosemill.errors import SourceEmpty, SourceError, SourceUnreachable
from prosemill.runtime import progress
from prosemill.scrape import local, urls
from prosemill.scrape.crawl import Crawled, crawl
from prosemill.scrape.dataset import hub_items, is_hub_name, iter_dataset
from prosemill.scrape.job import Job
from prosemill.scrape.ledger import LEDGER_FILE, Row, counts, read_ledger, write_ledger
from prosemill.scrape.web_archive import iter_warc
from prosemill.storage import stages
from prosemill.storage.manifest import digest, snapshot_id
from prosemill.storage.store import SnapshotWriter, Store
from prosemill.storage.warc import PageArchive
from prosemill.storage.warc_reader import BAD_FILE, BAD_RECORD, CUT_OFF, INCOMPLETE

STAGE = stages.of("scrape")
_WEB = ("site", "urls")
# Version 1 lost the records after one whose encodings misled it. Pages that it read have the same ids still.
_READER_VERSIONS = {"warc": 2}
# The site as a whole did not answer, in words for a person.
_UNREACHABLE = {
    "connection_refused": "the connection was refused",
    "dns_error": "its name cannot be resolved",
    "tls_error": "its certificate is not valid",
    "timeout": "no answer in time",
    "connection_lost": "the connection was lost",
    "robots_unavailable": "its robots.txt cannot be read",
    "host_down": "it stopped answering",
    "deferred": "it asks to be left alone for now",
}


_FAILED = ("unreadable", "bad_json", "bad_epub", BAD_RECORD, *INCOMPLETE)


def scrape_source(
    store: Store, source: Source, settings: Scrape, *, as_of: str, previous: str = "", flow_run_id: str = ""
) -> str:
    """Read one source and give the id of its snapshot; what is unchanged since `previous` is not stored again.

    Raises SourceUnreachable, SourceEmpty, SourceError, RecipeError or CrawlerDied. A site that goes down half way gives
    a partial snapshot in which pages known before stay live.
    """
    urls.Filter.of(source.name, source.include, source.exclude)  # a wrong pattern is told before any work
    if previous:
        store.require(previous)
    files = [] if source.kind in _WEB or is_hub_name(source) else local.list_files(source)
    starts = _start_urls(source) if source.kind in _WEB else []
    described = source.model_dump(exclude=set() if is_hub_name(source) else {"path"})
    inputs = [digest(described), digest(starts) if starts else _digest_of(source, files), previous]
    snapshot = snapshot_id(STAGE.name, STAGE.version, inputs=inputs, settings=settings.model_dump(), as_of=as_of)
    if store.has(snapshot):
        return snapshot
    with store.write(
        snapshot,
        stage=STAGE.name,
        version=STAGE.version,
        parents=[previous] if previous else [],
        settings={"source": described, **settings.model_dump()},
        as_of=as_of,
        flow_run_id=flow_run_id,
    ) as writer:
        writer.origins += starts or [f"hf:datasets/{source.path}" if is_hub_name(source) else source.path]
        if source.kind in _WEB:
            rows = _crawl(store, writer, source, settings, starts, previous)
        else:
            rows = _read(store, writer, source, settings, files, previous, as_of)
        writer.counts = counts(rows)
        writer.add(LEDGER_FILE, "ledger", len(rows))
        writer.totals |= {
            "source": source.name,
            "kind": source.kind,
            "licence": source.licence,
            "fetched": sum(row.state == "fetched" for row in rows),
            "unchanged": sum(row.state == "unchanged" for row in rows),
            "live_bytes": sum(row.size_bytes for row in rows if row.is_live),
            "opted_out": sum(bool(row.opt_out) for row in rows),
        }
    store.drop_work_folder(snapshot)
    return snapshot


def fingerprint(source: Source) -> str:
    """Digest of what a local source holds now, for a cache that must see a changed file; "" for the web and the hub."""
    if source.kind in _WEB or is_hub_name(source):
        return ""
    return _digest_of(source, local.list_files(source))


def _digest_of(source: Source, files: list[local.File]) -> str:
    """Of what a local source holds, and of the reader where one has been mended so that it reads more of the same."""
    contents = local.fingerprint(files)
    version = _READER_VERSIONS.get(source.kind)
    return digest([contents, version]) if version else contents


# --- the web ---------------------------------------------------------------------------------------------------------


def _start_urls(source: Source) -> list[str]:
    """Canonical start URLs, of the recipe and of the list file, each once, in order."""
    given = list(source.urls)
    if source.path:
        path = Path(source.path)
        if not path.is_file():
            raise SourceError(f"source {source.name}: {path}: no such file of URLs; correct `path` in the recipe")
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        given += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    found: dict[str, None] = {}
    for url in given:
        try:
            found[urls.canonical(url)] = None
        except ValueError as error:
            raise SourceError(
                f"source {source.name}: {url!r} is not an address that can be read ({error}); "
                'give http:// or https:// URLs, or kind = "folder" for files'
            ) from None
    if not found:
        raise SourceEmpty(f"source {source.name}: the list of URLs is empty; add some or remove the source")
    return list(found)


def _crawl(
    store: Store, writer: SnapshotWriter, source: Source, settings: Scrape, starts: list[str], previous: str
) -> list[Row]:
    prior = str(store.local(f"{previous}/{LEDGER_FILE}")) if previous else ""
    job = Job.of(source, settings, starts, snapshot=writer.id, folder=writer.folder, prior=prior)
    with store.work_folder(writer.id) as work:
        crawled = crawl(job, work)
    rows = read_ledger(writer.folder / LEDGER_FILE)
    if not any(row.is_live for row in rows):
        raise _nothing(source, rows, starts, crawled)
    for name, pages in crawled.files:
        writer.add(name, "pages", pages)
    writer.partial = crawled.partial
    writer.totals |= {
        "requests": crawled.requests,
        "received_bytes": crawled.received_bytes,
        "links_left_out": crawled.links_left_out,
    }
    return rows


def _nothing(source: Source, rows: list[Row], starts: list[str], crawled: Crawled) -> SourceError:
    first = next(row for row in rows if row.url == starts[0])
    if first.reason in _UNREACHABLE or first.http_status >= 500:
        what = _UNREACHABLE.get(first.reason, f"it answers with status {first.http_status}")
        detail = f" ({crawled.trouble})" if crawled.trouble and crawled.trouble != first.reason else ""
        return SourceUnreachable(
            f"source {source.name}: {first.url} cannot be read: {what}{detail}; "
            "check the address and that the site is up, then run the same command again"
        )
    if first.reason == "out_of_scope":
        return SourceEmpty(
            f"source {source.name}: {first.url} leads to {first.redirected_to}; give that address instead"
        )
    return _empty(source, rows, f"no page at {first.url}")


def _empty(source: Source, rows: list[Row], what: str) -> SourceEmpty:
    reasons = Counter(row.reason for row in rows if not row.is_live)
    found = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common(5)) or "nothing there"
    hints = {
        "private_address": "set allow_private_addresses = true under [scrape] for a site of your own",
        "robots_disallowed": "its robots.txt does not let us in; obey_robots = false is for a site of your own",
        "ai_opt_out": "its owner opted out of AI use; obey_opt_outs = false is for a site of your own",
        BAD_FILE: "it is damaged or not a web archive; fetch it again or remove it",
        CUT_OFF: "it is damaged; fetch it again or remove it",
    }
    hint = hints.get(reasons.most_common(1)[0][0] if reasons else "", "check the address, include and exclude")
    return SourceEmpty(f"source {source.name}: {what} ({found}); {hint}")


# --- what lies on disk -----------------------------------------------------------------------------------------------


def _read(
    store: Store,
    writer: SnapshotWriter,
    source: Source,
    settings: Scrape,
    files: list[local.File],
    previous: str,
    as_of: str,
) -> list[Row]:
    prior = {row.url: row for row in read_ledger(store.local(f"{previous}/{LEDGER_FILE}"))} if previous else {}
    fetched_at = as_of if "T" in as_of else f"{as_of}T00:00:00Z"
    with PageArchive(writer.folder) as pages:
        rows = _keep(_items(source, settings, fetched_at, files), source, settings, writer, pages, prior)
    if not any(row.is_live for row in rows):
        raise _empty(source, rows, f"no text in {source.path}")
    for name, number in pages.files:
        writer.add(name, "pages", number)
    write_ledger(writer.path(LEDGER_FILE), rows)
    return rows


def _items(source: Source, settings: Scrape, fetched_at: str, files: list[local.File]) -> Iterable[local.Item]:
    if source.kind == "folder":
        return local.iter_folder(source, settings, fetched_at, files)
    if source.kind == "warc":
        return iter_warc(source, settings, fetched_at, files)
    if is_hub_name(source):
        return hub_items(source, settings, fetched_at)
    return iter_dataset(source, settings, fetched_at, files)


def _keep(
    items: Iterable[local.Item],
    source: Source,
    settings: Scrape,
    writer: SnapshotWriter,
    pages: PageArchive,
    prior: dict[str, Row],
) -> list[Row]:
    """A row for every item; bodies that are new go into `pages`. What was live and is no more there is gone."""
    rows: list[Row] = []
    seen: dict[str, str] = {}
    live = 0
    for item in progress.track(f"scrape {source.name}", items):
        row = Row(item.url, source.name, reason=item.reason, opt_out=item.opt_out)
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
        elif is_hub_name(source) and live >= settings.max_pages:  # what lies on disk costs nobody else anything
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
    return rows + [Row(old.url, source.name, "gone", "removed") for old in missing]
