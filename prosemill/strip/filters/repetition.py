"""Filter repetition: little of the text repeats other parts of it."""

from __future__ import annotations

from collections.abc import Sequence

from prosemill.strip.filters import Filter, Judged
from prosemill.text.ngrams import ngrams

_MIN_LINES = 8  # below this, two equal lines are half of the document
_RUN_WORDS = 8  # a repeated run this long is not an idiom (Gopher's rules look at 5 to 10)


class RepetitionFilter(Filter):
    name = "repetition"
    position = 30

    def problem(self, text: Judged) -> str:
        share = repeated_share(text.part, text.words)
        return f"{share:.2f} of the text repeats other parts of it" if share > text.settings.max_repetition else ""


def repeated_share(text: str, words: Sequence[str]) -> float:
    """How much of `text`, and of its `words`, repeats other parts of it: the larger of the shares of lines and runs."""
    lines = [line.strip().casefold() for line in text.split("\n") if line.strip()]
    by_lines = 1 - len(set(lines)) / len(lines) if len(lines) >= _MIN_LINES else 0.0
    num_runs = len(words) - _RUN_WORDS + 1
    by_runs = 1 - len(set(ngrams(words, _RUN_WORDS))) / num_runs if num_runs >= 2 * _RUN_WORDS else 0.0
    return max(by_lines, by_runs)
