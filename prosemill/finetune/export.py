"""What a run leaves: a plain Hugging Face folder, the log of its losses, the totals of its manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from prosemill.finetune.loss_wrapper import SummedLoss
from prosemill.finetune.plan import TrainingPlan
from prosemill.finetune.schedule_callback import LogRow, best_step
from prosemill.models import loading


def export(
    learner: SummedLoss, output: Path, tokenizer: Path, history: list[LogRow], plan: TrainingPlan
) -> dict[str, Any]:
    """Write `output`/model and `output`/log.jsonl; the totals of the manifest."""
    folder = output / "model"
    model = learner.restore()
    model.save_pretrained(folder)
    for name in loading.TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, folder / name)
    rows = log_rows(history)
    (output / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    steps = last_step(history)
    trained = [row for row in history if "loss" in row]
    measured = {row["step"]: row["validation_loss"] for row in history if "validation_loss" in row}
    best = best_step(history) or steps
    tokens = sum(row["tokens"] for row in trained)
    seconds = sum(row["tokens"] / row["tokens_per_second"] for row in trained if row["tokens"])
    speed = tokens / seconds if seconds else 0.0
    return {
        "steps": steps,
        "tokens": tokens,
        "tokens_per_second": round(speed, 1),
        "utilisation": round(speed * plan.flops_per_token / plan.peak_flops, 4),
        "precision": plan.mode.precision,
        "learning_rate": plan.learning_rate,
        "train_loss": trained[-1]["loss"],
        "validation_loss_before": measured.get(0),
        "validation_loss": measured.get(best),
        "best_step": best,
        "stopped_early": steps < plan.steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": weights_sha256(folder),
        "plan": plan.as_dict(),
    }


def log_rows(history: list[LogRow]) -> list[LogRow]:
    """One row a step of what is worth keeping of the Trainer's log, in order."""
    kept = ("loss", "learning_rate", "grad_norm", "validation_loss", "tokens_per_second")
    rows: dict[int, LogRow] = {}
    for entry in history:
        values = {name: entry[name] for name in kept if name in entry}
        if values:
            rows.setdefault(entry["step"], {"step": entry["step"]}).update(values)
    return [rows[step] for step in sorted(rows)]


def weights_sha256(folder: Path) -> str:
    """Digest of the weight files of a model, in the order of their names."""
    files = sorted(folder.glob("*.safetensors"))
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()


def last_step(history: list[LogRow]) -> int:
    return max(int(row["step"]) for row in history)
