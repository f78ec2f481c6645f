"""Tracing: from a sentence, URL, document, chunk, snapshot or model to all that it is connected with.

sentence ─▶ page ─▶ document ─▶ chunk ─▶ models            a page that is withdrawn says so
model ─▶ pages it learned from, snapshots it was made from and those made from it
snapshot ─▶ ancestors (a tree; the run before is a leaf), what was made from it, models that come of it
"""

from __future__ import annotations

import functools
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prosemill.errors import RecipeError
from prosemill.lineage import passages
from prosemill.storage import arrow, corpus
from prosemill.storage.ancestry import training_chunks, walk
from prosemill.storage.manifest import Manifest, is_snapshot_id, stage_of
from prosemill.storage.schemas import DOCUMENT
from prosemill.storage.store import Store

MOST = 5  # pages named for a sentence
MOST_URLS = 20  # pages named for a model
_LEDGER_FACTS = ("state", "reason", "http_status", "fetched_at", "opt_out", "warc")
_KEEPER_COLUMNS = [name for name in DOCUMENT.names if name != "text"]  # the texts are nearly all of a shard


@dataclass
class TraceNode:
    """One node of a trace, and those it leads to."""

    kind: str  # sentence | page | document | chunk | snapshot | model
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    leads_to: list[TraceNode] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"kind": self.kind, "name": self.name, **self.facts}
        return {**fields, "leads_to": [node.as_dict() for node in self.leads_to]} if self.leads_to else fields


