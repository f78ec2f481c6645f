"""Does a text sound like the corpus? A logistic regression on the frequencies of the commonest words.

The commonest words are function words: they tell an author whatever the subject (Mosteller & Wallace 1964, Burrows
2002), where a classifier on all words would only tell the subject. In Chinese, Japanese, Korean and Thai they are
characters.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from prosemill.text.words import words

COMMONEST = 100
PASSAGE_WORDS = 100
LEAST_PASSAGES = 10  # of each kind; fewer teach nothing
FOLDS = 5

Floats = npt.NDArray[np.float64]


def passages(texts: Sequence[str]) -> list[list[str]]:
    """The words of the texts, joined and cut into passages of equal length; the rest is left out."""
    joined = [word for text in texts for word in words(text)]
    return [joined[start : start + PASSAGE_WORDS] for start in range(0, len(joined) - PASSAGE_WORDS + 1, PASSAGE_WORDS)]


class Style:
    """A classifier of corpus text against general text. `quality` is its area under the ROC curve, cross-validated."""

    def __init__(self, corpus: Sequence[str], general: Sequence[str]) -> None:
        """Raises ValueError, for a person, where there is too little text or no scikit-learn."""
        if importlib.util.find_spec("sklearn") is None:
            raise ValueError("scikit-learn is not installed: pip install scikit-learn")
        own, other = passages(corpus), passages(general)
        if min(len(own), len(other)) < LEAST_PASSAGES:
            raise ValueError(
                f"{len(own)} passages of the corpus and {len(other)} of general text; it takes {LEAST_PASSAGES} of "
                f"{PASSAGE_WORDS} words each (evaluate.other_kilobytes)"
            )
        counted = Counter(word for passage in own for word in passage)
        counted += Counter(word for passage in other for word in passage)
        self.common = [word for word, _ in counted.most_common(COMMONEST)]
        features = self._features([*own, *other])
        labels = np.array([1] * len(own) + [0] * len(other))
        self._model, self.quality = _fit(features, labels)
        self.num_passages = len(labels)

    def score(self, texts: Sequence[str]) -> float | None:
        """Mean probability (0 to 1) that passages of the texts are the corpus's; None when they make no passage."""
        pieces = passages(texts)
        if not pieces:
            return None
        return float(self._model.predict_proba(self._features(pieces))[:, 1].mean())

    def _features(self, pieces: Sequence[Sequence[str]]) -> Floats:
        counts = [Counter(passage) for passage in pieces]
        return np.array([[count[word] / PASSAGE_WORDS for word in self.common] for count in counts])


def _fit(features: Floats, labels: npt.NDArray[np.int64]) -> tuple[Any, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    quality = float(cross_val_score(model, features, labels, cv=folds, scoring="roc_auc").mean())
    return model.fit(features, labels), quality
