"""Random documents of a snapshot, kept and dropped, for a person to read."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from prosemill.errors import RecipeError
from prosemill.storage import arrow, stages
from prosemill.storage.ancestry import ancestors
from prosemill.storage.manifest import Manifest
from prosemill.storage.store import Store

SHOWN_CHARACTERS = 1500  # of a text: enough for a person to see what it is


@dataclass(frozen=True)
class ShownDocument:
    """One document as it is shown; `beside` is the keeper of a removed one."""

    url: str
    title: str = ""
    note: str = ""  # why it was dropped, or the figures that tell something of it
    text: str = ""
    beside: ShownDocument | None = None


@dataclass(frozen=True)
class Sample:
    """Documents drawn from a snapshot, in the order of the snapshot, and how many there are to draw from."""

    snapshot: str
    seed: int
    num_kept: int
    num_dropped: int
    kept: list[ShownDocument] = field(default_factory=list)
    dropped: list[ShownDocument] = field(default_factory=list)


def sample(store: Store, snapshot: str, number: int, seed: int) -> Sample:
    """`number` kept and as many dropped documents of a strip or dedup snapshot; the same seed draws the same."""
    manifest = store.manifest(snapshot)
    roles = stages.of(manifest.stage).samples
    if roles is None:
        raise RecipeError(
            f"{snapshot}: of stage {manifest.stage} no documents can be shown; name one of strip or dedup"
        )
    kept, num_kept = _draw(store, manifest, roles.kept, number, seed)
    dropped, num_dropped = _draw(store, manifest, roles.dropped, number, seed)
    dropped_documents = (
        list(_beside(store, manifest, dropped)) if roles.dropped == "removed" else [_dropped(row) for row in dropped]
    )
    return Sample(snapshot, seed, num_kept, num_dropped, [_document(row) for row in kept], dropped_documents)


def _draw(store: Store, manifest: Manifest, role: str, number: int, seed: int) -> tuple[list[dict[str, Any]], int]:
    """Rows drawn without replacement, and how many there are; only the row groups that hold one are read."""
    files = [pq.ParquetFile(store.local(shard.path)) for shard in manifest.shards_of(role)]
    groups = [(file, group) for file in files for group in range(file.num_row_groups)]
    total = sum(file.metadata.num_rows for file in files)
    chosen = sorted(random.Random(seed).sample(range(total), min(number, total)))
    rows, first = [], 0
    for file, group in groups:
        size = file.metadata.row_group(group).num_rows
        mine = [row - first for row in chosen if first <= row < first + size]
        if mine:
            rows += file.read_row_group(group).take(mine).to_pylist()
        first += size
    for file in files:
        file.close()
    return rows, total


def _document(row: dict[str, Any]) -> ShownDocument:
    facts = [row["source"], row["language"], row["date"], f"{row['size_bytes']:,} bytes"]
    if row["scrubbed"]:
        facts.append(f"{row['scrubbed']} scrubbed")
    return ShownDocument(row["url"], row["title"], " · ".join(filter(None, facts)), _cut(row["text"]))


def _dropped(row: dict[str, Any]) -> ShownDocument:
    return ShownDocument(row["url"], note=f"{row['reason']}: {row['detail']}" if row["detail"] else row["reason"])


def _beside(store: Store, manifest: Manifest, removed: list[dict[str, Any]]) -> Iterator[ShownDocument]:
    """Removed documents, each beside its keeper."""
    texts = texts_of(store, manifest, [row["id"] for row in removed])
    keepers = dict(_rows_of(store, manifest, "keepers", [row["keeper"] for row in removed]))
    for row in removed:
        keeper = keepers.get(row["keeper"], {})
        beside = ShownDocument(row["keeper_url"], keeper.get("title", ""), "the keeper", _cut(keeper.get("text", "")))
        document = texts.get(row["id"], {})
        note = "an exact copy" if row["reason"] == "exact" else f"a near-copy, J = {row['similarity']:.3f}"
        yield ShownDocument(row["url"], document.get("title", ""), note, _cut(document.get("text", "")), beside)


def texts_of(store: Store, manifest: Manifest, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Documents by id as strip left them, in the strip snapshots of this dedup snapshot and of those before it."""
    wanted, documents = set(ids), dict[str, dict[str, Any]]()
    for dedup in ancestors(store, [manifest.id], only=("dedup",)):
        if not (left := sorted(wanted - documents.keys())):
            break
        strip = dedup.parents[0]
        if store.has(strip):
            documents |= dict(_rows_of(store, store.manifest(strip), "documents", left))
    return documents


def _rows_of(store: Store, manifest: Manifest, role: str, ids: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for shard in manifest.shards_of(role):
        for row in pq.read_table(store.local(shard.path), filters=arrow.is_one_of("id", ids)).to_pylist():
            yield row["id"], row


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS].rstrip()} …"
