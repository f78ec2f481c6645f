"""How a document is cut into windows that a model can read, so that each token is scored once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Ids `begin`..`end` of a document (end-of-text first) are read; those from `scored` on are scored."""

    document: int
    begin: int
    end: int
    scored: int

    @property
    def num_inputs(self) -> int:
        """Ids that the model reads: the last one is only predicted."""
        return self.end - self.begin - 1


def windows_of(document: int, num_ids: int, context_tokens: int, stride: int) -> Iterator[Window]:
    """Windows of `context_tokens` ids that advance by `stride`, as in Hugging Face's recipe for perplexity.

    Id 0 is the end-of-text that stands for the beginning: it is context and is never scored.
    """
    step = min(stride, context_tokens - 1)  # a window's first id is never scored, so windows must overlap by one
    begin, scored = 0, 1
    while scored < num_ids:
        end = min(begin + context_tokens, num_ids)
        yield Window(document, begin, end, scored)
        begin, scored = begin + step, end
