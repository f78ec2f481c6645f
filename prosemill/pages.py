"""The same values as Markdown, for the run's page in the Prefect UI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prosemill import report
from prosemill.storage import Store


def lineage_markdown(store: Store, snapshots: Sequence[str]) -> str:
    """These snapshots and all their ancestors as a table, and as a mermaid graph, which not every page draws."""
    edges, seen = _ancestry(store, snapshots)
    nodes = [f'    {_node(snapshot)}["{snapshot}"]' for snapshot in seen]
    arrows = [f"    {_node(parent)} --> {_node(child)}" for parent, child in edges]
    graph = "\n".join(["```mermaid", "graph LR", *nodes, *arrows, "```"])
    rows = [f"| `{child}` | `{parent}` |" for parent, child in edges]
    return "\n".join(["| snapshot | made from |", "|---|---|", *rows, "", graph])


def _ancestry(store: Store, snapshots: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    edges: list[tuple[str, str]] = []
    seen: dict[str, None] = {}
    todo = list(snapshots)
    while todo:
        child = todo.pop(0)
        if child in seen:
            continue
        seen[child] = None
        if not store.has(child):
            continue
        for parent in store.manifest(child).parents:
            edges.append((parent, child))
            todo.append(parent)
    return edges, list(seen)


def _node(snapshot: str) -> str:
    return snapshot.replace("-", "_")


def samples_markdown(store: Store, evaluation: str) -> str:
    """Per prompt, what each model writes with the same seed."""
    parts = []
    for sample in report.read_json(store, evaluation, "samples"):
        parts.append(f"### {_inline(sample['prompt'])}\n")
        parts += [f"**{label}**\n\n{_quote(text)}\n" for label, text in sample["texts"].items()]
    return "\n".join(parts)


def decision_markdown(store: Store, decision: str, model: str) -> str:
    fields = report.read_json(store, decision, "decision")
    told = ("verdict", "reason", "slices")
    rows = [f"| {key} | {_cell(value)} |" for key, value in fields.items() if key not in told]
    slices = [
        f"| {each['slice']} | {_cell(each['asks'])} | {each['answer']} | {_cell(each['why'])} |"
        for each in fields.get("slices", [])
    ]
    tests = ["", "| slice | asked | answer | why |", "|---|---|---|---|", *slices] if slices else []
    return "\n".join(
        [f"## {model}: {fields['verdict']}", "", fields["reason"], "", "| | |", "|---|---|", *rows, *tests]
    )


def outcome_markdown(outcome: Mapping[str, Any]) -> str:
    """The whole run in one screen: verdict, scores, funnel, times."""
    lines = [
        f"## {outcome['verdict']}",
        "",
        outcome["reason"],
        "",
        "| model | perplexity | bits per byte |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row['model']} | {with_interval(row, 'perplexity', 2)} | {with_interval(row, 'bits_per_byte', 4)} |"
        for row in outcome["scores"]
    ]
    lines += ["", "| stage | seen | kept | dropped | made |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in funnel_rows(outcome["funnel"])]
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in outcome["seconds"].items())
    return "\n".join([*lines, "", f"Time: {times}", "", f"Model: {outcome['model']}"])


def funnel_rows(funnel: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The funnel with the same five columns for every stage."""
    return [
        {
            "stage": report.stage_name(row),
            "seen": row["seen"],
            "kept": row["kept"],
            "dropped": report.reasons(row["dropped"]),
            "made": report.made(row),
        }
        for row in funnel
    ]


def score_rows(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Scores with their intervals, rounded for people."""
    return [
        {
            "model": row["model"],
            "perplexity": with_interval(row, "perplexity", 2),
            "bits per byte": with_interval(row, "bits_per_byte", 4),
            "documents": row["documents"],
        }
        for row in scores
    ]


def with_interval(row: Mapping[str, Any], key: str, digits: int) -> str:
    """ "12.31 [11.90, 12.75]" """
    text = f"{row[key]:.{digits}f}"
    if low_high := row.get(f"{key}_interval"):
        text += f" [{low_high[0]:.{digits}f}, {low_high[1]:.{digits}f}]"
    return text


def _inline(text: str) -> str:
    return " ".join(text.split())


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def _cell(value: Any) -> str:
    if isinstance(value, list):
        if not value or isinstance(value[0], str):
            return ", ".join(value) or "none"
        return " to ".join(_cell(each) for each in value)
    if isinstance(value, float):
        return f"{value:.4f}"
    return str(value).replace("|", "\\|").replace("\n", " ")
