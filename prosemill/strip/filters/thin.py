"""Filter thin: the text is long enough to learn from."""

from __future__ import annotations

from prosemill.strip.filters import Filter, Judged


class ThinFilter(Filter):
    name = "thin"
    position = 10

    def problem(self, text: Judged) -> str:
        return f"{len(text.words)} words" if len(text.words) < text.settings.min_words else ""
