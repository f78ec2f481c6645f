"""What of an earlier run's chunks is kept: every file of which no document was withdrawn since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from prosemill.storage import arrow
from prosemill.storage.corpus import withdrawn_of
from prosemill.storage.manifest import Manifest, Shard
from prosemill.storage.store import Store


@dataclass
class PreviousChunks:
    """Shards to inherit, and what they cover; empty where nothing may be kept."""

    shards: list[Shard] = field(default_factory=list)
    known: set[str] = field(default_factory=set)  # paths of the keepers and assignments that went into `previous`
    again: set[str] = field(default_factory=set)  # ids of documents in those that no kept shard holds
    totals: Counter[str] = field(default_factory=Counter)  # train_chunks, train_tokens, … of the kept shards


def read_past(
    store: Store, previous: str, options: Mapping[str, Any], version: int, dedup: str, split: str
) -> PreviousChunks:  # fmt: skip
    """Chunks of `previous`: kept if made with the same tokenizer, settings and version on the way to this split.

    A file that holds a document withdrawn since is not kept, and its other documents are chunked again, as is a
    document that was withdrawn then and is not any more.
    """
    if not previous:
        return PreviousChunks()
    manifest = store.manifest(previous)
    known = _known_shards(store, manifest)
    here = {shard.path for id in (dedup, split) for shard in store.manifest(id).shards}
    if dict(manifest.settings) != options or manifest.stage_version != version or not known <= here:
        return PreviousChunks()
    totals = Counter({key: manifest.totals[key] for key in manifest.totals if key.endswith(("_chunks", "_tokens"))})
    past = PreviousChunks(list(manifest.shards), known, set(), totals)
    then, now = withdrawn_of(store, manifest.parents[0]).keys(), withdrawn_of(store, dedup).keys()
    past.again |= then - now
    if now - then:
        _leave_out(store, past, now - then)
    return past


def _leave_out(store: Store, past: PreviousChunks, withdrawn: Set[str]) -> None:
    """Keep no file with one of these documents."""
    left_out: set[str] = set()
    is_affected = arrow.is_one_of("document", withdrawn)
    for shard in [shard for shard in past.shards if shard.role == "map"]:
        if not pq.read_table(store.local(shard.path), columns=["document"], filters=is_affected).num_rows:
            continue
        rows = pq.read_table(store.local(shard.path), columns=["chunk", "split", "document", "num_tokens"])
        (part,) = set(rows["split"].to_pylist())
        chunks = set(rows["chunk"].to_pylist())
        left_out |= {shard.path} | {chunk.rpartition("#")[0] for chunk in chunks}
        past.again |= set(rows["document"].to_pylist()) - withdrawn
        past.totals[f"{part}_chunks"] -= len(chunks)
        past.totals[f"{part}_tokens"] -= pc.sum(rows["num_tokens"]).as_py()
    past.shards = [shard for shard in past.shards if shard.path not in left_out]


def _known_shards(store: Store, manifest: Manifest) -> set[str]:
    dedup, split = manifest.parents[:2]
    return {
        shard.path
        for id, role in ((dedup, "keepers"), (split, "assignments"))
        for shard in store.manifest(id).shards_of(role)
    }
