"""Plots for the pages of a run, as SVG texts of a few kilobytes: text stays text, so it is sharp at any size.

matplotlib is imported when the first plot is drawn; its pyplot, with windows and global state, is never used.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prosemill.evaluation.documents import week_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 7.2, 3.4  # inches, of 72 points: what fits beside the sidebar of a run's page
MOST_POINTS = 200  # of a scatter plot: more cannot be told apart, and each costs 80 bytes
INK, SOFT, BEFORE, AFTER = "#1f2933", "#7b8794", "#9aa5b1", "#1d4ed8"
LINES = {"base": (BEFORE, ":"), "previous": (SOFT, "--"), "champion": (INK, "-"), "challenger": (AFTER, "-")}

Row = Mapping[str, Any]


def data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def markdown(svg: str, text: str) -> str:
    """An image in a Markdown artifact; `text` is for who cannot see it. "" where there is nothing to draw."""
    return f"![{text}]({data_uri(svg)})" if svg else ""


def loss_curve(rows: Sequence[Row]) -> str:
    """Training and validation loss by step, from log.jsonl of a finetune snapshot; "" when nothing was logged."""
    train = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    held_out = [(row["step"], row["validation_loss"]) for row in rows if "validation_loss" in row]
    if not train and not held_out:
        return ""

    def draw(axes: Axes) -> None:
        if train:
            axes.plot(*zip(*train, strict=True), color=BEFORE, linewidth=1.2, label="training")
        if held_out:
            axes.plot(*zip(*held_out, strict=True), color=AFTER, linewidth=1.6, marker="o", label="validation")
            step, least = min(held_out, key=lambda point: point[1])
            axes.annotate(f"{least:.3f}", (step, least), (0, 8), textcoords="offset points", color=AFTER, ha="center")
        axes.set_xlabel("step")
        axes.locator_params("x", integer=True)
        axes.set_ylabel("nats a token")
        axes.legend(frameon=False)

    return render(draw)


def perplexities(scores: Sequence[Row]) -> str:
    """Perplexity of the models of one evaluation, with intervals: rows of `summary.score_table`."""
    if not scores:
        return ""

    def draw(axes: Axes) -> None:
        for place, row in enumerate(reversed(scores)):
            color = AFTER if row["model"] == "challenger" else SOFT
            _with_interval(axes, row, place, color, horizontal=True)
            axes.annotate(
                f"{row['perplexity']:.2f}", (row["perplexity"], place), (0, 9), textcoords="offset points", color=color,
                ha="center",
            )  # fmt: skip
        axes.set_yticks(range(len(scores)), [row["model"] for row in reversed(scores)])
        axes.set_ylim(-0.6, len(scores) - 0.3)
        axes.set_xlabel("perplexity on the test split (lower is better), 95 % interval")

    return render(draw, height=1.0 + 0.55 * len(scores))


def over_versions(versions: Sequence[Row]) -> str:
    """Perplexity of the versions of a model, oldest first: rows model, as_of, perplexity(_interval), is_champion."""
    drawn = [row for row in versions if row.get("perplexity") is not None]
    if not drawn:
        return ""

    def draw(axes: Axes) -> None:
        axes.plot([row["perplexity"] for row in drawn], color=BEFORE, linewidth=1, zorder=1)
        for place, row in enumerate(drawn):
            _with_interval(axes, row, place, AFTER if row["is_champion"] else SOFT, horizontal=False)
        step = math.ceil(len(drawn) / 8)
        ticks = range(0, len(drawn), step)
        axes.set_xticks(ticks, [f"{drawn[place]['model']}\n{drawn[place]['as_of']}" for place in ticks], fontsize=8)
        axes.set_xlim(-0.6, len(drawn) - 0.4)
        axes.set_ylabel("perplexity, 95 % interval")
        if any(row["is_champion"] for row in drawn):
            axes.plot([], [], "o", color=AFTER, label="champion")
            axes.legend(frameon=False)

    return render(draw)


def freshness(models: Mapping[str, Row], dates: Mapping[str, str]) -> str:
    """Bits per byte on the test pages of each week, a line a model; hollow where the pages are newer than the model.

    `models`, `dates`: of summary.json. "" where all pages came in one week, or no model is older than any of them.
    """
    weeks = sorted({week for row in models.values() for week in row["weeks"] if week})
    known = {label: week_of(dates.get(label, "")) for label in models}
    if len(weeks) < 2 or not any(known.values()):
        return ""

    def draw(axes: Axes) -> None:
        for label, row in models.items():
            points = [(place, row["weeks"][week]) for place, week in enumerate(weeks) if week in row["weeks"]]
            color, dashes = LINES.get(label, (SOFT, "-"))
            across, up = [place for place, _ in points], [figures["bits_per_byte"] for _, figures in points]
            axes.plot(across, up, color=color, linestyle=dashes, linewidth=1.4, label=label)
            for (place, _), value in zip(points, up, strict=True):
                is_newer = bool(known[label]) and weeks[place] > known[label]
                axes.plot(place, value, "o", color=color, markerfacecolor="white" if is_newer else color)
        axes.plot([], [], "o", color=SOFT, markerfacecolor="white", label="newer than the model")
        ticks = range(0, len(weeks), math.ceil(len(weeks) / 8))
        axes.set_xticks(ticks, [weeks[place] for place in ticks], fontsize=8)
        axes.set_xlim(-0.4, len(weeks) - 0.6)
        axes.set(xlabel="week in which the test pages were first seen", ylabel="bits per byte")
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))

    return render(draw)


def growth(increments: Sequence[Row]) -> str:
    """The corpus over time: rows as_of, documents (kept in all), new_documents."""
    if not increments:
        return ""

    def draw(axes: Axes) -> None:
        old = [row["documents"] - row["new_documents"] for row in increments]
        axes.bar(range(len(increments)), old, color="#cbd2d9", width=0.7, label="known before")
        new = [row["new_documents"] for row in increments]
        axes.bar(range(len(increments)), new, bottom=old, color=AFTER, width=0.7,
                 label="new")  # fmt: skip
        ticks = range(0, len(increments), math.ceil(len(increments) / 8))
        axes.set_xticks(ticks, [increments[place]["as_of"] for place in ticks], fontsize=8)
        axes.set_xlim(-0.6, max(len(increments), 4) - 0.4)
        axes.set_ylabel("documents")
        axes.set_ylim(0, 1.25 * max(row["documents"] for row in increments) or 1)
        axes.legend(frameon=False, ncols=2, loc="upper left")

    return render(draw, height=2.8)


def by_document(scores: Mapping[str, Sequence[Row]], against: str) -> str:
    """Bits per byte of each test document: `against` (champion or base) across, the challenger upwards.

    `scores`: rows of records.SCORE by label, documents in one order. At most `MOST_POINTS` of them, evenly picked.
    """
    old, new = (_bits(scores.get(label, ())) for label in (against, "challenger"))
    pairs = sorted(zip(old, new, strict=True))[:: math.ceil(len(old) / MOST_POINTS) or 1] if old and new else []
    if not pairs:
        return ""

    def draw(axes: Axes) -> None:
        low, high = min(map(min, pairs)), max(map(max, pairs))
        room = 0.05 * (high - low or 1)
        ends = (low - room, high + room)
        axes.plot(ends, ends, color=SOFT, linewidth=1, linestyle="--")
        better = [pair for pair in pairs if pair[1] < pair[0]]
        worse = [pair for pair in pairs if pair[1] >= pair[0]]
        for points, color, label in ((better, AFTER, "challenger better"), (worse, "#b91c1c", "not better")):
            if points:
                across, up = zip(*points, strict=True)
                axes.scatter(across, up, s=16, color=color, alpha=0.7, linewidths=0, label=label)
        axes.set(xlim=ends, ylim=ends, xlabel=f"{against}, bits per byte", ylabel="challenger, bits per byte")
        axes.set_aspect("equal")
        axes.legend(frameon=False, loc="upper left", fontsize=8)

    return render(draw, height=4.4)


def _bits(rows: Sequence[Row]) -> list[float]:
    return [row["nats"] / math.log(2) / max(row["size_bytes"], 1) for row in rows]


def _with_interval(axes: Axes, row: Row, place: int, color: str, *, horizontal: bool) -> None:
    """A dot at the perplexity, with the whiskers of its interval where there is one."""
    value = row["perplexity"]
    low, high = row.get("perplexity_interval") or (value, value)
    error = [[max(value - low, 0)], [max(high - value, 0)]]
    style: dict[str, Any] = {"fmt": "o", "color": color, "capsize": 3, "zorder": 2}
    if horizontal:
        axes.errorbar(value, place, xerr=error, **style)
    else:
        axes.errorbar(place, value, yerr=error, **style)


def render(draw: Callable[[Axes], None], *, height: float = HEIGHT) -> str:
    """What `draw` puts on a pair of axes. The same values give the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "prosemill", "font.family": "sans-serif", "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": SOFT, "axes.labelcolor": INK,
        "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": "#e4e7eb", "lines.markersize": 4,
        "axes.axisbelow": True,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        # The viewer's font may be wider than the one measured here, hence the margin.
        figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.1))
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return file.getvalue()
