"""What a run did, as plain values: the funnel, the ledger by reason, the scores."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow.parquet as pq
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

from prosemill.config.settings import Recipe, Write
from prosemill.errors import RecipeError
from prosemill.storage import stages
from prosemill.storage.decision_record import with_new_names
from prosemill.storage.json_shards import read_json
from prosemill.storage.manifest import Manifest
from prosemill.storage.run_log import MISS, StageRecord
from prosemill.storage.store import Store

LABELS = ("base", "champion", "challenger")
SCORED_LABELS = ("base", "previous", "champion", "challenger")


class Corpus(TypedDict):
    """The snapshots that make up a corpus on one date, and how long each stage took this time."""

    scrape: dict[str, str]  # by source name
    strip: str
    dedup: str
    split: str
    chunk: str
    seconds: dict[str, float]


class TrainingRecord(TypedDict):
    """What training, evaluation and the gate made, and the seconds of each stage; ids are "" without a training."""

    finetune: str
    evaluate: str
    gate: str
    model: str  # "name/version" in the registry
    seconds: dict[str, float]
    reason: str  # why nothing was trained, "" otherwise


NOT_TRAINED = TrainingRecord(finetune="", evaluate="", gate="", model="", seconds={}, reason="")


def corpus_of(record: Mapping[str, Any]) -> Corpus:
    """The corpus part of a run's record; empty ids when there was no such run."""
    return Corpus(
        scrape=dict(record.get("scrape", {})),
        strip=record.get("strip", ""),
        dedup=record.get("dedup", ""),
        split=record.get("split", ""),
        chunk=record.get("chunk", ""),
        seconds={},
    )


def recorded(corpus: Corpus) -> dict[str, Any]:
    """What of a corpus is remembered: its ids, not its times."""
    return {key: value for key, value in corpus.items() if key != "seconds"}


def training_ids(trained: TrainingRecord) -> dict[str, str]:
    """The snapshots of a training, for the record."""
    return {"finetune": trained["finetune"], "evaluate": trained["evaluate"], "gate": trained["gate"]}


def write_settings_record(recipe: Recipe) -> dict[str, Any]:
    """How the recipe wants its model to write, for the record: `prosemill write` has the name, not the recipe."""
    return {"write": recipe.write.model_dump(mode="json")}


def write_settings_of(store: Store, model: str) -> Write:
    """[write] of the newest run that trained the model (a name, name/3, name@champion), else the defaults."""
    runs = store.runs(re.split("[@/]", model)[0]).values()
    return Write.model_validate(next((run["write"] for run in reversed(list(runs)) if "write" in run), {}))


def snapshots_of(corpus: Corpus) -> list[str]:
    return [*corpus["scrape"].values(), corpus["strip"], corpus["dedup"], corpus["split"], corpus["chunk"]]


def checked_date(as_of: str) -> str:
    """`as_of` if it is an ISO 8601 date or date-time; these sort as text, and name files."""
    try:
        date.fromisoformat(as_of) if len(as_of) == len("2026-01-05") else datetime.fromisoformat(as_of)
    except ValueError:
        raise RecipeError(f"as_of = {as_of!r}: is not a date such as 2026-01-05 or 2026-01-05T21:30") from None
    return as_of


def funnel(store: Store, corpus: Corpus) -> list[dict[str, Any]]:
    """One row a stage: stage, seen, kept, dropped (by reason), and what the stage adds of its own."""
    return funnel_of(store, snapshots_of(corpus))


def funnel_of(store: Store, snapshots: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of some stages, of which there may be fewer than make a corpus; those that were deleted are left out."""
    return [_funnel_row(store.manifest(snapshot)) for snapshot in snapshots if store.has(snapshot)]


def _funnel_row(manifest: Manifest) -> dict[str, Any]:
    counts = manifest.counts
    row = {"stage": manifest.stage, "seen": counts.seen, "kept": counts.kept, "dropped": dict(counts.dropped)}
    if "source" in manifest.totals:
        row["source"] = manifest.totals["source"]
    return {**row, **{key: value for key, value in manifest.totals.items() if isinstance(value, int | float)}}


def stage_name(row: Mapping[str, Any]) -> str:
    """ "scrape messages": a row of the funnel, told from those of other sources."""
    return f"{row['stage']} {row['source']}" if "source" in row else str(row["stage"])


def output_of(row: Mapping[str, Any]) -> str:
    """The figures that tell most of a stage, for example "445 train chunks, 454,152 train tokens"."""
    totals = with_new_names(row)
    figures = [(key, totals[key]) for key in stages.of(row["stage"]).figures if totals.get(key)]
    return ", ".join(
        f"{value:,} {key.replace('_', ' ')}" if isinstance(value, int) else str(value) for key, value in figures
    )


def reasons(dropped: Mapping[str, int]) -> str:
    """ "3 thin, 1 language": the most frequent first."""
    return ", ".join(f"{number} {reason}" for reason, number in sorted(dropped.items(), key=lambda item: -item[1]))


def stage_line(store: Store, row: StageRecord) -> str:
    """ "strip: 38 of 40 kept (2 thin), made in 1.5 s: strip-0123456789abcdef", for the log."""
    how = f"made in {row.seconds:.1f} s" if row.cache == MISS else "found in the store"
    if not store.has(row.snapshot):
        return f"{row.stage}: a result is cached, but its snapshot was deleted: {row.snapshot}"
    funnel = _funnel_row(store.manifest(row.snapshot))
    dropped = f" ({reasons(funnel['dropped'])})" if funnel["dropped"] else ""
    return f"{stage_name(funnel)}: {funnel['kept']:,} of {funnel['seen']:,} kept{dropped}, {how}: {row.snapshot}"


def ledger_summary(store: Store, corpus: Corpus) -> list[dict[str, Any]]:
    """Rows source, state, reason, urls, example: what became of every URL that was met."""
    rows = []
    for snapshot in corpus["scrape"].values():
        for shard in store.manifest(snapshot).shards_of("ledger"):
            table = pq.read_table(store.local(shard.path), columns=["source", "state", "reason", "url"])
            rows += table.to_pylist()
    numbers = Counter((row["source"], row["state"], row["reason"]) for row in rows)
    first = {(row["source"], row["state"], row["reason"]): row["url"] for row in reversed(rows)}
    return [
        {"source": source, "state": state, "reason": reason, "urls": number, "example": first[source, state, reason]}
        for (source, state, reason), number in sorted(numbers.items())
    ]


def score_table(store: Store, evaluation: str) -> list[dict[str, Any]]:
    """One row a model: perplexity and bits per byte on the test split, with their 95 % intervals."""
    models = read_json(store, evaluation, "summary")["models"]
    return [{"model": label, **_scores(models[label])} for label in SCORED_LABELS if label in models]


def _scores(summary: Mapping[str, Any]) -> dict[str, Any]:
    keep = ("perplexity", "perplexity_interval", "bits_per_byte", "bits_per_byte_interval", "documents", "tokens")
    return {key: summary[key] for key in keep if key in summary}
