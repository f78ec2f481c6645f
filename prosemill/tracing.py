"""From anything to everything it is connected with: sentence, URL, document, chunk, snapshot, model, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from prosemill import report
from prosemill.errors import RecipeError
from prosemill.records import Manifest
from prosemill.storage import Store

SHINGLE_WORDS = 4  # short enough to find a sentence that the model has bent a little, long enough to mean something
MOST = 5  # pages named for a sentence


@dataclass
class Found:
    """One thing on the way, and what it is connected with."""

    kind: str  # sentence | page | document | chunk | snapshot | model
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    leads_to: list[Found] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": self.kind, "name": self.name, **self.facts}
        return {**found, "leads_to": [each.as_dict() for each in self.leads_to]} if self.leads_to else found


class Tracer:
    """Answers from the corpora as the newest run of each left them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._newest = [runs[max(runs)] for name in store.corpora() if (runs := store.runs(name))]

    def trace(self, what: str) -> list[Found]:
        """Everything connected with `what`; RecipeError when nothing in the store answers to it."""
        found = list(self._dispatch(what.strip()))
        if not found:
            raise RecipeError(
                f"{what!r}: nothing in {self.store.url} answers to it; name a URL, a document, chunk or snapshot id, "
                "a model, or give a sentence of at least four words"
            )
        return found

    def _dispatch(self, what: str) -> Iterator[Found]:
        if "://" in what:
            yield from self._pages(what)
        elif re.fullmatch(r"[0-9a-f]{20}", what):
            yield from self._documents(what)
        elif re.fullmatch(r"chunk-[0-9a-f]{16}/\S+#\d+", what):
            yield self._chunk(what)
        elif re.fullmatch(r"[a-z-]+-[0-9a-f]{16}", what):
            yield self._snapshot(what)
        else:
            yield from self._sentence(what)

    # --- one kind each -----------------------------------------------------------------------------------------------

    def _pages(self, url: str) -> Iterator[Found]:
        for record in self._newest:
            for snapshot in record.get("scrape", {}).values():
                for row in self._rows(snapshot, "ledger", "url", url):
                    facts = {
                        key: row[key] for key in ("state", "reason", "http_status", "fetched_at", "opt_out", "warc")
                    }
                    page = Found("page", url, {"scrape": snapshot, **{k: v for k, v in facts.items() if v}})
                    page.leads_to = list(self._fate(record, row))
                    yield page

    def _fate(self, record: dict[str, Any], row: dict[str, Any]) -> Iterator[Found]:
        """What strip and dedup made of a live page."""
        for dropped in self._rows(record["strip"], "dropped", "url", row["url"]):
            yield Found("document", "none", {"dropped": dropped["reason"], "detail": dropped["detail"]})
        for dropped in self._rows(record["dedup"], "dropped", "url", row["url"]):
            yield Found("document", dropped["detail"], {"dropped": dropped["reason"]})
        for role in ("keepers", "removed"):
            for each in self._rows(record["dedup"], role, "url", row["url"]):
                yield from self._documents(each["id"], record)

    def _documents(self, document: str, only: dict[str, Any] | None = None) -> Iterator[Found]:
        for record in [only] if only else self._newest:
            for row in self._rows(record["dedup"], "removed", "id", document):
                yield Found("document", document, {key: row[key] for key in ("url", "reason", "keeper", "similarity")})
            for row in self._rows(record["dedup"], "keepers", "id", document):
                (split,) = list(self._rows(record["split"], "assignments", "id", document)) or [{}]
                facts = {
                    "url": row["url"],
                    "title": row["title"],
                    "split": split.get("split", ""),
                    "dedup": record["dedup"],
                }
                chunks = [each["chunk"] for each in self._rows(record["chunk"], "map", "document", document)]
                yield Found("document", document, facts, [self._chunk(chunk, deep=False) for chunk in chunks])

    def _chunk(self, chunk: str, *, deep: bool = True) -> Found:
        shard = chunk.split("#", maxsplit=1)[0]
        models = [
            Found("model", each.id, {"as_of": each.as_of}) for each in self._models() if shard in self._learned(each)
        ]
        found = Found("chunk", chunk, {"models": [model.name for model in models]})
        if deep:
            rows = list(self._rows(shard.split("/")[0], "map", "chunk", chunk))
            keys = ("document", "url", "chunk_start", "document_start", "num_tokens")
            found.leads_to = [Found("document", row["document"], {key: row[key] for key in keys[1:]}) for row in rows]
        return found

    def _snapshot(self, snapshot: str) -> Found:
        manifest = self.store.manifest(snapshot)
        counts = manifest.counts
        facts = {
            "stage": manifest.stage, "as_of": manifest.as_of, "seen": counts.seen, "kept": counts.kept,
            "dropped": dict(counts.dropped), "created_at": manifest.created_at, "code_commit": manifest.code_commit,
            "used_by": [each for each in self.store.snapshots() if snapshot in self.store.manifest(each).parents],
        }  # fmt: skip
        parents = [parent for parent in manifest.parents if self.store.has(parent)]
        return Found("snapshot", snapshot, facts, [self._snapshot_line(parent) for parent in parents])

    def _snapshot_line(self, snapshot: str) -> Found:
        manifest = self.store.manifest(snapshot)
        parents = [parent for parent in manifest.parents if self.store.has(parent)]
        return Found("snapshot", snapshot, {"as_of": manifest.as_of}, [self._snapshot_line(each) for each in parents])

    def _sentence(self, sentence: str) -> Iterator[Found]:
        """The training pages that share most of a sentence's runs of four words (or characters, where words run on)."""
        wanted = shingles(sentence)
        if not wanted:
            return
        scored = []
        for record in self._newest:
            training = {row["id"] for row in self._rows(record["split"], "assignments", "split", "train")}
            for shard in self.store.manifest(record["dedup"]).shards_of("keepers"):
                for row in pq.read_table(self.store.local(shard.path), columns=["id", "url", "text"]).to_pylist():
                    shared = len(wanted & shingles(row["text"])) / len(wanted)
                    if shared and row["id"] in training:
                        scored.append((shared, row["url"], row["id"], record))
        best = sorted(scored, key=lambda each: (-each[0], each[1]))[:MOST]
        for shared, url, document, record in best:
            page = Found("page", url, {"shared_runs": round(shared, 3)}, list(self._documents(document, record)))
            yield Found("sentence", sentence, {"closest": url}, [page])

    # --- reading -----------------------------------------------------------------------------------------------------

    def _rows(self, snapshot: str, role: str, column: str, value: str) -> Iterator[dict[str, Any]]:
        for shard in self.store.manifest(snapshot).shards_of(role):
            table = pq.read_table(self.store.local(shard.path), filters=pc.field(column) == value)
            yield from table.to_pylist()

    def _models(self) -> list[Manifest]:
        return [self.store.manifest(each) for each in self.store.snapshots() if each.startswith("finetune-")]

    def _learned(self, model: Manifest) -> set[str]:
        """Paths of the chunk files that this model was trained on."""
        parents = report.training_parents(self.store, model.id)
        return {shard.path for parent in parents for shard in self.store.manifest(parent).shards_of("train")}


def shingles(text: str) -> set[str]:
    """Runs of four words; a Chinese, Japanese or Korean character is a word."""
    words = re.findall(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+", text.lower())
    return {" ".join(words[start : start + SHINGLE_WORDS]) for start in range(len(words) - SHINGLE_WORDS + 1)}
