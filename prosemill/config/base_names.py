"""The names of the baselines: what a recipe may write as its base beside a folder or a model of the hub."""

from __future__ import annotations

MODEL_TYPES = {"rnn": "prosemill-rnn", "transformer": "prosemill-transformer"}
KINDS = tuple(MODEL_TYPES)


def is_baseline(base: str) -> bool:
    """True for "rnn", "transformer", and either with ":" and a file of word vectors."""
    return base.partition(":")[0] in KINDS
