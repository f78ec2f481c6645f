"""Causal language models as folders on disk: what fine-tuning, evaluation and writing all load, in the same way."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prosemill.errors import BaseModelError

log = logging.getLogger(__name__)

# What a folder may hold beside the weights: copied from the base, so that a fine-tuned model is a folder like it.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
)


def load_model(folder: Path, *, dropout: float | None = None) -> Any:
    """The model in `folder` in float32, in evaluation mode, with SDPA attention where it has that.

    `dropout` replaces every dropout of its configuration. Raises BaseModelError: not a causal language model, damaged
    files, or weights that lack some of the model's parameters (they would silently be random).
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with _quiet():
        try:
            import prosemill.models.baselines.modeling  # noqa: F401 - registers "rnn" and "transformer"

            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            for name, value in config.to_dict().items():
                if dropout is not None and _is_dropout(name, value):
                    setattr(config, name, dropout)
            model, report = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BaseModelError(
                f"{folder}: cannot be loaded as a causal language model ({reason}); choose another finetune.base"
            ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise BaseModelError(
            f"{folder}: the weights lack {len(missing)} parameters of the model, such as {missing[0]}; "
            "download the base again or choose another finetune.base"
        )
    return model.eval()


def device() -> str:
    """Where models run on this machine: cuda or cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _is_dropout(name: str, value: object) -> bool:
    return ("dropout" in name or name.endswith("pdrop")) and isinstance(value, (int, float)) and value is not True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars and advice; its errors reach us as exceptions."""
    import transformers.utils.logging as chatter

    verbosity = chatter.get_verbosity()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chatter.set_verbosity(verbosity)
