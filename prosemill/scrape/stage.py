"""The stage: one snapshot per source, with the pages that are new or changed and a ledger of every URL."""

from __future__ import annotations

from prosemill.config.settings import Scrape, Source
from prosemill.scrape import urls
from prosemill.scrape.ledger import LEDGER_FILE, counts
from prosemill.scrape.readers import Reader, reader_of
from prosemill.storage import stages
from prosemill.storage.manifest import digest, snapshot_id
from prosemill.storage.store import Store

STAGE = stages.of("scrape")


def scrape_source(
    store: Store, source: Source, settings: Scrape, *, as_of: str, previous: str = "", flow_run_id: str = ""
) -> str:
    """Read one source and give the id of its snapshot; what is unchanged since `previous` is not stored again.

    Raises SourceUnreachable, SourceEmpty, SourceError, RecipeError or CrawlerDied. A site that goes down half way gives
    a partial snapshot in which pages known before stay live.
    """
    urls.UrlFilter.of(source.name, source.include, source.exclude)  # a wrong pattern is reported before any work
    if previous:
        store.require(previous)
    reader = reader_of(source, settings)
    snapshot = snapshot_of(reader, as_of=as_of, previous=previous)
    if store.has(snapshot):
        return snapshot
    with store.write(
        snapshot,
        stage=STAGE.name,
        version=STAGE.version,
        parents=[previous] if previous else [],
        settings={"source": reader.identity(), **settings.model_dump()},
        as_of=as_of,
        flow_run_id=flow_run_id,
    ) as writer:
        writer.origins += reader.origins()
        rows = reader.read(store, writer, previous, as_of)
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


def snapshot_of(reader: Reader, *, as_of: str, previous: str) -> str:
    """The id of what a source shows on a date: of its settings, what it holds, and the snapshot before."""
    inputs = [digest(reader.identity()), reader.content_digest(), previous]
    return snapshot_id(STAGE.name, STAGE.version, inputs=inputs, settings=reader.settings.model_dump(), as_of=as_of)


def fingerprint(source: Source) -> str:
    """Digest of what a local source holds now, for a cache that must see a changed file; "" for the web and the hub."""
    reader = reader_of(source, Scrape())
    return "" if reader.is_remote else reader.content_digest()
