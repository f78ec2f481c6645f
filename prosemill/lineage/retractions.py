"""What a withdrawn document means for models: which of them learned from it, and where training starts without it."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow.compute as pc
import pyarrow.parquet as pq

from prosemill.storage import arrow
from prosemill.storage.ancestry import training_chunks
from prosemill.storage.corpus import withdrawn_of
from prosemill.storage.manifest import stage_of
from prosemill.storage.store import Store


def newly(store: Store, dedup: str, as_of: str) -> dict[str, str]:
    """URLs by document id of what the run of `as_of` found to be withdrawn."""
    return {id: row["url"] for id, row in withdrawn_of(store, dedup).items() if row["since"] == as_of}


def learned(store: Store, chunk: str, model: str) -> list[str]:
    """Ids of documents withdrawn in the corpus of `chunk` that `model` (a finetune snapshot) learned from, sorted."""
    withdrawn = {id for dedup in _dedups(store, chunk) for id in withdrawn_of(store, dedup)}
    if not withdrawn:
        return []
    parents = training_chunks(store, model)
    shards = {shard.path for parent in parents for shard in store.manifest(parent).shards_of("map")}
    return sorted({id for shard in shards for id in _trained_on(store, shard, withdrawn)})


def models_that_learned(store: Store, documents: Iterable[str]) -> list[str]:
    """Finetune snapshots that learned from any of these documents, themselves or as their champion before, sorted."""
    wanted = set(documents)
    if not wanted:
        return []
    holds: dict[str, bool] = {}  # map shard -> whether it is of such a document; runs share most of their shards
    models = []
    for model in (snapshot for snapshot in store.snapshots() if stage_of(snapshot) == "finetune"):
        parents = [parent for parent in training_chunks(store, model) if store.has(parent)]
        shards = {shard.path for parent in parents for shard in store.manifest(parent).shards_of("map")}
        for shard in shards - holds.keys():
            holds[shard] = bool(_trained_on(store, shard, wanted))
        if any(holds[shard] for shard in shards):
            models.append(model)
    return models


def start_of(store: Store, chunk: str, champion: str) -> str:
    """`champion` where training may go on from it; "" for the base, where the champion learned from what is withdrawn.

    More training does not reliably make a model forget; only a model that never saw the text has not learned it.
    """
    return "" if champion and learned(store, chunk, champion) else champion


def _dedups(store: Store, chunk: str) -> list[str]:
    return [parent for parent in store.manifest(chunk).parents if stage_of(parent) == "dedup"]


def _trained_on(store: Store, shard: str, documents: set[str]) -> set[str]:
    """Those of `documents` that a shard of chunk maps has for training."""
    wanted = (pc.field("split") == "train") & arrow.is_one_of("document", documents)
    table = pq.read_table(store.local(shard), columns=["document"], filters=wanted)
    return set(table["document"].to_pylist())
