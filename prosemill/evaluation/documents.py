"""Which documents are scored: every test document, and a sample of training, validation and general text beside them.

The sample shows what the test set cannot: how far a model has learned its training text by heart (training against
test), and what it forgot (general). It is drawn by a digest of the id, so that it hardly changes as the corpus grows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

import pyarrow.parquet as pq

from prosemill.config.settings import Evaluate
from prosemill.evaluation.general import general_documents
from prosemill.storage import corpus
from prosemill.storage.ancestry import training_chunks
from prosemill.storage.manifest import digest
from prosemill.storage.store import Store

Row = dict[str, Any]

# Of a sampled document its beginning is scored: a few kilobytes then hold many documents, which is what an interval
# over documents needs, and a window of 1,024 tokens holds the whole of each.
BEGINNING_CHARACTERS = 2000

TEST, VALIDATION, TRAIN, GENERAL = "test", "validation", "train", "general"
PARTS = (TEST, VALIDATION, TRAIN, GENERAL)


def scored_documents(store: Store, dedup: str, split: str, settings: Evaluate) -> tuple[list[Row], int]:
    """Rows id, source, text, part, first_seen, the test documents first; and how many of those had no text."""
    seen = first_seen(store, split)
    test = [_row(row, TEST, seen) for row in corpus.documents_of(store, dedup, split, TEST)]
    rows = [row for row in test if row["text"]]
    num_empty = len(test) - len(rows)
    budget = settings.other_kilobytes * 1000
    if budget:
        for part in (VALIDATION, TRAIN):
            read = functools.partial(corpus.documents_of, store, dedup, split, part)
            rows += [_row(row, part, seen) for row in sample(read, budget)]
        general = general_documents(settings.general_path)
        rows += [_row(row, GENERAL, {}) for row in sample(lambda: general, budget)]
    return rows, num_empty


def first_seen(store: Store, split: str) -> dict[str, str]:
    """The date of the run that first met each document, by id."""
    dates: dict[str, str] = {}
    for shard in store.manifest(split).shards_of("assignments"):
        table = pq.read_table(store.local(shard.path), columns=["id", "first_seen"])
        dates.update(zip(table["id"].to_pylist(), table["first_seen"].to_pylist(), strict=True))
    return dates


def sample(read: Callable[[], Iterable[Row]], size_bytes: int) -> list[Row]:
    """Beginnings of documents, `size_bytes` together, in the order of a digest of the ids; the shortest if none fits.

    `read` is called twice, so that a large corpus need not be held.
    """
    order = sorted((digest(row["id"]), len(_beginning(row).encode()), row["id"]) for row in read() if row["text"])
    chosen, room = set(), size_bytes
    for _, size, id in order:
        if size <= room:
            chosen.add(id)
            room -= size
    chosen = chosen or {id for _, _, id in sorted(order, key=lambda entry: entry[1])[:1]}
    rows = {row["id"]: row | {"text": _beginning(row)} for row in read() if row["id"] in chosen}
    return [rows[id] for _, _, id in order if id in chosen]


def _beginning(row: Row) -> str:
    text: str = row["text"]
    return text[:BEGINNING_CHARACTERS]


def week_of(first_seen: str) -> str:
    """ISO 8601 week of a date or date-time, "2026-W02"; "" for none."""
    if not first_seen:
        return ""
    year, week, _ = date.fromisoformat(first_seen[:10]).isocalendar()
    return f"{year}-W{week:02}"


def corpus_date(store: Store, model: str) -> str:
    """The date of the newest corpus that a model learned from: pages after it are news to it. "" for a base."""
    if not store.has(model):
        return ""
    return max((store.manifest(chunk).as_of for chunk in training_chunks(store, model)), default="")


def _row(row: Row, part: str, seen: dict[str, str]) -> Row:
    return {
        "id": row["id"],
        "source": row["source"],
        "text": row["text"],
        "part": part,
        "first_seen": seen.get(row["id"], ""),
    }
