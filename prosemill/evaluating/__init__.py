"""Evaluation: how well models predict text that none of them saw, document by document."""

from prosemill.evaluating.examiner import ModelRef
from prosemill.evaluating.stage import STAGE_VERSION, evaluate

__all__ = ["STAGE_VERSION", "ModelRef", "evaluate"]
