"""The history of a page: its status at every stage, with the reason, in each corpus that has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from prosemill.dedup import overrides
from prosemill.errors import RecipeError
from prosemill.lineage.sampling import texts_of
from prosemill.storage.corpus import withdrawn_of
from prosemill.storage.schemas import LIVE_STATES
from prosemill.storage.store import Store

Row = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """What one stage made of the page. `status`: kept | dropped, or for split the part it was given."""

    stage: str
    snapshot: str
    status: str
    why: str = ""
    document: str = ""


@dataclass
class PageHistory:
    """The steps of one page through one corpus, as of its newest run."""

    corpus: str
    as_of: str
    url: str
    steps: list[Step] = field(default_factory=list)
    removed: Row = field(default_factory=dict)  # records.REMOVED, where dedup took it for a copy
    is_undone: bool = False  # … and somebody took that back: it is kept from the next run on
    text: str = ""  # of the removed document
    keeper_text: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "corpus": self.corpus, "as_of": self.as_of, "url": self.url,
            "steps": [_without_empty(step) for step in self.steps],
            **({"removed": self.removed, "text": self.text, "keeper_text": self.keeper_text} if self.removed else {}),
        }  # fmt: skip


def _without_empty(step: Step) -> Row:
    """The fields that say something; `verdict`, the old key of `status`, for one release."""
    return {key: value for key, value in (vars(step) | {"verdict": step.status}).items() if value}


def why(store: Store, url: str, corpus: str = "") -> list[PageHistory]:
    """The history of `url` in each corpus (or only in `corpus`) whose newest run knows it; RecipeError if none does."""
    histories = []
    for name in [corpus] if corpus else store.corpora():
        runs = store.runs(name)
        if not runs:
            raise RecipeError(f"no corpus is named {name}; there is {', '.join(store.corpora()) or 'none yet'}")
        as_of = max(runs)
        history = PageHistory(name, as_of, url)
        history.steps = list(_steps(store, runs[as_of], history))
        if history.steps:
            histories.append(history)
    if not histories:
        raise RecipeError(
            f"{url}: no ledger knows it; write it as `prosemill trace` shows URLs, and look whether a source's start "
            "URLs, include and exclude lead there"
        )
    return histories


def _steps(store: Store, run: Row, history: PageHistory) -> Iterator[Step]:
    live = False
    for snapshot in run.get("scrape", {}).values():
        for row in _rows(store, snapshot, "ledger", "url", history.url):
            is_live = row["state"] in LIVE_STATES
            live = live or is_live
            yield Step("scrape", snapshot, "kept" if is_live else "dropped", _scraped(row))
    known = list(_from_dedup_on(store, run, history))
    for row in _rows(store, run["strip"], "dropped", "url", history.url):
        why = f"{row['reason']} ({row['detail']})" if row["detail"] else row["reason"]
        yield Step("strip", run["strip"], "dropped", why)
    for row in _rows(store, run["strip"], "documents", "url", history.url):
        yield Step("strip", run["strip"], "kept", _stripped(row), row["id"])
    if known and not live:
        yield Step("strip", run["strip"], "kept", "of an earlier run: the page is not live any more")
    yield from known


def _from_dedup_on(store: Store, run: Row, history: PageHistory) -> Iterator[Step]:
    """What dedup, split and chunk made of it, documents of earlier runs included."""
    dedup = run["dedup"]
    kept = list(_rows(store, dedup, "keepers", "url", history.url))
    taken_back, withdrawn = set(overrides.of(store, history.corpus)), withdrawn_of(store, dedup)
    for row in _rows(store, dedup, "removed", "url", history.url):
        if row["id"] not in {document["id"] for document in kept}:
            history.removed = row
            history.is_undone = row["id"] in taken_back
            _both_texts(store, dedup, history)
            waits = "; taken back, and kept from the next run on" if history.is_undone else ""
            yield Step("dedup", dedup, "dropped", _copied(row) + waits, row["id"])
    for row in _rows(store, dedup, "dropped", "url", history.url):
        yield Step("dedup", dedup, "dropped", row["reason"], row["detail"])
    for row in kept:
        because = "kept because somebody took its removal back" if row["id"] in taken_back else ""
        yield Step("dedup", dedup, "kept", because, row["id"])
        if row["id"] in withdrawn:
            gone = withdrawn[row["id"]]
            yield Step("dedup", dedup, "dropped", f"withdrawn since {gone['since']}: {gone['reason']}", row["id"])
            continue
        yield from _placed(store, run, row["id"])


def _placed(store: Store, run: Row, document: str) -> Iterator[Step]:
    for row in _rows(store, run["split"], "assignments", "id", document):
        since = f"since {row['first_seen']}"
        held = [
            f"holds {contained['held_out_url']} ({contained['share']:.0%} of it)"
            for contained in _held(store, run, document)
        ]
        why = ", ".join(filter(None, [row["reason"], *held, since]))
        yield Step("split", run["split"], row["split"], why, document)
    chunks = [row["chunk"] for row in _rows(store, run["chunk"], "map", "document", document)]
    if chunks:
        more = f" and {len(chunks) - 3} more" if len(chunks) > 3 else ""
        yield Step("chunk", run["chunk"], "kept", f"in {', '.join(chunks[:3])}{more}", document)


def _held(store: Store, run: Row, document: str) -> Iterator[Row]:
    """Held-out documents because of which this one is kept out of training."""
    return _rows(store, run["split"], "containers", "id", document)


def _both_texts(store: Store, dedup: str, history: PageHistory) -> None:
    texts = texts_of(store, store.manifest(dedup), [history.removed["id"]])
    history.text = texts.get(history.removed["id"], {}).get("text", "")
    for row in _rows(store, dedup, "keepers", "id", history.removed["keeper"]):
        history.keeper_text = row["text"]


def _scraped(row: Row) -> str:
    parts = [row["state"], row["reason"], f"HTTP {row['http_status']}" if row["http_status"] else ""]
    parts += [row["opt_out"], f"read {row['fetched_at']}" if row["fetched_at"] else ""]
    return ", ".join(filter(None, parts))


def _stripped(row: Row) -> str:
    facts = [row["language"], row["charset"], f"{row['size_bytes']:,} bytes"]
    return ", ".join(filter(None, [*facts, f"{row['scrubbed']} scrubbed" if row["scrubbed"] else ""]))


def _copied(row: Row) -> str:
    if row["reason"] == "exact":
        return f"an exact copy of {row['keeper_url']}"
    return f"a near-copy of {row['keeper_url']}, J = {row['similarity']:.3f}"


def _rows(store: Store, snapshot: str, role: str, column: str, value: str) -> Iterator[Row]:
    for shard in store.manifest(snapshot).shards_of(role):
        yield from pq.read_table(store.local(shard.path), filters=pc.field(column) == value).to_pylist()
