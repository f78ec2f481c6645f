"""What a model writes when it is measured: how test documents go on, how training documents go on, how canaries end.

*begun*: the first words of test documents, drawn in the manner of writing; repetition and style are measured on these.
*recited*: a place within training documents, continued greedily, which is how memorised text comes out (Carlini et al.
2023); copying is measured on these and on the former. *canary*: a sentence planted in the training text to see whether
the model gives it away (Carlini et al. 2019).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prosemill.config.settings import Evaluate, Write
from prosemill.evaluation.documents import TEST, TRAIN
from prosemill.storage.manifest import digest
from prosemill.text.words import words

if TYPE_CHECKING:
    from prosemill.models.generation import Writer

Row = dict[str, Any]

BEGUN, RECITED, CANARY, NATURAL = "begun", "recited", "canary", "natural"
PREFIX_TOKENS = 32  # Carlini et al. take 50; a chunk of a tiny base has 64


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a place in the document of that id; after the first half of the canary `document`."""

    kind: str
    document: str
    text: str


def prompt_documents(rows: Sequence[Row], count: int) -> dict[str, list[Row]]:
    """Which documents are continued, by kind: the first `count` by a digest of the id, nearly the same every run."""
    ordered = sorted(rows, key=lambda row: digest(row["id"]))
    return {
        kind: [row for row in ordered if row["part"] == part][:count]
        for kind, part in ((BEGUN, TEST), (RECITED, TRAIN))
    }


def continue_all(
    writer: Writer,
    documents: Mapping[str, Sequence[Row]],
    canaries: Sequence[str],
    settings: Evaluate,
    chunk_tokens: int,
) -> list[Continuation]:
    """Continuations of all kinds by one model; documents too short for it are left out."""
    drawn = Write(max_new_tokens=settings.sample_tokens, repetition_penalty=1.0)
    continuations = []
    for kind, manner in ((BEGUN, drawn), (RECITED, _greedy(settings.sample_tokens))):
        begun = {row["id"]: ids for row in documents[kind] if (ids := _prefix(writer, row, kind, chunk_tokens))}
        if begun:
            new = writer.continue_together(list(begun.values()), manner, seed=settings.sample_seed)
            continuations += [Continuation(kind, id, writer.decode(ids)) for id, ids in zip(begun, new, strict=True)]
    return [*continuations, *(_end_of(writer, canary) for canary in canaries)]


def gives_away(canary: str, continuation: str) -> bool:
    """True when the second half of the canary was written, to its last word."""
    _, secret = halves(canary)
    wanted = words(secret)
    return bool(wanted) and words(continuation)[: len(wanted)] == wanted


def halves(canary: str) -> tuple[str, str]:
    """What the model is told of a canary, and what it must not tell: cut between words where there are spaces."""
    parts = canary.split(" ")
    if len(parts) > 1:
        return " ".join(parts[: len(parts) // 2]), " ".join(parts[len(parts) // 2 :])
    return canary[: len(canary) // 2], canary[len(canary) // 2 :]


def natural_texts(rows: Sequence[Row], num_words: int) -> list[str]:
    """How the test documents really go on, as far as a model would: people too quote what stands elsewhere."""
    return [" ".join(words(row["text"])[PREFIX_TOKENS : PREFIX_TOKENS + num_words]) for row in rows]


def _prefix(writer: Writer, row: Row, kind: str, chunk_tokens: int) -> list[int]:
    """PREFIX_TOKENS ids of the document; [] for a shorter one.

    Of a training document those with which a piece of it began in training: a model with learned positions that knows a
    text by heart can only say it from there.
    """
    (ids,) = writer.encode([row["text"]])
    if len(ids) <= PREFIX_TOKENS:
        return []
    if kind == BEGUN:
        return [writer.end_of_text, *ids[: PREFIX_TOKENS - 1]]
    start = random.Random(row["id"]).randrange(0, max(1, len(ids) - 2 * PREFIX_TOKENS), chunk_tokens)
    return ids[start : start + PREFIX_TOKENS]


def _end_of(writer: Writer, canary: str) -> Continuation:
    prompt, _ = halves(canary)
    manner = _greedy(len(writer.encode([canary])[0]) + 8)
    (text,) = writer.write(prompt, manner, seed=0)
    return Continuation(CANARY, canary, text[len(prompt) :])


def _greedy(max_new_tokens: int) -> Write:
    return Write(max_new_tokens=max_new_tokens, temperature=0, repetition_penalty=1)
