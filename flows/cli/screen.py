"""Output of the command: progress while it works, one summary at the end."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from prosemill.runtime import progress

if TYPE_CHECKING:
    from prosemill.lineage.explain import RunExplanation
    from prosemill.lineage.page_history import PageHistory

SIDE_BY_SIDE_CHARACTERS = 1200  # of two texts that are compared: a screenful
LINE_SECONDS = 10  # without a terminal, a line at most this often

WIDTH = 120  # of a file or pipe, which has none; a table folded at 80 is hard to read


class Screen:
    """Standard output or error. It looks for a terminal when something is first printed, not when it is imported."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._stderr = stderr

    @functools.cached_property
    def console(self) -> Console:
        width = None if self._stderr or sys.stdout.isatty() else WIDTH
        return Console(stderr=self._stderr, highlight=False, soft_wrap=True, width=width)

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's Console prints."""
        self.console.print(*objects, **options)

    def print_json(self, *arguments: Any, **options: Any) -> None:
        self.console.print_json(*arguments, **options)


errors, output = Screen(stderr=True), Screen()


@contextmanager
def showing_progress(quiet: bool = False) -> Iterator[None]:
    """Bars on a terminal, a line every few seconds elsewhere, nothing when `quiet`; always on standard error."""
    if quiet:
        yield
        return
    try:
        if sys.stderr.isatty():
            with _bars() as bars:
                progress.listen(_BarListener(bars))
                yield
        else:
            progress.listen(_LineListener())
            yield
    finally:
        progress.listen(None)


def _bars() -> Progress:
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=errors.console, transient=True)


class _BarListener:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)


class _LineListener:
    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        is_last = total is not None and done >= total
        if is_last or now - self._last.get(what, now - LINE_SECONDS) >= LINE_SECONDS:
            self._last[what] = now
            errors.print(f"{what:>10}  {done}{f' of {total}' if total else ''}")


def show_report(report: Mapping[str, Any], next_steps: Sequence[str]) -> None:
    """Funnel, times, scores, decision, samples, and what to type next."""
    output.print(_funnel_table(report["funnel"]))
    output.print(_time_line(report["seconds"]))
    output.print(_score_table(report["scores"]))
    for sample in report["samples"][:2]:
        output.print(f"\n[bold]Prompt:[/] {_inline(sample['prompt'])}", markup=True)
        for label, text in sample["texts"].items():
            output.print(f"  [bold]{label}[/]", end="  ")
            output.print(_inline(text)[:400], markup=False)
    output.print(f"\n[bold]{report['decision']}[/]  {report['model']}: ", end="")
    output.print(report["reason"], markup=False)
    if report["partial"]:
        output.print(
            "A source could not be read to its end, so this run is partial: its ledger says why, by URL. To read it "
            "again today, give the run a date of its own, such as --as-of 2026-01-05T21:30."
        )
    if next_steps:
        output.print("\nNext:")
    for step in next_steps:
        output.print(f"  {step}", markup=False)


