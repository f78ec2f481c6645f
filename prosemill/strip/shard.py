"""One WARC file to one shard of documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prosemill.config.settings import Strip
from prosemill.storage import stages
from prosemill.storage.manifest import Counts, document_id, snapshot_id
from prosemill.storage.schemas import DOCUMENT, DROPPED, LEDGER
from prosemill.storage.store import Store
from prosemill.storage.warc import Page
from prosemill.storage.warc_reader import iter_pages
from prosemill.strip.document import StrippedPage
from prosemill.strip.filters.language import check_languages
from prosemill.strip.workers import strip_pages

STAGE = stages.of("strip-shard")
DOCUMENTS_FILE, DROPPED_FILE = "documents.parquet", "dropped.parquet"


def strip_shard(store: Store, warc: str, settings: Strip, *, language: str, flow_run_id: str = "") -> str:
    """Strip the pages of `warc` ("<scrape id>/<file>"); the snapshot's id.

    Roles: "documents" (records.DOCUMENT) and "dropped" (records.DROPPED), both in the order of the pages. A page
    with URL and content of an earlier one of the file is left out.
    """
    check_languages([*settings.languages, language])
    dumped = settings_for_id(settings, language)
    snapshot = snapshot_id(STAGE.name, STAGE.version, inputs=[warc], settings=dumped)
    if store.has(snapshot):
        return snapshot
    scrape = warc.partition("/")[0]
    sources = sources_of(store, scrape)
    pages = list({(page.url, page.content_sha256): page for page in iter_pages(store.local(warc))}.values())
    results = strip_pages(pages, settings, language)
    with store.write(
        snapshot,
        stage=STAGE.name,
        version=STAGE.version,
        parents=[scrape],
        settings=dumped,
        flow_run_id=flow_run_id,
    ) as writer:
        documents, dropped = tables_of(pages, results, sources)
        for name, role, table in ((DOCUMENTS_FILE, "documents", documents), (DROPPED_FILE, "dropped", dropped)):
            pq.write_table(table, writer.path(name), compression="zstd")
            writer.add(name, role, table.num_rows)
        writer.counts = Counts(len(pages), documents.num_rows, count_reasons(dropped))
        writer.totals = {"warc": warc, **text_totals(documents)}
    return snapshot


def settings_for_id(settings: Strip, language: str) -> dict[str, Any]:
    """What decides on the text of a page; how much may be dropped, of all or of a source, does not."""
    return {**settings.model_dump(mode="json", exclude={"max_dropped_share", "quarantine_share"}), "language": language}


def sources_of(store: Store, scrape: str) -> dict[str, str]:
    """Source by URL, of one scrape."""
    sources: dict[str, str] = {}
    for shard in store.manifest(scrape).shards_of("ledger"):
        rows = pq.read_table(store.local(shard.path), columns=["url", "source"], schema=LEDGER).to_pydict()
        sources.update(zip(rows["url"], rows["source"], strict=True))
    return sources


def tables_of(
    pages: Sequence[Page], results: Sequence[StrippedPage], sources: Mapping[str, str]
) -> tuple[pa.Table, pa.Table]:
    """Documents and dropped pages as tables."""
    documents, dropped = [], []
    for page, result in zip(pages, results, strict=True):
        row = {"url": page.url, "source": sources.get(page.url, page.source), "content_sha256": page.content_sha256}
        if result.reason:
            dropped.append({**row, "reason": result.reason, "detail": result.detail})
            continue
        documents.append(
            {
                **row,
                "id": document_id(page.url, result.text),
                "title": result.title,
                "text": result.text,
                "date": result.date,
                "language": result.language,
                "charset": result.charset,
                "fetched_at": page.fetched_at,
                "size_bytes": len(result.text.encode()),
                "scrubbed": result.scrubbed,
            }
        )
    return pa.Table.from_pylist(documents, schema=DOCUMENT), pa.Table.from_pylist(dropped, schema=DROPPED)


def count_reasons(dropped: pa.Table) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in sorted(dropped.column("reason").to_pylist()):
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def text_totals(documents: pa.Table) -> dict[str, int]:
    columns = documents.select(["size_bytes", "scrubbed"]).to_pydict()
    return {"size_bytes": sum(columns["size_bytes"]), "scrubbed": sum(columns["scrubbed"])}
