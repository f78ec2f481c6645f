"""Fine-tuning: chunks and a base in, a plain Hugging Face directory out.

`stage` runs in the caller's process and needs no torch; `child` trains. Modules that only compute (attention, loss,
learner, ways, rates, batches, checkpoints, plan, trainer) need torch, transformers and accelerate and nothing else:
hence nothing is imported here before it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prosemill.finetune.stage import finetune, identity_settings

__all__ = ["finetune", "identity_settings"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from prosemill.finetune import stage

    return getattr(stage, name)