def _funnel_table(funnel: Sequence[Mapping[str, Any]]) -> Table:
    from prosemill.reporting import summary

    table = Table(title="From pages to chunks", title_justify="left", box=None, pad_edge=False)
    for name, justify in (
        ("stage", "left"),
        ("seen", "right"),
        ("kept", "right"),
        ("dropped, by reason", "left"),
        ("made", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in funnel:
        figures = summary.output_of(row)
        table.add_row(
            summary.stage_name(row), f"{row['seen']:,}", f"{row['kept']:,}", summary.reasons(row["dropped"]), figures
        )
    return table


def _time_line(seconds: Mapping[str, float]) -> str:
    parts = ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items())
    return f"\nWhere the time went: {parts}; in all {sum(seconds.values()):.1f} s\n"


def _score_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    from prosemill.reporting.pages import with_interval

    table = Table(
        title="On text that no model has seen (test split, 95 % intervals)",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for name in ("model", "perplexity", "bits per byte", "documents"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in scores:
        perplexity, bits = with_interval(row, "perplexity", 2), with_interval(row, "bits_per_byte", 4)
        table.add_row(row["model"], perplexity, bits, f"{row['documents']:,}")
    return table


def show_trace(node: Mapping[str, Any], depth: int = 0) -> None:
    """A trace as an indented tree."""
    facts = ", ".join(
        f"{key} {value}" for key, value in node.items() if key not in ("kind", "name", "leads_to") and value
    )
    output.print(f"{'  ' * depth}{node['kind']} {node['name']}{f'  ({facts})' if facts else ''}", markup=False)
    for child in node.get("leads_to", []):
        show_trace(child, depth + 1)


def _inline(text: str) -> str:
    return " ".join(text.split())


def show_models(rows: Sequence[Mapping[str, Any]]) -> None:
    """One line a version: what it is called now, when it was made, how it scored, what was decided."""
    table = Table(box=None, pad_edge=False)
    for name in ("model", "alias", "as of", "perplexity", "bits per byte", "decision", "snapshot"):
        table.add_column(name, justify="right" if name in ("perplexity", "bits per byte") else "left")
    for row in rows:
        scores = [
            f"{row[key]:.{digits}f}" if row.get(key) is not None else ""
            for key, digits in (("perplexity", 2), ("bits_per_byte", 4))
        ]
        approval = row["approval"].partition(" at ")[0]
        decision = f"{row['decision']}, {approval}" if approval else row["decision"]
        table.add_row(row["model"], ", ".join(row["aliases"]), row["as_of"], *scores, decision, row["snapshot"])
    output.print(table)


def show_changes(changes: Mapping[str, Any]) -> None:
    """A diff, most telling part first."""
    output.print(f"{changes['stage']}: {changes['before']} → {changes['after']}", markup=False)
    for key in ("added", "removed", "changed"):
        if key in changes:
            examples = ", ".join(changes[key]["examples"])
            output.print(f"{key:>9}  {changes[key]['number']}{f'  ({examples} …)' if examples else ''}", markup=False)
    for key in ("settings", "counts", "totals"):
        for name, (old, new) in changes[key].items():
            output.print(f"{key:>9}  {name}: {old} → {new}", markup=False)


def show_explanation(explanation: RunExplanation) -> None:
    """A run, stage by stage; below each one that was made, what had changed."""
    from prosemill.storage.run_log import HIT

    run, before = explanation.run, explanation.before
    what = " ".join(word for word in (run.decision or run.state.lower(), run.model) if word)
    output.print(f"{run.title}: {what}{f'. {run.reason}' if run.reason else ''}", markup=False)
    ended = run.ended.replace("T", " ")[:19] or "now"
    output.print(f"{run.started.replace('T', ' ')[:19]} to {ended} UTC, run {run.id}", markup=False)
    compared = f"compared with {before.title} of {before.started[:10]}, run {before.id}" if before else "the first run"
    output.print(f"{compared}\n", markup=False)
    width = max((len(row.stage) for row in explanation.stages), default=0)
    for row in explanation.stages:
        line = f"{row.stage:<{width}}  {row.cache:<4}  {row.seconds:>9,.1f} s  {row.snapshot}"
        output.print(f"{line}{f'  made by {row.made_by}' if row.cache == HIT and row.made_by else ''}", markup=False)
        for change in row.why:
            output.print(f"{'':{width}}  because  {change}", markup=False)
    if not explanation.stages:
        output.print("No stage was complete.")


def show_page_history(history: PageHistory) -> None:
    """What each stage of a corpus made of a page, and both texts where it was taken for a copy."""
    table = Table("stage", "status", "why", "document", box=None, pad_edge=False, header_style="bold")
    for step in history.steps:
        table.add_row(step.stage, step.status, Text(step.why, overflow="fold"), step.document)
    output.print(f"\n{history.corpus}, {history.as_of}: {history.url}", markup=False, style="bold")
    output.print(table)
    if history.removed:
        texts = Table("this page", "the one that was kept", show_lines=True, expand=True)
        texts.add_row(*(Text(text[:SIDE_BY_SIDE_CHARACTERS]) for text in (history.text, history.keeper_text)))
        output.print(texts)
        if not history.is_undone:
            output.print(f"To keep it all the same: prosemill why {history.url} --undo", markup=False)
