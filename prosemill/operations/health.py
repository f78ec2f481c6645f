"""Health checks of a corpus and its champion: what a retraining mends, and what only a person can."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from prosemill.errors import ProsemillError, SnapshotMissing
from prosemill.lineage import retractions
from prosemill.registry.registry import ModelVersion, Registry
from prosemill.reporting import summary
from prosemill.reporting.summary import Corpus
from prosemill.scrape.entries import TRANSIENT
from prosemill.storage.disk import free_bytes
from prosemill.storage.manifest import Manifest
from prosemill.storage.store import LEAST_FREE_BYTES, Store
from prosemill.storage.times import parse
from prosemill.storage.warc_reader import INCOMPLETE

# A run that gives less than this share of the documents that the source gave the run before has another cause than few
# news: a new template, a login page, a moved address. Of a few documents a single page more or less says nothing.
COLLAPSED_SHARE = 0.5
COLLAPSED_LEAST_DOCUMENTS = 10
# Training keeps weights, gradients' moments and a checkpoint of both: four times the model, and the model itself again.
ROOM_FOR_MODELS = 5

State = Literal["well", "note", "retrain", "act"]  # act: only a person can put it right


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    detail: str

    def as_row(self) -> dict[str, str]:
        return {"what": self.what, "state": self.state, "detail": self.detail}


def examine(store: Store, registry: Registry, name: str, *, max_age_days: float, now: datetime) -> list[Finding]:
    """Everything that is looked at for the corpus and model `name`. `max_age_days` 0: age does not matter."""
    runs: dict[str, dict[str, Any]] = {}
    findings = _guarded("store", lambda: _store(store))
    findings += _guarded("runs", lambda: _newest_run(store, name, runs, now))
    if runs:
        findings += _guarded("sources", lambda: _sources(store, runs))
    champions: list[ModelVersion | None] = []
    findings += _guarded("registry", lambda: _registry(registry, name, champions))
    if champions and champions[0] is not None:
        version, newest = champions[0], runs[max(runs)] if runs else {}
        findings += _guarded("champion", lambda: _champion(store, version, newest, max_age_days, now))
        if not any(finding.what == "store" and finding.state == "act" for finding in findings):
            findings += _guarded("room", lambda: _room(store, version))
    return findings


def _guarded(what: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings of `look`; its error is a finding too, so that the other checks still run."""
    findings: list[Finding] = []
    try:
        findings.extend(look())
    except (ProsemillError, OSError) as error:
        findings.append(Finding(what, "act", " ".join(str(error).split())))
    return findings


# --- the store and its corpora ---------------------------------------------------------------------------------------


def _store(store: Store) -> Iterator[Finding]:
    store.check_writable()
    yield Finding("store", "well", f"{store.url} can be written")


def _room(store: Store, champion: ModelVersion) -> Iterator[Finding]:
    """Enough for one more model like the champion."""
    if not store.is_local:
        return
    free = free_bytes(Path(store.root))
    size = sum(shard.size_bytes for shard in store.manifest(champion.snapshot).shards_of("model"))
    needed = ROOM_FOR_MODELS * size + LEAST_FREE_BYTES
    if free < needed:
        detail = (
            f"{free >> 20} MB left, training takes about {needed >> 20}; free some space on the disk of {store.url}"
        )
        yield Finding("room", "act", detail)
    else:
        yield Finding("room", "well", f"{free >> 20} MB left")


def _newest_run(store: Store, name: str, runs: dict[str, dict[str, Any]], now: datetime) -> Iterator[Finding]:
    """Reads the records of all runs into `runs`, too."""
    runs.update(store.runs(name))
    if not runs:
        yield Finding("runs", "note", "there has been no run yet")
        return
    newest = max(runs)
    yield Finding("runs", "well", f"the newest is of {newest}, {_days(now - parse(newest)):.1f} days ago")


def _sources(store: Store, runs: Mapping[str, Any]) -> Iterator[Finding]:
    dates = sorted(runs)
    corpus = summary.corpus_of(runs[dates[-1]])
    for source, reason in partial_sources(store, corpus).items():
        yield Finding(f"source {source}", "note", f"was not read to its end: {reason}")
    for source, (was_bytes, now_bytes) in quarantined_sources(store, corpus).items():
        detail = (
            f"is quarantined: {now_bytes:,.0f} bytes of text a new page, {was_bytes:,.0f} before; look at its pages "
            "with `prosemill strip`, then mend what reads them or set strip.quarantine_share = 0 for a run"
        )
        yield Finding(f"source {source}", "act", detail)
    before = summary.corpus_of(runs[dates[-2]]) if len(dates) > 1 else None
    collapsed = collapsed_sources(store, before, corpus) if before and before["strip"] else {}
    for source, (was, now) in collapsed.items():
        detail = f"gave {now} documents, {was} the time before; look at its pages, and at include, exclude and [strip]"
        yield Finding(f"source {source}", "act", detail)
    if not collapsed:
        yield Finding("sources", "well", f"{len(corpus['scrape'])} read on {dates[-1]}")


