"""What an earlier evaluation found out that would come out the same now, so that a run costs only what is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from prosemill.evaluation.continuations import Continuation
from prosemill.storage.json_shards import read_json
from prosemill.storage.manifest import digest
from prosemill.storage.store import Store

SCORED_LIKE = ("context_tokens", "stride")  # scores made with other values of these are not comparable
SAMPLED_LIKE = ("sample_tokens", "sample_seed")
SAME_SINCE = 2  # stage version; 3 changed what counts as a word of a text, not how texts are scored and written


@dataclass(frozen=True)
class PreviousScores:
    """What is known, by what it depends on."""

    scores: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)  # (model id, document): nats, tokens
    texts: dict[tuple[str, str], str] = field(default_factory=dict)  # (model id, prompt): sample
    continuations: dict[tuple[str, str], list[Continuation]] = field(default_factory=dict)  # (model id, `asked`)


def read_earlier(store: Store, previous: str, used: Mapping[str, Any], version: int) -> PreviousScores:
    """What the evaluation `previous` holds; nothing if it was made in another way, or by a version that scored so."""
    if not previous or not store.has(previous):
        return PreviousScores()
    manifest = store.manifest(previous)
    if not SAME_SINCE <= manifest.stage_version <= version:
        return PreviousScores()
    earlier = PreviousScores()
    if all(manifest.settings.get(name) == used[name] for name in SCORED_LIKE):
        for shard in manifest.shards_of("scores"):
            for row in pq.read_table(store.local(shard.path)).to_pylist():
                earlier.scores[row["model_id"], row["document"]] = (row["nats"], row["num_tokens"])
    if all(manifest.settings.get(name) == used[name] for name in SAMPLED_LIKE):
        ids = {label: row["id"] for label, row in read_json(store, previous, "summary")["models"].items()}
        for sample in read_json(store, previous, "samples"):
            for label, text in sample["texts"].items():
                earlier.texts[ids[label], sample["prompt"]] = text
        for model, record in read_json(store, previous, "continuations").items():
            texts = [Continuation(**fields) for fields in record["texts"]]
            earlier.continuations[model, record["asked"]] = texts
    return earlier


def continuation_key(documents: Mapping[str, Sequence[Mapping[str, Any]]], canaries: Sequence[str]) -> str:
    """A digest of what a model is to continue."""
    return digest([{kind: [row["id"] for row in rows] for kind, rows in documents.items()}, list(canaries)])
