"""Every number that is recorded with a model version, by one name: MLflow's metrics and the model card's figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MODEL_FIGURES = ("perplexity", "bits_per_byte")
QUALITY = ("copied", "longest_run_words", "repetition", "distinct_1", "distinct_2", "style")
TRAINING = ("tokens", "steps", "parameters", "energy_kwh", "tokens_per_second", "utilisation")


def figures_of(summary: Mapping[str, Any], decision: Mapping[str, Any], totals: Mapping[str, Any]) -> dict[str, float]:
    """By name, such as "challenger.old.bits_per_byte" or "difference.low"; what was not measured is not there.

    `summary` is an evaluation's, `decision` a gate's, `totals` those of the finetune manifest.
    """
    figures: dict[str, Any] = {}
    for label, model in summary["models"].items():
        figures |= _model(label, model)
    quality = summary.get("quality") or {}
    named = {**quality.get("models", {}), "natural": quality.get("natural", {})}
    for label, values in named.items():
        figures |= {f"{label}.{name}": values.get(name) for name in QUALITY}
        given_away = values.get("canaries_given_away")
        figures[f"{label}.canaries_given_away"] = None if given_away is None else len(given_away)
    figures["style.quality"] = quality.get("style", {}).get("quality")
    low, high = decision.get("interval") or (None, None)
    figures |= {
        "difference.bits_per_byte": decision.get("difference_bits_per_byte"),
        "difference.low": low,
        "difference.high": high,
        "gate.use": decision.get("use"),
        "gate.documents": decision.get("documents"),
    }
    figures |= {f"training.{name}": totals.get(name) for name in TRAINING}
    return {name: float(value) for name, value in figures.items() if value is not None}


def _model(label: str, model: Mapping[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name in MODEL_FIGURES:
        figures[f"{label}.{name}"] = model[name]
        low, high = model.get(f"{name}_interval") or (None, None)
        figures |= {f"{label}.{name}.low": low, f"{label}.{name}.high": high}
    cuts = {**model.get("parts", {}), **model.get("slices", {})}
    cuts |= {f"source.{source}": part for source, part in model.get("sources", {}).items()}
    for cut, part in cuts.items():
        if cut != "test":  # that is what the model's own figures are
            figures |= {f"{label}.{cut}.{name}": part[name] for name in MODEL_FIGURES}
    return figures
