"""The model card: README.md of a model version, filled from its snapshots alone.

As on the Hugging Face hub: YAML between dashes, then Markdown (Mitchell et al. 2019). Every figure is one of
`prosemill.registry.metrics`, which the registry records too; the YAML's model-index has them all in full.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prosemill.registry.metrics import figures_of
from prosemill.storage.ancestry import ancestors
from prosemill.storage.decision_record import read_decision
from prosemill.storage.json_shards import read_json
from prosemill.storage.manifest import Manifest, stage_of
from prosemill.storage.store import Store

Figures = Mapping[str, float]
OPT_OUTS = ("ai_opt_out", "noindex", "robots")  # reasons for which a page was left out at its owner's wish


def model_card(store: Store, name: str, version: int, finetune: str, evaluation: str, gate: str) -> str:
    """README.md of version `version` of the model `name`; the arguments are its snapshots."""
    tuned = store.manifest(finetune)
    summary, decided = read_json(store, evaluation, "summary"), read_decision(store, gate)
    figures = figures_of(summary, decided, tuned.totals)
    scrapes = list(_scrapes(store, finetune))
    parts = [
        _front(name, figures, scrapes),
        f"# {name}, version {version}\n",
        f"{_base_sentence(tuned)} {decided['decision'].replace('-', ' ').capitalize()}: {decided['reason']}\n",
        "## Data\n",
        *_data(scrapes),
        "## Scores\n",
        *_scores(figures, summary),
        *_tests(decided),
        "## What it writes\n",
        *_writes(figures),
        "## Training\n",
        *_training(figures, tuned, finetune, evaluation, gate),
        "## Limits\n",
        *_limits(tuned),
    ]
    return "\n".join(parts)


# --- parts -----------------------------------------------------------------------------------------------------------


def _front(name: str, figures: Figures, scrapes: Sequence[Manifest]) -> str:
    licences = sorted({str(scrape.totals.get("licence") or "") for scrape in scrapes} - {""})
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags: [prosemill]"]
    lines += ["license: other", f"license_name: {json.dumps('; '.join(licences) or 'not stated', ensure_ascii=False)}"]
    lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:", "  - task: {type: text-generation}"]
    lines += ["    dataset: {name: held-out documents of the corpus, type: prosemill}", "    metrics:"]
    lines += [
        f"    - {{name: {json.dumps(key)}, type: {json.dumps(key.rsplit('.', 1)[-1])}, value: {value!r}}}"
        for key, value in figures.items()
    ]
    return "\n".join([*lines, "---", ""])


def _base_sentence(tuned: Manifest) -> str:
    start = next((parent for parent in tuned.parents if stage_of(parent) == "finetune"), "")
    return f"Fine-tuned from {f'the earlier model {start}' if start else tuned.settings.get('base', 'a base')}."


def _data(scrapes: Sequence[Manifest]) -> list[str]:
    rows = []
    for scrape in scrapes:
        left_out = sum(scrape.counts.dropped.get(reason, 0) for reason in OPT_OUTS)
        honoured = "honoured" if scrape.settings.get("obey_opt_outs", True) else "not honoured"
        rows.append(
            f"| {scrape.totals.get('source', '')} | {scrape.totals.get('kind', '')} | {scrape.as_of} "
            f"| {scrape.counts.kept} | {scrape.totals.get('licence') or 'not stated'} "
            f"| {left_out} left out, opt-outs {honoured} |"
        )
    head = ["| source | kind | as of | pages | licence | owners' wishes |", "|---|---|---|---|---|---|"]
    return [*head, *rows, ""] if rows else ["No scrape is recorded among its ancestors.", ""]


def _scores(figures: Figures, summary: Mapping[str, Any]) -> list[str]:
    lines = ["| | perplexity | bits per byte | general text | old text | training text |", "|---|---|---|---|---|---|"]
    for label in summary["models"]:
        cells = [
            _with_interval(figures, f"{label}.perplexity", 2),
            _with_interval(figures, f"{label}.bits_per_byte", 4),
        ]
        cells += [_show(figures, f"{label}.{cut}.bits_per_byte", 4) for cut in ("general", "old", "train")]
        lines.append(f"| {'this model' if label == 'challenger' else label} | " + " | ".join(cells) + " |")
    about = (
        "On test documents that no model saw, with 95 % intervals over documents; the last three columns are bits per "
        "byte on samples of other text. Perplexity is per token and only compares models with one tokenizer."
    )
    return [*lines, "", about, ""]


def _tests(decision: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {row['slice']} | {row['asks']} | {row['answer']} | {row['why']} |" for row in decision.get("slices", [])
    ]
    return ["| slice | asked | answer | why |", "|---|---|---|---|", *rows, ""] if rows else []


def _writes(figures: Figures) -> list[str]:
    names = {
        "copied": "share of 13-word runs that stand in the training text",
        "longest_run_words": "longest run of words that stands in the training text",
        "repetition": "share of 4-word runs repeated within a text",
        "distinct_2": "different word pairs over all",
        "style": "probability that a passage is the corpus's, by its commonest words",
    }
    rows = [
        f"| {text} | {_show(figures, f'challenger.{name}', 3)} | {_show(figures, f'natural.{name}', 3)} |"
        for name, text in names.items()
        if f"challenger.{name}" in figures
    ]
    return (
        ["| | this model | people, on the test pages |", "|---|---|---|", *rows, ""] if rows else ["Not measured.", ""]
    )


def _training(figures: Figures, tuned: Manifest, *snapshots: str) -> list[str]:
    energy = _show(figures, "training.energy_kwh", 6)
    source = tuned.totals.get("energy_source")
    lines = [
        f"- {_whole(figures, 'training.tokens')} tokens in {_whole(figures, 'training.steps')} steps, "
        f"{_whole(figures, 'training.parameters')} parameters",
        f"- energy: {energy} kWh ({source})" if source else "- energy: could not be read on that machine",
        f"- code: commit {tuned.code_commit or 'unknown'}; "
        f"snapshots {', '.join(f'`{snapshot}`' for snapshot in snapshots)}",
        f"- weights: SHA-256 {tuned.totals.get('weights_sha256', 'unknown')}; `prosemill reproduce {snapshots[0]}`",
    ]
    settings = {key: value for key, value in tuned.settings.items() if key != "base"}
    return [*lines, f"- settings: `{json.dumps(settings, ensure_ascii=False)}`", ""]


def _limits(tuned: Manifest) -> list[str]:
    return [
        "It writes in the manner of the corpus above and knows nothing beyond it and its base. It states falsehoods as",
        "fluently as facts. Its scores hold for pages like the test pages, not for other subjects or languages; what",
        "it may copy was measured on a sample of continuations only. Personal data that its filters did not recognise",
        f"can be in its training text. Seed {tuned.settings.get('seed', 0)}; another seed gives another model.",
        "",
    ]


# --- helpers ---------------------------------------------------------------------------------------------------------


def _scrapes(store: Store, snapshot: str) -> Iterator[Manifest]:
    """The newest scrape of each source among the ancestors, by name."""
    newest: dict[str, Manifest] = {}
    for manifest in ancestors(store, [snapshot]):
        source = str(manifest.totals.get("source", ""))
        if manifest.stage == "scrape" and (source not in newest or newest[source].as_of < manifest.as_of):
            newest[source] = manifest
    yield from (newest[source] for source in sorted(newest))


def _show(figures: Figures, name: str, digits: int) -> str:
    value = figures.get(name)
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 2 else f"{value:.{digits}f}"


def _whole(figures: Figures, name: str) -> str:
    return f"{figures[name]:,.0f}" if name in figures else "unknown"


def _with_interval(figures: Figures, name: str, digits: int) -> str:
    text = _show(figures, name, digits)
    if f"{name}.low" in figures:
        text += f" [{figures[f'{name}.low']:.{digits}f}, {figures[f'{name}.high']:.{digits}f}]"
    return text