def partial_sources(store: Store, corpus: Corpus) -> dict[str, str]:
    """For each source that was not read to its end, why: "3 timeout, 1 host_down"."""
    partial = {}
    for source, snapshot in corpus["scrape"].items():
        manifest = store.manifest(snapshot)
        if manifest.partial:
            reasons = Counter(
                reason for reason in _ledger_reasons(store, manifest) if reason in {*TRANSIENT, *INCOMPLETE}
            )
            partial[source] = summary.reasons(reasons) or "it was stopped before its end"
    return partial


def quarantined_sources(store: Store, corpus: Corpus) -> dict[str, list[float]]:
    """Bytes of text a page then and now, of the sources whose new pages wait for a person to look."""
    quarantined: dict[str, list[float]] = store.manifest(corpus["strip"]).totals.get("quarantined", {})
    return quarantined


def collapsed_sources(store: Store, before: Corpus, now: Corpus) -> dict[str, tuple[int, int]]:
    """Documents then and now of the sources that both corpora read and that give far fewer now."""
    was, is_now = (store.manifest(corpus["strip"]).totals.get("sources", {}) for corpus in (before, now))
    both = before["scrape"].keys() & now["scrape"].keys()
    return {
        source: (was[source], is_now.get(source, 0))
        for source in sorted(both)
        if was.get(source, 0) >= COLLAPSED_LEAST_DOCUMENTS and is_now.get(source, 0) < COLLAPSED_SHARE * was[source]
    }


def _ledger_reasons(store: Store, manifest: Manifest) -> Iterator[str]:
    for shard in manifest.shards_of("ledger"):
        yield from pq.read_table(store.local(shard.path), columns=["reason"])["reason"].to_pylist()


# --- the champion ----------------------------------------------------------------------------------------------------


def _registry(registry: Registry, name: str, champions: list[ModelVersion | None]) -> Iterator[Finding]:
    champion = registry.champion(name)
    champions.append(champion)
    detail = f"the champion is {name}/{champion.version}" if champion else f"{name} has no champion yet"
    yield Finding("registry", "well" if champion else "note", detail)


def _champion(
    store: Store, champion: ModelVersion, newest: Mapping[str, Any], max_age_days: float, now: datetime
) -> Iterator[Finding]:
    named = f"{champion.name}/{champion.version}"
    back = f"restore it from a backup, or go back with `prosemill roll-back {champion.name}`"
    try:
        manifest = store.manifest(champion.snapshot)
    except SnapshotMissing:
        yield Finding("champion", "act", f"{named}: {champion.snapshot} is not in {store.url}; {back}")
        return
    damaged = damaged_files(store, manifest)
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        yield Finding("champion", "act", f"{named}: {damaged[0]}{more} is not as it was written; {back}")
        return
    age = _days(now - parse(manifest.created_at))
    if max_age_days and age > max_age_days:
        yield Finding("champion", "retrain", f"{named} was trained {age:.1f} days ago, the limit is {max_age_days:g}")
    learned = retractions.learned(store, newest["chunk"], champion.snapshot) if newest.get("chunk") else []
    if learned:
        yield Finding("champion", "retrain", f"{named} learned from {len(learned)} documents that were withdrawn")
    yield Finding("champion", "well", f"{named} is whole, {age:.1f} days old")


def damaged_files(store: Store, manifest: Manifest) -> list[str]:
    """Files of a snapshot's own that are missing or whose digest is not as recorded."""
    own = (shard for shard in manifest.shards if shard.path.startswith(f"{manifest.id}/"))
    return [shard.path for shard in own if _sha256(store, shard.path) != shard.sha256]


def _sha256(store: Store, path: str) -> str:
    """Of the file as it lies in the store, not as it was fetched once; "" when it is missing."""
    digest = hashlib.sha256()
    try:
        with store.open(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except SnapshotMissing:
        return ""
    return digest.hexdigest()


def _days(span: Any) -> float:
    return float(span.total_seconds()) / 86_400
