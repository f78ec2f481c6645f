"""Continuing a text with a model, in a way that can be repeated.

Top-k as in Fan et al. 2018, top-p as in Holtzman et al. 2020, repetition penalty as in Keskar et al. 2019 (over prompt
and continuation), by transformers' processors; only top-k is torch's, which leaves no vocabulary to sort: 16 rows of
8,192 take .6 ms a token here and 8.2 ms by transformers' four in a row. The candidates are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prosemill.config.settings import Write
from prosemill.models import bases, loading

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def generate(folder: Path, prompt: str, settings: Write, *, seed: int, num_samples: int = 1) -> list[str]:
    """`num_samples` texts that begin with `prompt`, by the model in `folder`. The same seed writes the same texts."""
    return Writer(folder).write(prompt, settings, seed=seed, num_samples=num_samples)


class Writer:
    """A model and its tokenizer, loaded once."""

    def __init__(self, folder: Path) -> None:
        from prosemill.models.inference import for_inference

        self.folder = folder
        self.tokenizer = bases.load_tokenizer(folder)
        self.end_of_text = bases.end_of_text_id(folder)
        self.context_tokens = bases.resolve(str(folder), need_weights=False).context_tokens
        self.device = loading.device()
        self.model = for_inference(loading.load_model(folder).to(self.device))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, no special ones added."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def write(self, prompt: str, settings: Write, *, seed: int, num_samples: int = 1) -> list[str]:
        """Texts that begin with `prompt` and end before an end-of-text or after `max_new_tokens`."""
        ids = [self.end_of_text, *self.encode([prompt])[0]]
        if len(ids) > self.context_tokens:
            log.warning(
                "the prompt has %d tokens and the model reads %d: only its end is used", len(ids), self.context_tokens
            )
            ids = ids[-self.context_tokens :]
        before = self.decode(ids)
        texts = []
        for new in self.continue_together([ids] * num_samples, settings, seed=seed):
            whole = self.decode(ids + new)  # together: some tokenizers drop the space that a text begins with
            texts.append(prompt + (whole[len(before) :] if whole.startswith(before) else self.decode(new)))
        return texts

    def continue_together(self, rows: Sequence[Sequence[int]], settings: Write, *, seed: int) -> list[list[int]]:
        """New ids of each row, up to its end-of-text; the rows, all of one length, go through the model as one batch.

        The global random state is neither read nor changed.
        """
        import torch

        from prosemill.models.kv_cache import with_room

        generator = torch.Generator(self.device).manual_seed(seed)
        text = window = unread = torch.tensor(rows, device=self.device)
        cache = None
        done = torch.zeros(len(rows), dtype=torch.bool, device=self.device)
        with torch.inference_mode():
            for _ in range(settings.max_new_tokens):
                if window.shape[1] > self.context_tokens:  # full: go on from its second half
                    window = unread = window[:, -(self.context_tokens // 2) :]
                    cache = None
                output = self.model(input_ids=unread, past_key_values=cache, use_cache=True)
                chosen = choose(output.logits[:, -1].float(), text, settings, generator)
                chosen = chosen.masked_fill(done, self.end_of_text)[:, None]
                text, window = torch.cat([text, chosen], dim=1), torch.cat([window, chosen], dim=1)
                done |= chosen[:, 0] == self.end_of_text
                if bool(done.all()):
                    break
                output_cache = getattr(output, "past_key_values", None)
                cache = with_room(output_cache) if cache is None else output_cache
                unread = window if cache is None else chosen
        return [self._until_end(new) for new in text[:, len(rows[0]) :].tolist()]

    def _until_end(self, new: list[int]) -> list[int]:
        return new[: new.index(self.end_of_text)] if self.end_of_text in new else new

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


def choose(logits: torch.Tensor, text: torch.Tensor, settings: Write, generator: torch.Generator) -> torch.Tensor:
    """One id [samples] for each row of `logits` [samples, vocabulary] after `text` [samples, ids]: the likeliest at
    temperature 0, else drawn."""
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

    if settings.repetition_penalty != 1:
        logits = RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)(text, logits)
    if settings.temperature == 0:
        return logits.argmax(dim=-1)
    logits = TemperatureLogitsWarper(settings.temperature)(text, logits)
    if settings.top_k:
        ordered, order = torch.topk(logits, min(settings.top_k, logits.shape[-1]))
    else:
        ordered, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    if settings.top_p < 1:
        ordered = TopPLogitsWarper(settings.top_p)(text, ordered)
    drawn = torch.multinomial(ordered.softmax(dim=-1), 1, generator=generator)
    return order.gather(1, drawn)[:, 0]
