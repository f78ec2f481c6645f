"""What perplexity does not see: whether a model copies, repeats itself, gives secrets away, and has the style."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prosemill.config.settings import Evaluate
from prosemill.evaluation.continuations import BEGUN, CANARY, NATURAL, RECITED, Continuation, gives_away, natural_texts
from prosemill.evaluation.copying import CopyFinder
from prosemill.evaluation.documents import GENERAL, TEST, TRAIN
from prosemill.evaluation.repetition import distinct, repetition
from prosemill.evaluation.style import Style

log = logging.getLogger(__name__)

Row = dict[str, Any]
WORDS_A_TOKEN = 0.75  # of English under a large vocabulary; how long the natural continuations are need not be exact


def quality_of(
    continuations: Mapping[str, Sequence[Continuation]],
    rows: Sequence[Row],
    training: Iterable[Row],
    settings: Evaluate,
) -> dict[str, Any]:
    """`models` by label, `natural` (the same of what people wrote), `style` (how far the classifier is to be trusted).

    `rows` are the scored documents, `training` all training documents, read once.
    """
    test = [row for row in rows if row["part"] == TEST][: max(settings.continuations, 1)]
    natural = natural_texts(test, int(settings.sample_tokens * WORDS_A_TOKEN))
    texts = [
        (label, continuation.kind, continuation.text)
        for label, written in continuations.items()
        for continuation in written
    ]
    texts += [(NATURAL, NATURAL, text) for text in natural]
    verbatim = CopyFinder([text for _, _, text in texts])
    verbatim.read(training)
    style, about = _style(rows)
    sources = sorted({run.source for run in verbatim.runs})
    models = {}
    for label, written in continuations.items():
        numbers = {kind: _numbers(texts, label, kind) for kind in (BEGUN, RECITED)}
        begun = [continuation.text for continuation in written if continuation.kind == BEGUN]
        models[label] = {
            **writing_figures(begun, style),
            **_copying_of(verbatim, numbers, sources),
            **_canaries_of(written),
            "continuations": sum(map(len, numbers.values())),
        }
    own = {NATURAL: _numbers(texts, NATURAL, NATURAL)}
    return {
        "models": models,
        "natural": {**writing_figures(natural, style), **_copying_of(verbatim, own, sources)},
        "style": about,
    }


def writing_figures(texts: Sequence[str], style: Style | None) -> Row:
    return {
        "repetition": repetition(texts),
        "distinct_1": distinct(texts, 1),
        "distinct_2": distinct(texts, 2),
        "style": style.score(texts) if style else None,
    }


def _copying_of(verbatim: CopyFinder, numbers: Mapping[str, Sequence[int]], sources: Sequence[str]) -> Row:
    """`copied` is that of the kind of continuation that copies more; the runs are those of all."""
    shares = {kind: verbatim.copied(indices) for kind, indices in numbers.items()}
    together = [number for indices in numbers.values() for number in indices]
    longest = verbatim.longest(together)
    by_source = {source: verbatim.copied(together, source) for source in sources}
    return {
        "copied": max(shares.values(), default=0.0),
        "copied_by_kind": shares,
        "copied_by_source": {source: share for source, share in by_source.items() if share},
        "longest_run_words": longest.size if longest else 0,
        "longest_run": verbatim.quote(longest) if longest else "",
        "longest_run_source": longest.source if longest else "",
    }


def _canaries_of(continuations: Sequence[Continuation]) -> Row:
    canaries = [canary for canary in continuations if canary.kind == CANARY]
    given_away = [canary.document for canary in canaries if gives_away(canary.document, canary.text)]
    return {"canaries": len(canaries), "canaries_given_away": given_away}


def _numbers(texts: Sequence[tuple[str, str, str]], label: str, kind: str) -> list[int]:
    return [number for number, (of, is_kind, _) in enumerate(texts) if of == label and is_kind == kind]


def _style(rows: Sequence[Row]) -> tuple[Style | None, Row]:
    of = {part: [row["text"] for row in rows if row["part"] == part] for part in (TRAIN, GENERAL)}
    try:
        style = Style(of[TRAIN], of[GENERAL])
    except ValueError as reason:
        return None, {"quality": None, "passages": 0, "reason": str(reason)}
    return style, {"quality": style.quality, "passages": style.num_passages, "reason": ""}


def harness_scores(folders: Mapping[str, Path], settings: Evaluate) -> dict[str, Any]:
    """Results of lm-evaluation-harness (Gao et al. 2021) by label and task; {} when no task is asked for."""
    if not settings.lm_eval_tasks:
        return {}
    if not _is_installed("lm_eval"):
        reason = "lm-eval is not installed, so evaluate.lm_eval_tasks were not run: pip install lm-eval"
        log.warning(reason)
        return {"reason": reason}
    import lm_eval

    results = {}
    for label, folder in folders.items():
        done = lm_eval.simple_evaluate(
            model="hf",
            model_args=f"pretrained={folder}",
            tasks=list(settings.lm_eval_tasks),
            limit=settings.lm_eval_limit,
        )
        results[label] = {
            task: {name: value for name, value in scores.items() if isinstance(value, int | float)}
            for task, scores in done["results"].items()
        }
    return results


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it was imported and has no spec
        return False
