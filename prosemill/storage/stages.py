"""The stages, one entry each: all that the rest of the code knows of a stage by its name.

Plain data. The code of a stage is found by its name (`entry`), never imported here. A new stage is one entry, a module
and a line of the table in docs/architecture.md; tests/test_stages.py says what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import pyarrow as pa

from prosemill.storage.schemas import (
    CHUNK_MAP,
    CONTAINER,
    DOCUMENT,
    DROPPED,
    LEDGER,
    PAIR,
    REMOVED,
    SCORE,
    SPLIT,
    WITHDRAWN,
)

BUILD_CORPUS, TRAIN_MODEL = "build-corpus", "train-model"
CHUNKS = "Arrow stream of input_ids, starts, num_tokens"
SEGMENTS = "sorted segments (storage/segments.py)"


class Members(NamedTuple):
    """What two snapshots of a stage are compared by: columns of one role."""

    role: str
    name: str  # names a member
    value: str  # differs where the member changed


class Samples(NamedTuple):
    """Roles that hold what was kept and what was dropped, for a person to read in."""

    kept: str
    dropped: str


@dataclass(frozen=True)
class Stage:
    """A stage of the work. One that the table does not hold (of a newer version) has a name and nothing else."""

    name: str  # of its snapshots ("<name>-<digest>"), its task, its events
    version: int = 0  # part of its snapshots' names: raised when the same inputs make other output
    entry: str = ""  # "module:function"
    flow: str = BUILD_CORPUS  # the flow that runs it
    documentation: str = ""  # one sentence for lineage tools
    parents: tuple[str, ...] = ()  # stages whose snapshots it may read, its own previous one included
    roles: Mapping[str, pa.Schema | str] = field(default_factory=dict)  # role of a shard: its columns, or its format
    figures: tuple[str, ...] = ()  # totals that pages show, the most telling first
    members: Members | None = None
    samples: Samples | None = None
    is_dated: bool = False  # as_of is part of its snapshots' names
    unseen: str = "an input that manifests do not hold"  # what it depends on beside its parents and settings
    makes_snapshots: bool = True
    makes_models: bool = False


_TABLE = (
    Stage(
        "scrape",
        version=1,
        entry="prosemill.scrape.stage:scrape_source",
        documentation="Read one source: pages as WARC, and a ledger with a row for every URL that was met.",
        parents=("scrape",),
        roles={"ledger": LEDGER, "pages": "WARC"},
        figures=("fetched", "unchanged"),
        members=Members("ledger", "url", "content_sha256"),
        is_dated=True,
        unseen="the files of the source, or the URLs in its list,",
    ),
    Stage(
        "strip-shard",
        version=3,
        entry="prosemill.strip.shard:strip_shard",
        documentation="Turn the pages of one WARC file into documents, or say why not.",
        parents=("scrape",),
        roles={"documents": DOCUMENT, "dropped": DROPPED},
        figures=("scrubbed",),
        samples=Samples("documents", "dropped"),
    ),
    Stage(
        "strip",
        version=3,
        entry="prosemill.strip.stage:merge_shards",
        documentation="All live documents.",
        parents=("scrape", "strip-shard"),
        roles={"documents": DOCUMENT, "dropped": DROPPED},
        figures=("scrubbed",),
        members=Members("documents", "url", "id"),
        samples=Samples("documents", "dropped"),
        is_dated=True,
    ),
    Stage(
        "dedup",
        version=3,
        entry="prosemill.dedup.stage:dedup",
        documentation="Remove duplicates among the new documents and against everything kept before.",
        parents=("strip", "dedup"),
        roles={
            "keepers": DOCUMENT,
            "removed": REMOVED,
            "dropped": DROPPED,
            "pairs": PAIR,
            "lines": "NumPy arrays",
            "names": SEGMENTS,
            "index": SEGMENTS,
            "withdrawn": WITHDRAWN,
        },
        figures=("documents", "new_documents", "withdrawn"),
        members=Members("keepers", "id", "url"),
        samples=Samples("keepers", "removed"),
        unseen="which pages are withdrawn",
    ),
    Stage(
        "split",
        version=2,
        entry="prosemill.split.stage:split",
        documentation="Decide which documents are held out, once and for all.",
        parents=("dedup", "split"),
        roles={"assignments": SPLIT, "containers": CONTAINER, "parts": "NumPy arrays", "sketches": SEGMENTS},
        figures=("train", "validation", "test"),
        members=Members("assignments", "id", "split"),
        is_dated=True,
    ),
    Stage(
        "chunk",
        version=1,
        entry="prosemill.chunk.stage:chunk",
        documentation="Cut training and validation documents into chunks of the base's own tokens.",
        parents=("dedup", "split", "chunk"),
        roles={"train": CHUNKS, "validation": CHUNKS, "map": CHUNK_MAP},
        figures=("train_chunks", "train_tokens", "new_train_tokens", "validation_chunks"),
        members=Members("map", "document", "split"),
    ),
    Stage(
        "finetune",
        version=2,
        entry="prosemill.finetune.stage:finetune",
        flow=TRAIN_MODEL,
        documentation="Fine-tune the base, or the champion, on the training chunks.",
        parents=("chunk", "finetune"),
        roles={"model": "a folder as transformers reads it", "log": "JSON lines"},
        figures=("steps",),
        unseen="the weights or the tokenizer of the base",
        makes_models=True,
    ),
    Stage(
        "evaluate",
        version=3,
        entry="prosemill.evaluation.stage:evaluate",
        flow=TRAIN_MODEL,
        documentation="Score base, champion and challenger on the same held-out documents.",
        parents=("dedup", "split", "finetune"),
        roles={"scores": SCORE, "summary": "JSON", "samples": "JSON", "continuations": "JSON"},
        figures=("models", "scores"),
        unseen="the weights of the base",
    ),
    Stage(
        "gate",
        version=3,
        entry="prosemill.gate.stage:run_gate",
        flow=TRAIN_MODEL,
        documentation="Decide whether the challenger takes over.",
        parents=("evaluate",),
        roles={"decision": "JSON"},
        figures=("decision",),
    ),
    Stage(
        "register",
        entry="prosemill.registry.registry:Registry.record",
        flow=TRAIN_MODEL,
        documentation="Record the challenger and its decision in the registry; promote it when that is the decision.",
        parents=("finetune", "evaluate", "gate"),
        makes_snapshots=False,
    ),
)
STAGES: Mapping[str, Stage] = MappingProxyType({stage.name: stage for stage in _TABLE})


def of(name: str) -> Stage:
    """The stage of that name; with its name alone where the table does not hold it."""
    return STAGES.get(name, Stage(name))
