"""Held-out documents and models in; a score per model and document, a summary and samples out."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from prosemill import bases, corpus
from prosemill.errors import CorpusEmpty
from prosemill.evaluating.summary import LABELS, summarise
from prosemill.records import SCORE, Counts, snapshot_id
from prosemill.settings import Evaluate, Write
from prosemill.storage import Store

if TYPE_CHECKING:
    from prosemill.write import Writer

log = logging.getLogger(__name__)

STAGE_VERSION = 1
SCORED_LIKE = ("context_tokens", "stride")  # scores made with other values of these are not comparable
SAMPLED_LIKE = ("sample_tokens", "sample_seed")
WITHOUT_EFFECT = {"batch_windows"}

Row = dict[str, Any]
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"
)  # Thai, Japanese, Chinese
LONG_CHARACTERS = 200  # a document from which a beginning is worth continuing


@dataclass(frozen=True)
class Earlier:
    """What an earlier evaluation found out, by what it depends on."""

    scores: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)  # (model id, document): nats, tokens
    texts: dict[tuple[str, str], str] = field(default_factory=dict)  # (model id, prompt): sample


@dataclass(frozen=True)
class ModelRef:
    """A model to score: what names it (a digest or a finetune snapshot), and its Hugging Face folder."""

    id: str
    folder: Path


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
    """Score base, champion and challenger (the keys of `models`) on the test documents of `split`.

    Scores that the evaluation `previous` holds for the same model and document are taken over, so a night costs the new
    model and the new documents. Raises CorpusEmpty when no document is held out.
    """
    used = settings.model_dump(mode="json", exclude=WITHOUT_EFFECT) | {"context_tokens": context_tokens}
    named = [f"{label}={models[label].id}" for label in LABELS if label in models]
    snapshot = snapshot_id("evaluate", STAGE_VERSION, inputs=[dedup, split, *named], settings=used)
    if store.has(snapshot):
        return snapshot
    documents = list(corpus.documents_of(store, dedup, split, "test"))
    scored = [row for row in documents if row["text"]]
    if not scored:
        raise CorpusEmpty(f"{split}: no test document to score models on; add pages or raise split.test_share")
    earlier = read_earlier(store, previous, used)
    with store.write(
        snapshot,
        stage="evaluate",
        version=STAGE_VERSION,
        parents=[dedup, split, *(ref.id for ref in models.values() if store.has(ref.id))],
        settings=used,
        as_of=as_of,
        flow_run_id=flow_run_id,
    ) as writer:
        prompts = settings.prompts or default_prompts([row["text"] for row in scored])
        examiner = Examiner(scored, prompts, settings, context_tokens, earlier)
        labels = [label for label in LABELS if label in models]
        rows = [row for label in labels for row in examiner.score(label, models[label])]
        table = pa.Table.from_pylist(rows, SCORE)
        pq.write_table(table, writer.path("scores.parquet"))
        writer.add("scores.parquet", "scores", table.num_rows)
        digests = {_tokenizer_digest(ref.folder) for ref in models.values()}
        summary = summarise(table, share_tokenizer=len(digests) == 1)
        _write_json(writer.path("summary.json"), summary | {name: used[name] for name in SCORED_LIKE})
        writer.add("summary.json", "summary", len(summary["models"]))
        _write_json(writer.path("samples.json"), samples_of(prompts, examiner.texts, settings.sample_seed))
        writer.add("samples.json", "samples", len(prompts))
        empty = len(documents) - len(scored)
        writer.counts = Counts(len(documents), len(scored), {"empty": empty} if empty else {})
        writer.totals = {"models": len(models), "scores": len(rows), "new_scores": examiner.num_new}
    return snapshot


def default_prompts(texts: Sequence[str]) -> list[str]:
    """How two of the documents begin: the first ones that are long enough, so that later nights have the same."""
    long = [text for text in texts if len(text) > LONG_CHARACTERS]
    return [_beginning(text) for text in (long or list(texts))[:2]]


def samples_of(prompts: Sequence[str], texts: Mapping[str, Sequence[str]], seed: int) -> list[Row]:
    """samples.json: per prompt what each model wrote, `texts` by label in the order of the prompts."""
    return [
        {"prompt": prompt, "seed": seed, "texts": {label: texts[label][number] for label in texts}}
        for number, prompt in enumerate(prompts)
    ]


class Examiner:
    """Scores one model after another on the same documents and lets it continue the same prompts."""

    def __init__(
        self,
        documents: Sequence[Row],
        prompts: Sequence[str],
        settings: Evaluate,
        context_tokens: int,
        earlier: Earlier,
    ) -> None:
        self.documents, self.prompts, self.settings = documents, prompts, settings
        self.context_tokens, self.earlier = context_tokens, earlier
        self.texts: dict[str, list[str]] = {}  # by label, in the order of the prompts
        self.num_new = 0

    def score(self, label: str, ref: ModelRef) -> list[Row]:
        """Rows of records.SCORE; the model is loaded only if something of it is not known yet."""
        scores = {row["id"]: self.earlier.scores.get((ref.id, row["id"])) for row in self.documents}
        texts = [self.earlier.texts.get((ref.id, prompt)) for prompt in self.prompts]
        unknown = [row for row in self.documents if scores[row["id"]] is None]
        log.info("evaluate: %s on %d documents, %d of them new to it", label, len(self.documents), len(unknown))
        if unknown or None in texts:
            from prosemill.write import Writer

            writer = Writer(ref.folder)
            scores |= self._score(label, writer, unknown)
            style = Write(max_new_tokens=self.settings.sample_tokens)
            seed = self.settings.sample_seed
            texts = [writer.write(prompt, style, seed=seed)[0] for prompt in self.prompts]
        self.texts[label] = [text for text in texts if text is not None]
        self.num_new += len(unknown)
        return [_row(label, ref, row, *(scores[row["id"]] or (0.0, 0))) for row in self.documents]

    def _score(self, label: str, writer: Writer, documents: Sequence[Row]) -> dict[str, tuple[float, int] | None]:
        """nats and num_tokens by document id."""
        from prosemill.evaluating.score import score

        encoded = [[writer.end_of_text, *ids] for ids in writer.encode([row["text"] for row in documents])]
        nats = score(
            writer.model,
            encoded,
            context_tokens=min(self.context_tokens, writer.context_tokens),
            stride=self.settings.stride,
            batch_windows=self.settings.batch_windows,
            what=f"evaluate {label}",
        )
        return {row["id"]: (value, len(ids) - 1) for row, ids, value in zip(documents, encoded, nats, strict=True)}


def _row(label: str, ref: ModelRef, document: Row, nats: float, num_tokens: int) -> Row:
    return {
        "model": label,
        "model_id": ref.id,
        "document": document["id"],
        "source": document["source"],
        "nats": nats,
        "num_tokens": num_tokens,
        "size_bytes": len(document["text"].encode()),
    }


def read_earlier(store: Store, previous: str, used: Mapping[str, Any]) -> Earlier:
    """What the evaluation `previous` holds that would come out the same now; nothing if it was made in another way."""
    if not previous or not store.has(previous):
        return Earlier()
    manifest = store.manifest(previous)
    if manifest.stage_version != STAGE_VERSION:
        return Earlier()
    earlier = Earlier()
    if all(manifest.settings.get(name) == used[name] for name in SCORED_LIKE):
        for shard in manifest.shards_of("scores"):
            for row in pq.read_table(store.local(shard.path)).to_pylist():
                earlier.scores[row["model_id"], row["document"]] = (row["nats"], row["num_tokens"])
    if all(manifest.settings.get(name) == used[name] for name in SAMPLED_LIKE):
        ids = {label: found["id"] for label, found in _read_json(store, previous, "summary")["models"].items()}
        for sample in _read_json(store, previous, "samples"):
            for label, text in sample["texts"].items():
                earlier.texts[ids[label], sample["prompt"]] = text
    return earlier


def _beginning(text: str) -> str:
    """Eight words, or twelve characters where no spaces stand between words: a "word" is a line or a sentence there."""
    words = text.split()[:8]
    together = "".join(words)
    if 2 * len(_UNSPACED.findall(together)) > len(together):
        return together[:12]
    return " ".join(words)


def _tokenizer_digest(folder: Path) -> str:
    return bases.resolve(str(folder), need_weights=False).tokenizer_digest


def _read_json(store: Store, snapshot: str, role: str) -> Any:
    (shard,) = store.manifest(snapshot).shards_of(role)
    return json.loads(store.local(shard.path).read_text(encoding="utf-8"))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
