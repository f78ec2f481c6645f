"""Held-out documents and models in; a score per model and document, a summary, samples and measured texts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import regex

from prosemill.config.settings import Evaluate
from prosemill.errors import CorpusEmpty
from prosemill.evaluation.documents import TEST, TRAIN, corpus_date, scored_documents
from prosemill.evaluation.general import general_documents
from prosemill.evaluation.quality import harness_scores, quality_of
from prosemill.evaluation.reuse import SCORED_LIKE, read_earlier
from prosemill.evaluation.scorer import ModelRef, Scorer, samples_of, write_json
from prosemill.evaluation.summary import LABELS, summarise
from prosemill.models import bases
from prosemill.storage import corpus, stages
from prosemill.storage.manifest import Counts, digest, snapshot_id
from prosemill.storage.schemas import SCORE
from prosemill.storage.store import SnapshotWriter, Store
from prosemill.text.scripts import is_unspaced

STAGE = stages.of("evaluate")
WITHOUT_EFFECT = {"batch_windows"}

LONG_CHARACTERS = 200  # a document from which a beginning is worth continuing


def evaluate(
    store: Store,
    dedup: str,
    split: str,
    models: Mapping[str, ModelRef],
    settings: Evaluate,
    *,
    context_tokens: int,
    as_of: str,
    previous: str = "",
    flow_run_id: str = "",
) -> str:
    """Score base, previous, champion and challenger (the keys of `models`) on the test documents of `split`.

    Beside them, samples of validation, training and general text (`evaluate.other_kilobytes`). Scores that the
    evaluation `previous` holds for the same model and document are taken over, so a run costs the new model and the
    new documents. Raises CorpusEmpty when no document is held out.
    """
    used = settings.model_dump(mode="json", exclude=WITHOUT_EFFECT) | {"context_tokens": context_tokens}
    named = [f"{label}={models[label].id}" for label in LABELS if label in models]
    inputs = [dedup, split, *named, _general_digest(settings)]
    snapshot = snapshot_id(STAGE.name, STAGE.version, inputs=inputs, settings=used)
    if store.has(snapshot):
        return snapshot
    rows, num_empty = scored_documents(store, dedup, split, settings)
    test = [row for row in rows if row["part"] == TEST]
    if not test:
        raise CorpusEmpty(f"{split}: no test document to score models on; add pages or raise split.test_share")
    prompts = settings.prompts or default_prompts([row["text"] for row in test])
    earlier = read_earlier(store, previous, used, STAGE.version)
    scorer = Scorer(rows, prompts, settings, context_tokens, earlier)
    with store.write(
        snapshot,
        stage=STAGE.name,
        version=STAGE.version,
        parents=[dedup, split, *(ref.id for ref in models.values() if store.has(ref.id))],
        settings=used,
        as_of=as_of,
        flow_run_id=flow_run_id,
    ) as writer:
        scored = [row for label in LABELS if label in models for row in scorer.score(label, models[label])]
        table = pa.Table.from_pylist(scored, SCORE)
        pq.write_table(table, writer.path("scores.parquet"))
        writer.add("scores.parquet", "scores", table.num_rows)
        training = corpus.documents_of(store, dedup, split, TRAIN)
        quality = quality_of(scorer.continuations, rows, training, settings) if settings.continuations else {}
        digests = {_tokenizer_digest(ref.folder) for ref in models.values()}
        dates = {label: corpus_date(store, ref.id) for label, ref in models.items()}
        summary = summarise(table, share_tokenizer=len(digests) == 1, dates=dates) | {"quality": quality}
        summary["lm_eval"] = harness_scores({label: ref.folder for label, ref in models.items()}, settings)
        _add_json(writer, "summary", summary | {name: used[name] for name in SCORED_LIKE}, len(models))
        _add_json(writer, "samples", samples_of(prompts, scorer.texts, settings.sample_seed), len(prompts))
        _add_json(writer, "continuations", scorer.continuations_json(models), len(models))
        writer.counts = Counts(len(test) + num_empty, len(test), {"empty": num_empty} if num_empty else {})
        writer.totals = {"models": len(models), "scores": len(scored), "new_scores": scorer.num_new}
    return snapshot


def default_prompts(texts: Sequence[str]) -> list[str]:
    """How two of the documents begin: the first ones that are long enough, so that later runs have the same."""
    long = [text for text in texts if len(text) > LONG_CHARACTERS]
    return [_beginning(text) for text in (long or list(texts))[:2]]


def _beginning(text: str) -> str:
    """Eight words, or twelve characters, each with its marks, where no spaces stand between words."""
    words = text.split()[:8]
    together = "".join(words)
    if is_unspaced(together):
        return str(regex.match(r"\X{0,12}", together)[0])
    return " ".join(words)


def _general_digest(settings: Evaluate) -> str:
    """Names the general text: other files at the same path make another evaluation. "" when none is scored."""
    if not settings.other_kilobytes:
        return ""
    return digest([row["id"] for row in general_documents(settings.general_path)])


def _tokenizer_digest(folder: Path) -> str:
    return bases.resolve(str(folder), need_weights=False).tokenizer_digest


def _add_json(writer: SnapshotWriter, role: str, value: Any, rows: int) -> None:
    write_json(writer.path(f"{role}.json"), value)
    writer.add(f"{role}.json", role, rows)
