"""Fine-tuning: chunks and a base in, a plain Hugging Face directory out."""

from prosemill.finetune.stage import STAGE_VERSION, finetune, identity_settings

__all__ = ["STAGE_VERSION", "finetune", "identity_settings"]
