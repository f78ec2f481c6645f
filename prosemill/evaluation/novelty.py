"""How hard new pages are for the model in use, next to its test pages: asked before training, in a child process.

What the champion reads as easily as text it learned by heart has nothing to teach it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prosemill.config.settings import Evaluate
from prosemill.evaluation.documents import sample
from prosemill.runtime.subprocesses import Message, run_child
from prosemill.storage import corpus
from prosemill.storage.store import Store

Row = dict[str, Any]
SAMPLE_BYTES = 40_000  # of new and of test text: seconds for a small model, a minute for a large one
LEAST_DOCUMENTS = 5  # of each; fewer do not tell
RESAMPLES = 2000
TIMEOUT_SECONDS = 1800.0


@dataclass(frozen=True)
class NoveltyInterval:
    """Bits per byte of the new pages minus those of the test pages, with a 95 % interval; negative: they are easier."""

    difference: float
    low: float
    high: float
    documents: int


def known(
    store: Store, model: Path, corpus_ids: tuple[str, str], new: Set[str], settings: Evaluate, context_tokens: int
) -> NoveltyInterval | None:
    """Compare new training documents (`new`, ids) with test documents under `model`; None where they are too few."""
    dedup, split = corpus_ids

    def new_rows() -> Iterable[Row]:
        return (row for row in corpus.documents_of(store, dedup, split, "train") if row["id"] in new)

    def test_rows() -> Iterable[Row]:
        return corpus.documents_of(store, dedup, split, "test")

    fresh, test = sample(new_rows, SAMPLE_BYTES), sample(test_rows, SAMPLE_BYTES)
    if min(len(fresh), len(test)) < LEAST_DOCUMENTS:
        return None
    texts = [row["text"] for row in [*fresh, *test]]
    nats = _nats(model, texts, settings, context_tokens)
    sizes = [len(text.encode()) for text in texts]
    bits = np.array(nats) / math.log(2)
    at = len(fresh)
    return _difference((bits[:at], np.array(sizes[:at], float)), (bits[at:], np.array(sizes[at:], float)))


def _difference(fresh: tuple[Any, Any], test: tuple[Any, Any]) -> NoveltyInterval:
    """Of two independent samples of documents, by bootstrap: they are different pages, so nothing can be paired."""
    random = np.random.default_rng(0)

    def ratios(bits: Any, sizes: Any) -> Any:
        drawn = random.integers(0, len(bits), (RESAMPLES, len(bits)))
        return bits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)

    low, high = np.quantile(ratios(*fresh) - ratios(*test), [0.025, 0.975])
    value = fresh[0].sum() / fresh[1].sum() - test[0].sum() / test[1].sum()
    return NoveltyInterval(float(value), float(low), float(high), len(fresh[0]))


def _nats(model: Path, texts: Sequence[str], settings: Evaluate, context_tokens: int) -> list[float]:
    job = {
        "folder": str(model),
        "texts": list(texts),
        "context_tokens": context_tokens,
        "stride": settings.stride,
        "batch_windows": settings.batch_windows,
    }
    nats: list[float] = []
    hear: Callable[[Message], None] = lambda message: nats.extend(message.get("nats", []))  # noqa: E731
    run_child("prosemill.evaluation.child", job, timeout_seconds=TIMEOUT_SECONDS, on_line=hear)
    return nats
