"""The corpus of a run: what is live of all shards that were ever stripped for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from prosemill.config.settings import Strip
from prosemill.errors import CorpusEmpty, StageDroppedTooMuch, StoreError
from prosemill.storage import stages
from prosemill.storage.manifest import Counts, Shard, snapshot_id
from prosemill.storage.schemas import DROPPED, LEDGER, LIVE_STATES
from prosemill.storage.store import SnapshotWriter, Store
from prosemill.strip import quarantine
from prosemill.strip.quarantine import PageKey, PreviousStrip, SourceText
from prosemill.strip.shard import settings_for_id

STAGE = stages.of("strip")


def shards_to_strip(store: Store, scrapes: Sequence[str]) -> list[str]:
    """The WARC files ("<snapshot id>/<file>", of these scrapes and of earlier ones) that hold live pages, sorted."""
    return sorted({warc for scrape in scrapes for _, warc in _live_rows(store, scrape)})


def merge_shards(
    store: Store,
    scrapes: Sequence[str],
    shards: Sequence[str],
    settings: Strip,
    *,
    language: str,
    as_of: str,
    previous: str = "",
    flow_run_id: str = "",
) -> str:
    """One snapshot of the documents in `shards` (ids of strip_shard) whose page is live in the ledgers of `scrapes`.

    A page that is live in several places counts once, in the order of `shards`. Files all of whose rows count are
    inherited, others are written without the rest. New pages of a source whose yield of text has collapsed against
    `previous`, the strip snapshot of the run before, are dropped as quarantined; the totals name the source. Raises
    CorpusEmpty, StageDroppedTooMuch.
    """
    dumped = {**settings_for_id(settings, language), "max_dropped_share": settings.max_dropped_share}
    live = {key for scrape in scrapes for key, _ in _live_rows(store, scrape)}
    before = PreviousStrip.read(store, previous)
    merged = _select(store, shards, live, before)
    collapsed = quarantine.collapsed(before, merged.new, settings.quarantine_share)
    # That a source is quarantined follows from the run before; what is made then has another name.
    named = dumped | ({"quarantined": collapsed} if collapsed else {})
    snapshot = snapshot_id(STAGE.name, STAGE.version, inputs=[*scrapes, *shards], settings=named, as_of=as_of)
    if store.has(snapshot):
        return snapshot
    if collapsed:
        merged = _select(store, shards, live, before, collapsed.keys())
    _check(merged, live, settings)
    with store.write(
        snapshot,
        stage=STAGE.name,
        version=STAGE.version,
        parents=[*scrapes, *shards],
        settings=dumped,
        as_of=as_of,
        flow_run_id=flow_run_id,
    ) as writer:
        for part in merged.parts:
            _put(store, writer, part)
        if merged.waiting:
            _write_waiting(writer, merged, collapsed)
        writer.counts = Counts(len(live), merged.kept, dict(sorted(merged.dropped.items())))
        writer.totals = {
            "size_bytes": merged.size_bytes,
            "scrubbed": merged.scrubbed,
            "sources": dict(sorted(merged.sources.items())),
        }
        if collapsed:
            writer.totals |= {"quarantined": {source: list(bytes_) for source, bytes_ in collapsed.items()}}
    return snapshot


def _live_rows(store: Store, scrape: str) -> Iterator[tuple[PageKey, str]]:
    """Live pages of a scrape, each with the WARC file that holds it."""
    columns = ["url", "content_sha256", "state", "warc"]
    for shard in store.manifest(scrape).shards_of("ledger"):
        rows = pq.read_table(store.local(shard.path), columns=columns, schema=LEDGER).to_pydict()
        for url, content, state, warc in zip(*(rows[name] for name in columns), strict=True):
            if state in LIVE_STATES:
                yield (url, content), warc


@dataclass(frozen=True)
class _Part:
    """A file of a shard and which of its rows count."""

    shard: Shard
    mask: list[bool]


@dataclass
class _Merged:
    parts: list[_Part] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)  # kept documents by source
    kept: int = 0
    size_bytes: int = 0
    scrubbed: int = 0
    new: dict[str, SourceText] = field(default_factory=dict)  # by source, of pages that the run before did not have
    waiting: list[dict[str, object]] = field(default_factory=list)  # quarantined: url, content_sha256, source


def _select(
    store: Store, shards: Sequence[str], live: set[PageKey], before: PreviousStrip, quarantined: Set[str] = frozenset()
) -> _Merged:
    merged, missing = _Merged(), set(live)
    for snapshot in shards:
        for shard in store.manifest(snapshot).shards:
            if shard.role not in ("documents", "dropped"):
                continue
            extra = ["size_bytes", "scrubbed"] if shard.role == "documents" else ["reason"]
            rows = pq.read_table(
                store.local(shard.path), columns=["url", "content_sha256", "source", *extra]
            ).to_pylist()
            mask = []
            for row in rows:
                key = (row["url"], row["content_sha256"])
                is_new = key in missing and key not in before.pages
                waits = is_new and row["source"] in quarantined
                mask.append(key in missing and not waits)
                if waits:
                    merged.waiting.append(row)
                    merged.dropped[quarantine.REASON] += 1
                elif mask[-1]:
                    _count(merged, row, shard.role)
                if is_new:
                    size_bytes = row["size_bytes"] if shard.role == "documents" else 0
                    merged.new.setdefault(row["source"], SourceText()).add(size_bytes)
                missing.discard(key)
            if any(mask):
                merged.parts.append(_Part(shard, mask))
    if missing:
        raise StoreError(
            f"{store.url}: {len(missing)} live pages were never stripped, for example {min(missing)[0]}; "
            "strip every file that shards_to_strip names, then merge"
        )
    return merged


def _count(merged: _Merged, row: dict[str, object], role: str) -> None:
    if role == "dropped":
        merged.dropped[str(row["reason"])] += 1
        return
    merged.kept += 1
    merged.sources[str(row["source"])] += 1
    merged.size_bytes += int(str(row["size_bytes"]))
    merged.scrubbed += int(str(row["scrubbed"]))


def _check(merged: _Merged, live: set[PageKey], settings: Strip) -> None:
    reasons = ", ".join(f"{reason} {count}" for reason, count in merged.dropped.most_common()) or "no page was live"
    if not merged.kept:
        raise CorpusEmpty(
            f"none of {len(live)} pages gave a document ({reasons}); "
            "look at include and exclude of the sources, and at min_words and languages in [strip]"
        )
    share = sum(merged.dropped.values()) / len(live)
    if share > settings.max_dropped_share:
        raise StageDroppedTooMuch(
            f"{len(live) - merged.kept} of {len(live)} pages gave no document ({reasons}), more than "
            f"strip.max_dropped_share = {settings.max_dropped_share}; if that is right for these sources, raise it"
        )


def _write_waiting(writer: SnapshotWriter, merged: _Merged, collapsed: Mapping[str, tuple[float, float]]) -> None:
    """The quarantined pages as dropped ones, with the figures of their source."""
    rows = []
    for row in merged.waiting:
        was, now = collapsed[str(row["source"])]
        detail = f"{now:,.0f} bytes of text a page in {row['source']}, {was:,.0f} the run before"
        rows.append({key: row[key] for key in ("url", "content_sha256", "source")} | {"detail": detail})
    table = pa.Table.from_pylist([{**row, "reason": quarantine.REASON} for row in rows], schema=DROPPED)
    pq.write_table(table, writer.path("dropped-quarantined.parquet"), compression="zstd")
    writer.add("dropped-quarantined.parquet", "dropped", table.num_rows)


def _put(store: Store, writer: SnapshotWriter, part: _Part) -> None:
    if all(part.mask):
        writer.inherit([part.shard])
        return
    table = pq.read_table(store.local(part.shard.path)).filter(pa.array(part.mask))
    name = f"{part.shard.role}-{sum(shard.role == part.shard.role for shard in writer.shards):05d}.parquet"
    pq.write_table(table, writer.path(name), compression="zstd")
    writer.add(name, part.shard.role, table.num_rows)
