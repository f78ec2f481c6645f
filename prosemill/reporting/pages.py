"""Pages of a run in the Prefect UI, as Markdown.

Links are paths on the server that shows the page, whatever it is called from outside. Text that came from pages or
models is escaped by `plain`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import regex

from prosemill.gate.stage import read_scores
from prosemill.reporting import plots, summary
from prosemill.reporting.graph import Graph
from prosemill.storage import run_log
from prosemill.storage import stages as stage_table
from prosemill.storage.decision_record import read_decision
from prosemill.storage.json_shards import read_json
from prosemill.storage.run_log import RunLog, StageRecord
from prosemill.storage.store import Store

# A model may write any byte. PostgreSQL refuses NUL in JSON; Prefect would lose that event and others of its batch.
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {0x7F: 0x2421}
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")  # all of ASCII's: each of them may be escaped in Markdown

# The artifacts of a recipe named x are x-funnel …, and x itself, its landing page; new versions on every run.
KINDS = {
    "report": "the last run on one page",
    "funnel": "from pages to chunks",
    "ledger": "what became of every URL",
    "scores": "scores with intervals",
    "plots": "loss curve and perplexity",
    "samples": "samples before and after",
    "decision": "the gate's decision",
    "lineage": "what was made from what",
}


def run_link(id: str, text: str = "") -> str:
    return f"[{plain(text or id)}](/v2/runs/flow-run/{id})"


def key_link(key: str, text: str) -> str:
    """To the artifact of that key, with all its versions."""
    return f"[{plain(text)}](/v2/artifacts/key/{key})"


def links_to_others(name: str, but: str = "") -> str:
    """One line of links to the other artifacts of a recipe."""
    kinds = [key_link(f"{name}-{kind}", kind) for kind in KINDS if kind != but]
    return " · ".join([key_link(name, f"{name} over time") if but else "", *kinds]).removeprefix(" · ")


def visible(text: str) -> str:
    """Control characters as the signs that stand for them."""
    return text.translate(_CONTROLS)


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(visible(text).split()))


def unbroken(text: str) -> str:
    """A date or a number with its interval, kept on one line of a narrow column."""
    return text.replace("-", "\u2011").replace(" ", "\u00a0")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> str:
    """Cells are Markdown; the columns in `numbers` are flush right."""
    rule = ["---:" if name in numbers else "---" for name in header]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def lineage_markdown(store: Store, graph: Graph) -> str:
    """What was made from what, as a picture and as a table with links to the runs that made it."""
    runs = {node.run: run_log.read(store, node.run) for node in graph.nodes if node.run}
    rows = [
        [
            f"`{node.id}`",
            unbroken(node.as_of),
            plain(node.output),
            "<br>".join(f"`{parent}`" for parent in graph.parents_of(node.id)) or _origins(node.origins),
            run_link(node.run, log.title if (log := runs[node.run]) else "its run") if node.run else "",
        ]
        for node in graph.nodes
        if not node.number
    ]
    header = ("snapshot", "as of", "holds", "made from", "made by")
    return "\n".join([_mermaid(graph), "", table(header, rows), "", "`prosemill trace SNAPSHOT` follows each further."])


def _mermaid(graph: Graph) -> str:
    short = {node.id: f"n{place}" for place, node in enumerate(graph.nodes)}
    lines = ["```mermaid", "graph TB"]  # top to bottom: left to right, nine stages are shrunk to the width of the page
    for node in graph.nodes:
        title = f"{node.number:,} × {node.stage}" if node.number else node.stage
        output = node.output.split(", ")[0]
        lines.append(f'    {short[node.id]}["<b>{title}</b>{f"<br/>{_label(output)}" if output else ""}"]')
        if node.run:
            lines.append(f'    click {short[node.id]} "/v2/runs/flow-run/{node.run}" "{node.id}"')
        if node.origins:
            lines.append(f'    o{short[node.id]}(["{_label(node.origins[0])}"]) --> {short[node.id]}')
    lines += [f"    {short[parent]} --> {short[child]}" for parent, child in graph.edges]
    return "\n".join([*lines, "```"])


def _label(text: str) -> str:
    """Text inside a box of a mermaid graph, in which a quotation mark would end the box."""
    inline = " ".join(text.split())
    cut = inline if len(inline) <= 40 else f"{inline[:39]}…"
    return str(regex.sub(r"[^\p{L}\p{M}\p{N}_ ,./:×…-]", "_", cut))


def _origins(origins: Sequence[str]) -> str:
    links = [f"<{origin}>" if re.fullmatch(r"https?://[^\s<>]+", origin) else plain(origin) for origin in origins[:5]]
    return "<br>".join([*links, *([f"and {len(origins) - 5:,} more"] if len(origins) > 5 else [])])


def samples_markdown(store: Store, evaluation: str) -> str:
    """Per prompt, what each model writes with the same seed."""
    parts = []
    for sample in read_json(store, evaluation, "samples"):
        parts.append(f"### {plain(sample['prompt'])} …\n")
        parts += [f"**{label}**\n\n{_quote(text)}\n" for label, text in sample["texts"].items()]
    return "\n".join(parts) or "No sample was asked for."


def plots_markdown(store: Store, finetune: str, evaluation: str) -> str:
    """Loss by step, the perplexities of the models side by side, and what each makes of newer pages."""
    with store.open(f"{finetune}/log.jsonl") as file:
        rows = [json.loads(line) for line in file.read().decode().splitlines()]
    loss, models = plots.loss_curve(rows), plots.perplexities(summary.score_table(store, evaluation))
    parts = ["## Loss", "", plots.markdown(loss, "Training and validation loss by step") or "Nothing was logged."]
    parts += ["", "## Perplexity", "", plots.markdown(models, "Perplexity of the models")]
    scores = read_json(store, evaluation, "summary")
    if fresh := plots.freshness(scores["models"], scores.get("dates", {})):
        parts += ["", "## Freshness", "", plots.markdown(fresh, "Bits per byte on the pages of each week, by model")]
        parts += ["", "Where a model's circles are hollow, it had not learned from pages of that week."]
    return "\n".join(parts)


def decision_markdown(store: Store, gate: str, model: str) -> str:
    """Decision, reason, the numbers behind it, and the test documents one by one."""
    fields = read_decision(store, gate)
    rows = [
        [key.replace("_", " "), _cell(value)]
        for key, value in fields.items()
        if key not in ("decision", "reason", "slices")
    ]
    (evaluation, *_) = store.manifest(gate).parents
    picture = plots.by_document(read_scores(store, evaluation), fields["against"])
    against = fields["against"]
    parts = [f"## {plain(model)}: {fields['decision']}", "", plain(fields["reason"]), "", table(("number", ""), rows)]
    slices = [[row["slice"], _cell(row["asks"]), row["answer"], _cell(row["why"])] for row in fields.get("slices", [])]
    if slices:
        parts += ["", table(("slice", "asked", "answer", "why"), slices)]
    parts += ["", "### Document by document", ""]
    parts += [f"Below the line are documents that the challenger predicts better than the {against}.", ""]
    return "\n".join([*parts, plots.markdown(picture, f"Each test document: challenger against {against}")])


def report_markdown(report: Mapping[str, Any], stages: Sequence[StageRecord] = ()) -> str:
    """The whole run in one screen: decision, scores, funnel, what was found and what was made, where to look on."""
    name = report["recipe"]
    models = [
        [row["model"], with_interval(row, "perplexity", 2), with_interval(row, "bits_per_byte", 4)]
        for row in report["scores"]
    ]
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report["seconds"].items())
    parts = [
        f"## {report['decision']}: {plain(report['model'])}", "", plain(report["reason"]), "",
        "A source could not be read to its end: this run is partial.\n" if report["partial"] else "",
        table(("model", "perplexity", "bits per byte"), models), "",
        funnel_markdown(report["funnel"]), "",
        f"Time: {times}", "",
    ]  # fmt: skip
    return "\n".join([*parts, stages_markdown(stages), "", links_to_others(name, but="report")])


def funnel_markdown(funnel: Sequence[Mapping[str, Any]]) -> str:
    rows = [[plain(str(value)) for value in row.values()] for row in funnel_rows(funnel)]
    return table(("stage", "seen", "kept", "dropped", "made"), rows, numbers=("seen", "kept"))


def stages_markdown(stages: Sequence[StageRecord]) -> str:
    """Which stages were cache hits and which were made anew."""
    rows = [[record.stage, record.cache, f"{record.seconds:,.1f}", f"`{record.snapshot}`"] for record in stages]
    return table(("stage", "cache", "seconds", "snapshot"), rows, numbers=("seconds",)) if rows else ""


def failure_markdown(store: Store, run: RunLog, stages: Sequence[StageRecord]) -> str:
    """What a run reached that did not come to its end, and why it did not."""
    reached = stages_markdown(stages) or "No stage was complete."
    counted = [row.snapshot for row in stages if stage_table.of(row.stage).flow == stage_table.BUILD_CORPUS]
    funnel = funnel_markdown(summary.funnel_of(store, counted)) if counted else ""
    parts = [f"## {run.state.lower()}", "", plain(run.reason), "", "### What it reached", "", reached, "", funnel, ""]
    again = "What is complete is kept: the same run started again goes on from there."
    return "\n".join([*parts, again, "", links_to_others(run.recipe, but="report")])


def funnel_rows(funnel: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The funnel with the same five columns for every stage."""
    return [
        {
            "stage": summary.stage_name(row),
            "seen": row["seen"],
            "kept": row["kept"],
            "dropped": summary.reasons(row["dropped"]),
            "made": summary.output_of(row),
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


def _quote(text: str) -> str:
    """Line by line as it was written: two spaces at the end are a line break."""
    lines = [plain(line) for line in text.splitlines()] or [""]
    return "\n".join(f"> {line}  " for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        if not value or isinstance(value[0], str):
            return ", ".join(value) or "none"
        return " to ".join(_cell(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4f}"
    return plain(str(value))
