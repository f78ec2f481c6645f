"""Reading the corpus: the keepers of one split that are not withdrawn, in a stable order."""

from __future__ import annotations

from collections.abc import Container, Iterator, Set
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from prosemill.storage import arrow
from prosemill.storage.store import Store

BATCH_ROWS = 1000  # documents held in memory at once: a few megabytes of text


def documents_of(
    store: Store,
    dedup: str,
    split: str,
    part: str,
    *,
    known_shards: Container[str] = (),
    again: Set[str] = frozenset(),
) -> Iterator[dict[str, Any]]:
    """Keepers of `dedup` that `split` gave to `part` (train, validation, test, excluded), in order of arrival.

    Rows as records.DOCUMENT; what is withdrawn is left out. `known_shards`: paths of earlier snapshots' keepers and
    assignments, to be left out but for the documents `again`.
    """
    withdrawn = withdrawn_of(store, dedup)
    wanted = assignments_of(store, split, part, known_shards=known_shards) - withdrawn.keys()
    wanted_again = (assignments_of(store, split, part) & again) - withdrawn.keys() if again else set()
    for shard in store.manifest(dedup).shards_of("keepers"):
        if shard.path not in known_shards:
            if wanted:
                yield from _rows(store, shard.path, wanted)
        elif wanted_again and _has_any(store, shard.path, wanted_again):
            yield from _rows(store, shard.path, wanted_again)


def assignments_of(store: Store, split: str, part: str, *, known_shards: Container[str] = ()) -> set[str]:
    """Ids of the documents that `split` gave to `part`, the withdrawn ones too."""
    ids: set[str] = set()
    for shard in store.manifest(split).shards_of("assignments"):
        if shard.path not in known_shards:
            table = pq.read_table(store.local(shard.path), columns=["id", "split"])
            parts = table["split"].to_pylist()
            ids.update(id for id, of in zip(table["id"].to_pylist(), parts, strict=True) if of == part)
    return ids


def withdrawn_of(store: Store, dedup: str) -> dict[str, dict[str, str]]:
    """By document id, rows of records.WITHDRAWN: keepers of `dedup` that nobody may learn from or be tested on."""
    return {
        row["id"]: row
        for shard in store.manifest(dedup).shards_of("withdrawn")
        for row in pq.read_table(store.local(shard.path)).to_pylist()
    }


def training_tokens_of(store: Store, chunk: str) -> dict[str, int]:
    """Tokens by training document of a chunk snapshot."""
    tokens: dict[str, int] = {}
    for shard in store.manifest(chunk).shards_of("map"):
        table = pq.read_table(store.local(shard.path), columns=["split", "document", "num_tokens"])
        table = table.filter(pc.field("split") == "train")
        for document, number in zip(table["document"].to_pylist(), table["num_tokens"].to_pylist(), strict=True):
            tokens[document] = tokens.get(document, 0) + number
    return tokens


def _has_any(store: Store, shard: str, wanted: Set[str]) -> bool:
    ids = pq.read_table(store.local(shard), columns=["id"], filters=arrow.is_one_of("id", wanted))
    return bool(ids.num_rows)


def _rows(store: Store, shard: str, wanted: Container[str]) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(store.local(shard)) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            yield from (row for row in batch.to_pylist() if row["id"] in wanted)