class Tracer:
    """Answers from the corpora as the newest run of each left them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._newest = [
            record for name in store.corpora() if (runs := store.runs(name)) and "dedup" in (record := runs[max(runs)])
        ]

    def trace(self, what: str) -> list[TraceNode]:
        """Everything connected with `what`; RecipeError when nothing in the store answers to it."""
        nodes = list(self._dispatch(what.strip()))
        if not nodes:
            raise RecipeError(
                f"{what!r}: nothing in {self.store.url} answers to it; name a URL, a document, chunk or snapshot id, "
                "a model, or give a sentence of at least two words"
            )
        return nodes

    def _dispatch(self, what: str) -> Iterator[TraceNode]:
        if "://" in what and not re.search(r"\s", what):
            yield from self._pages(what)
        elif re.fullmatch(r"[0-9a-f]{20}", what):
            yield from self._documents(what)
        elif re.fullmatch(r"chunk-[0-9a-f]{16}/\S+#\d+", what):
            yield self._chunk(what)
        elif is_snapshot_id(what):
            yield self._snapshot(what)
        else:
            yield from self.closest(what)

    # --- sentences, pages, documents, chunks --------------------------------------------------------------------------

    def closest(self, sentence: str) -> Iterator[TraceNode]:
        """The training pages that share most of a sentence's runs of words, best first; none if none shares two."""
        matches = []
        for record in self._newest:
            training = corpus.assignments_of(self.store, record["split"], "train")
            files = [
                self.store.local(shard.path) for shard in self.store.manifest(record["dedup"]).shards_of("keepers")
            ]
            matches += [(passage, record) for passage in passages.closest(files, sentence, MOST, training)]
        longest = max((passage.run_words for passage, _ in matches), default=0)
        best = [(passage, record) for passage, record in matches if passage.run_words == longest]
        for passage, record in sorted(best, key=lambda pair: (-pair[0].shared, pair[0].url))[:MOST]:
            facts = {
                "shared_runs": round(passage.shared, 3),
                "run_words": passage.run_words,
                **self._withdrawn(passage.document),
            }
            page = TraceNode("page", passage.url, facts, list(self._documents(passage.document, record)))
            yield TraceNode("sentence", sentence, {"closest": passage.url}, [page])

    def _pages(self, url: str) -> Iterator[TraceNode]:
        for record in self._newest:
            fate = list(self._fate(record, url))
            rows = [
                (snapshot, row)
                for snapshot in record.get("scrape", {}).values()
                for row in self._rows(snapshot, "ledger", "url", [url])
            ]
            for snapshot, row in rows:
                facts = {key: row[key] for key in _LEDGER_FACTS if row[key]}
                yield TraceNode("page", url, {"scrape": snapshot, **facts, **self._effect(fate)}, fate)
            if fate and not rows:  # it was read once; no source leads to it any more
                yield TraceNode("page", url, {"state": "not in the newest scrape", **self._effect(fate)}, fate)

    def _effect(self, documents: Sequence[TraceNode]) -> dict[str, Any]:
        """Whether a page is withdrawn, and which models learned from its documents."""
        facts: dict[str, Any] = {}
        for document in documents:
            facts |= {key: document.facts[key] for key in ("withdrawn", "withdrawn_since") if key in document.facts}
        models = {model for document in documents for chunk in document.leads_to for model in chunk.facts["models"]}
        return facts | ({"models": sorted(models)} if models else {})

    def _fate(self, record: dict[str, Any], url: str) -> Iterator[TraceNode]:
        """What strip and dedup made of a page."""
        for dropped in self._rows(record["strip"], "dropped", "url", [url]):
            yield TraceNode("document", "none", {"dropped": dropped["reason"], "detail": dropped["detail"]})
        for dropped in self._rows(record["dedup"], "dropped", "url", [url]):
            yield TraceNode("document", dropped["detail"], {"dropped": dropped["reason"]})
        documents = [
            row["id"] for role in ("keepers", "removed") for row in self._rows(record["dedup"], role, "url", [url])
        ]
        for document in dict.fromkeys(documents):
            yield from self._documents(document, record)

    def _documents(self, document: str, only: dict[str, Any] | None = None) -> Iterator[TraceNode]:
        for record in [only] if only else self._newest:
            for row in self._rows(record["dedup"], "removed", "id", [document]):
                yield TraceNode(
                    "document", document, {key: row[key] for key in ("url", "reason", "keeper", "similarity")}
                )
            for row in self._rows(record["dedup"], "keepers", "id", [document]):
                split = next(self._rows(record["split"], "assignments", "id", [document]), {})
                facts = {
                    "url": row["url"], "title": row["title"], "split": split.get("split", ""), "dedup": record["dedup"],
                    **self._withdrawn(document),
                }  # fmt: skip
                yield TraceNode(
                    "document", document, facts, [self._chunk(chunk, deep=False) for chunk in self._chunks(document)]
                )

    def _chunks(self, document: str) -> list[str]:
        """Where a document was cut into, in any corpus there is or any model learned from."""
        rows = self._rows_of(self._map_shards, "document", [document])
        return list(dict.fromkeys(row["chunk"] for row in rows))

    def _chunk(self, chunk: str, *, deep: bool = True) -> TraceNode:
        shard, _, _ = chunk.partition("#")
        node = TraceNode("chunk", chunk, {"models": self._learners.get(shard, [])})
        if deep:
            rows = list(self._rows(shard.split("/")[0], "map", "chunk", [chunk]))
            keys = ("url", "chunk_start", "document_start", "num_tokens")
            node.leads_to = [
                TraceNode(
                    "document", row["document"], {key: row[key] for key in keys} | self._withdrawn(row["document"])
                )
                for row in rows
            ]
        return node

    def _withdrawn(self, document: str) -> dict[str, str]:
        row = self._all_withdrawn.get(document)
        return {"withdrawn": row["reason"], "withdrawn_since": row["since"]} if row else {}

    # --- snapshots and models -----------------------------------------------------------------------------------------

    def _snapshot(self, snapshot: str) -> TraceNode:
        manifest = self.store.manifest(snapshot)
        counts = manifest.counts
        descendants = self._related(snapshot, self._children)
        facts = {
            "stage": manifest.stage, "as_of": manifest.as_of, "seen": counts.seen, "kept": counts.kept,
            "dropped": dict(counts.dropped), "created_at": manifest.created_at, "code_commit": manifest.code_commit,
            "used_by": self._children.get(snapshot, []),
            "models": [descendant for descendant in descendants if stage_of(descendant) == "finetune"],
            "ancestors": _by_stage(self._related(snapshot, self._parents)),
            "descendants": _by_stage(descendants),
        }  # fmt: skip
        kind = "snapshot"
        if manifest.stage == "finetune":
            kind, facts = "model", {**facts, **self._learned_from(snapshot)}
        return TraceNode(kind, snapshot, facts, self._ancestors(snapshot))

    def _ancestors(self, snapshot: str) -> list[TraceNode]:
        """Parents and theirs, each once. What the same stage made the time before is not followed: trace that."""
        nodes = {snapshot: TraceNode("snapshot", snapshot)}

        def above(id: str) -> list[str]:
            parents = [parent for parent in dict.fromkeys(self._parents.get(id, ())) if parent not in nodes]
            for parent in parents:
                nodes[parent] = TraceNode("snapshot", parent, {"as_of": self._manifests[parent].as_of})
                nodes[id].leads_to.append(nodes[parent])
            return [parent for parent in parents if stage_of(parent) != stage_of(id)]

        deque(walk([snapshot], above), maxlen=0)
        return nodes[snapshot].leads_to

    def _learned_from(self, model: str) -> dict[str, Any]:
        """Of a model: how many documents it was trained on, the first of their pages, and those withdrawn since."""
        shards = self._maps_of(model)
        if not shards:
            return {}
        tables = [pq.read_table(self.store.local(path), columns=["split", "document", "url"]) for path in shards]
        table = pa.concat_tables(tables).filter(pc.field("split") == "train")
        urls = dict(zip(table["document"].to_pylist(), table["url"].to_pylist(), strict=True))
        pages = sorted(set(urls.values()))
        facts: dict[str, Any] = {"documents": len(urls), "pages": len(pages), "urls": pages[:MOST_URLS]}
        withdrawn = sorted({url for document, url in urls.items() if document in self._all_withdrawn})
        return facts | ({"withdrawn": withdrawn} if withdrawn else {})

    def _maps_of(self, model: str) -> list[str]:
        """Chunk maps of all that a model was trained on."""
        parents = self._models.get(model, [])
        return sorted({shard.path for parent in parents for shard in self.store.manifest(parent).shards_of("map")})

    def _related(self, snapshot: str, edges: dict[str, list[str]]) -> list[str]:
        """All that can be reached from `snapshot`, sorted."""
        return sorted(walk(edges.get(snapshot, ()), lambda reached: edges.get(reached, ())))

    # --- reading -----------------------------------------------------------------------------------------------------

    def _rows(self, snapshot: str, role: str, column: str, values: list[str]) -> Iterator[dict[str, Any]]:
        shards = [shard.path for shard in self.store.manifest(snapshot).shards_of(role)]
        yield from self._rows_of(shards, column, values, _KEEPER_COLUMNS if role == "keepers" else None)

    def _rows_of(
        self, shards: Sequence[str], column: str, values: list[str], columns: list[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        wanted = arrow.is_one_of(column, values)
        for shard in shards:
            yield from pq.read_table(self.store.local(shard), columns=columns, filters=wanted).to_pylist()

    @functools.cached_property
    def _manifests(self) -> dict[str, Manifest]:
        return {snapshot: self.store.manifest(snapshot) for snapshot in self.store.snapshots()}

    @functools.cached_property
    def _parents(self) -> dict[str, list[str]]:
        return {
            snapshot: [parent for parent in manifest.parents if parent in self._manifests]
            for snapshot, manifest in self._manifests.items()
        }

    @functools.cached_property
    def _children(self) -> dict[str, list[str]]:
        children: dict[str, list[str]] = {}
        for snapshot, parents in self._parents.items():
            for parent in dict.fromkeys(parents):
                children.setdefault(parent, []).append(snapshot)
        return children

    @functools.cached_property
    def _models(self) -> dict[str, list[str]]:
        """By model, the chunk snapshots it learned from, its champion's before it included."""
        models = [snapshot for snapshot in self.store.snapshots() if stage_of(snapshot) == "finetune"]
        return {
            model: [parent for parent in training_chunks(self.store, model) if self.store.has(parent)]
            for model in models
        }

    @functools.cached_property
    def _learners(self) -> dict[str, list[str]]:
        """By path of a chunk file, the models that were trained on it."""
        learners: dict[str, list[str]] = {}
        for model, parents in self._models.items():
            paths = {shard.path for parent in parents for shard in self.store.manifest(parent).shards_of("train")}
            for path in paths:
                learners.setdefault(path, []).append(model)
        return learners

    @functools.cached_property
    def _map_shards(self) -> list[str]:
        snapshots = [record["chunk"] for record in self._newest if "chunk" in record]
        snapshots += [parent for parents in self._models.values() for parent in parents]
        return list(
            dict.fromkeys(
                shard.path for snapshot in snapshots for shard in self.store.manifest(snapshot).shards_of("map")
            )
        )

    @functools.cached_property
    def _all_withdrawn(self) -> dict[str, dict[str, str]]:
        withdrawn: dict[str, dict[str, str]] = {}
        for record in self._newest:
            withdrawn |= corpus.withdrawn_of(self.store, record["dedup"])
        return withdrawn


def _by_stage(snapshots: Sequence[str]) -> dict[str, int]:
    """{"scrape": 2, "dedup": 1}"""
    return dict(Counter(stage_of(snapshot) for snapshot in snapshots))
