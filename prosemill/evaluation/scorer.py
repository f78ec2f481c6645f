"""One model after another on the same documents and prompts; a model is loaded only if something is not known yet."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prosemill.config.settings import Evaluate, Write
from prosemill.evaluation.continuations import Continuation, continue_all, prompt_documents
from prosemill.evaluation.reuse import PreviousScores, continuation_key

if TYPE_CHECKING:
    from prosemill.models.generation import Writer

log = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True)
class ModelRef:
    """A model to score: what names it (a digest or a finetune snapshot), and its Hugging Face folder."""

    id: str
    folder: Path


class Scorer:
    """Scores models, all in float32 and in the same batches, and lets them continue the same texts."""

    def __init__(
        self,
        documents: Sequence[Row],
        prompts: Sequence[str],
        settings: Evaluate,
        context_tokens: int,
        earlier: PreviousScores,
    ) -> None:
        self.documents, self.prompts, self.settings = documents, prompts, settings
        self.context_tokens, self.earlier = context_tokens, earlier
        self.to_continue = prompt_documents(documents, settings.continuations)
        self.continuation_key = continuation_key(self.to_continue, settings.canaries)
        self.texts: dict[str, list[str]] = {}  # by label, in the order of the prompts
        self.continuations: dict[str, list[Continuation]] = {}  # by label
        self.num_new = 0

    def score(self, label: str, ref: ModelRef) -> list[Row]:
        """Rows of records.SCORE; texts and continuations of the model are kept under its label."""
        scores = {row["id"]: self.earlier.scores.get((ref.id, row["id"])) for row in self.documents}
        texts = [self.earlier.texts.get((ref.id, prompt)) for prompt in self.prompts]
        continued = self.earlier.continuations.get((ref.id, self.continuation_key))
        unknown = [row for row in self.documents if scores[row["id"]] is None]
        log.info("evaluate: %s on %d documents, %d of them new to it", label, len(self.documents), len(unknown))
        if unknown or None in texts or continued is None:
            from prosemill.models.generation import Writer

            writer = Writer(ref.folder)
            scores |= self._score(label, writer, unknown)
            if None in texts:
                manner, seed = Write(max_new_tokens=self.settings.sample_tokens), self.settings.sample_seed
                texts = [writer.write(prompt, manner, seed=seed)[0] for prompt in self.prompts]
            if continued is None:
                continued = continue_all(
                    writer, self.to_continue, self.settings.canaries, self.settings, self.context_tokens
                )
        self.texts[label] = [text for text in texts if text is not None]
        self.continuations[label] = continued
        self.num_new += len(unknown)
        return [_row(label, ref, row, *(scores[row["id"]] or (0.0, 0))) for row in self.documents]

    def _score(self, label: str, writer: Writer, documents: Sequence[Row]) -> dict[str, tuple[float, int] | None]:
        """nats and num_tokens by document id."""
        from prosemill.evaluation.score import score

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

    def continuations_json(self, models: Mapping[str, ModelRef]) -> dict[str, Any]:
        """continuations.json: by model id what it was asked to continue, and how it did."""
        return {
            models[label].id: {"asked": self.continuation_key, "texts": list(map(asdict, continuations))}
            for label, continuations in self.continuations.items()
        }


def samples_of(prompts: Sequence[str], texts: Mapping[str, Sequence[str]], seed: int) -> list[Row]:
    """samples.json: per prompt what each model wrote, `texts` by label in the order of the prompts."""
    return [
        {"prompt": prompt, "seed": seed, "texts": {label: texts[label][number] for label in texts}}
        for number, prompt in enumerate(prompts)
    ]


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def _row(label: str, ref: ModelRef, document: Row, nats: float, num_tokens: int) -> Row:
    return {
        "model": label,
        "model_id": ref.id,
        "document": document["id"],
        "part": document["part"],
        "source": document["source"],
        "first_seen": document["first_seen"],
        "nats": nats,
        "num_tokens": num_tokens,
        "size_bytes": len(document["text"].encode()),
    }
