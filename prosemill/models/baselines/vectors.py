"""Word vectors in the text format of word2vec and GloVe, made into the embedding of a model with sub-word tokens.

A line is a word and its numbers; word2vec puts a line with the count and the width first. Words are not tokens: each
token begins at the mean of the vectors of the words that it spells a part of, weighted by that part (after WECHSEL,
Minixhofer et al. 2022). Tokens in no word keep their random beginning.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Floats = npt.NDArray[np.float32]

MOST_WORDS = 200_000  # the frequent ones come first; the rest would hardly change a mean


def read_vectors(path: Path) -> tuple[list[str], Floats]:
    """The words and their vectors, a row each; ValueError with the line for a file of another kind."""
    words: list[str] = []
    rows: list[Floats] = []
    width = 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            parts = line.rstrip().split(" ")
            if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                continue  # word2vec's count and width
            width = width or len(parts) - 1
            word, values = " ".join(parts[:-width]), parts[-width:]  # a few GloVe words hold spaces
            try:
                row = np.array(values, np.float32)
            except ValueError:
                row = np.zeros(0, np.float32)
            if width < 2 or len(row) != width or not word or not np.isfinite(row).all():
                raise ValueError(f"{path}: line {number} is not a word with {max(width, 2)} numbers behind it")
            words.append(word)
            rows.append(row)
            if len(words) == MOST_WORDS:
                break
    if not words:
        raise ValueError(f"{path}: no word vectors in it")
    return words, np.stack(rows)


def as_embedding(vectors: tuple[list[str], Floats], tokenizer: Tokenizer, random: Floats) -> Floats:
    """An embedding of the shape and spread of `random` (rows of tokens), built from the vectors of whole words."""
    words, rows = vectors
    fitted = _to_width(rows, random.shape[1])
    sums = np.zeros(random.shape, np.float64)
    weights = np.zeros(len(random), np.float64)
    for spelling in (words, [f" {word}" for word in words]):
        encoded = tokenizer.encode_batch_fast(spelling, add_special_tokens=False)
        ids = [np.array(encoding.ids, np.int64) for encoding in encoded]
        places = np.repeat(np.arange(len(ids)), [len(word_ids) for word_ids in ids])
        shares = np.repeat([1 / max(1, len(word_ids)) for word_ids in ids], [len(word_ids) for word_ids in ids])
        tokens = np.concatenate(ids) if ids else np.zeros(0, np.int64)
        np.add.at(sums, tokens, fitted[places] * shares[:, None])
        np.add.at(weights, tokens, shares)
    known = weights > 0
    means = sums[known] / weights[known, None]
    means -= means.mean(axis=0)
    means *= random.std() / max(float(means.std()), 1e-12)
    embedding = random.copy()
    embedding[known] = means.astype(np.float32)
    return embedding


def _to_width(rows: Floats, width: int) -> npt.NDArray[np.float64]:
    """Wider vectors by their principal components; narrower ones with nothing in the other columns."""
    centred = rows.astype(np.float64) - rows.mean(axis=0)
    if rows.shape[1] <= width:
        return np.pad(centred, ((0, 0), (0, width - rows.shape[1])))
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ axes[:, ::-1][:, :width], np.float64)
