"""How well a model predicts texts, as a function, without a store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prosemill.config.settings import Evaluate


@dataclass(frozen=True)
class Scores:
    """One model on some texts: arrays of shape (texts,)."""

    nats: NDArray[np.float64]  # negative log-likelihood of each text, summed over its tokens
    num_tokens: NDArray[np.int64]
    size_bytes: NDArray[np.int64]  # in UTF-8

    @property
    def perplexity(self) -> float:
        """exp(nats a token) over all texts: comparable between models with one tokenizer only."""
        return math.exp(self.nats.sum() / self.num_tokens.sum())

    @property
    def bits_per_byte(self) -> float:
        """Over all texts: comparable whatever the tokenizers."""
        return float(self.nats.sum() / math.log(2) / self.size_bytes.sum())


def score(
    model: Path | str, texts: Sequence[str], *, context_tokens: int | None = None, stride: int | None = None
) -> Scores:
    """Negative log-likelihood of each text under a causal language model, in float32, by sliding windows.

    Args:
        model: A Hugging Face folder, a name on the hub (gpt2 …), or "demo".
        texts: Each is scored by itself, from its first token on, behind an end-of-text.
        context_tokens: Tokens that the model sees at most, from 2; by default as many as it can.
        stride: Tokens by which a window advances, from 1; fewer give each token more context and take longer. By
            default that of `prosemill.config.settings.Evaluate`, or less where the context is shorter.

    A GPU is used where torch sees one. The method is that of Hugging Face's "Perplexity of fixed-length models", where
    each text is a document of its own. BaseModelError for what is not a causal language model; TypeError for one text
    in place of a list; ValueError where there is no text, or a number is out of bounds.

    >>> from prosemill import score
    >>> scores = score("demo", ["The mill stood by the river.", "river the by stood mill The."])
    >>> bool(scores.nats[0] < scores.nats[1]), scores.size_bytes.tolist()
    (True, [28, 28])
    """
    if isinstance(texts, str):
        raise TypeError("score takes a list of texts; put the one text into a list")
    if not texts or not all(texts):
        raise ValueError("score takes texts with at least a character each; leave empty ones out")
    if (context_tokens is not None and context_tokens < 2) or (stride is not None and stride < 1):
        raise ValueError(f"context_tokens = {context_tokens}, stride = {stride}: give at least 2 and 1")
    from prosemill.evaluation.score import score as score_ids
    from prosemill.models import bases
    from prosemill.models.generation import Writer

    settings = Evaluate()
    writer = Writer(bases.resolve(str(model)).folder)
    ids = [[writer.end_of_text, *tokens] for tokens in writer.encode(texts)]
    nats = score_ids(
        writer.model,
        ids,
        context_tokens=min(context_tokens or writer.context_tokens, writer.context_tokens),
        stride=stride or settings.stride,
        batch_windows=settings.batch_windows,
    )
    sizes = np.array([len(text.encode()) for text in texts])
    return Scores(np.array(nats), np.array([len(tokens) - 1 for tokens in ids]), sizes)
