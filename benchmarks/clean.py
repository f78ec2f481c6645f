"""Extraction, dedup and chunking beside their peers, on the same input in the same run: a table and a plot.

    make bench-clean BENCH="--pages DIR --annotations FILE"
    python -m benchmarks.clean [--only extraction,dedup,chunking] [--documents 100000] [--chunk-rows 12000]
                               [--pages DIR --annotations FILE] [--cache FOLDER]

Peers are installed by the script, each in an environment of its own below the cache; the text comes from Debian's
documentation packages (benchmarks.synthetic_corpus), the annotated pages from whoever has them (benchmarks.strip_f1).
Written: results/clean.json (what was not run keeps its figures), clean.md, clean.png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import clean_chunk, clean_dedup, environments, synthetic_corpus

RESULTS = Path(__file__).parent / "results"
Rows = list[dict[str, Any]]
# Each part: the figure that the ratio is of, its title, the peer that is 1.0.
PARTS = {
    "extraction": ("pages_per_cpu_second", "pages a CPU second", "bs4 get_text"),
    "dedup": ("documents_per_cpu_second", "documents a CPU second", "datasketch"),
    "chunking": ("tokens_per_cpu_second", "tokens a CPU second", "run_clm"),
}


def extraction(pages: Path, annotations: Path, cache: Path) -> Rows:
    """F1 and speed of ours and of the peers, each in its own environment."""
    script = Path(__file__).with_name("strip_f1.py")
    rows: Rows = []
    runs = [
        (sys.executable, "ours"),
        (environments.python_of("extractors", cache), "trafilatura,readability-lxml,bs4 get_text"),
    ]
    for python, names in runs:
        report = cache / "f1.json"
        options = ["--pages", pages, "--annotations", annotations, "--only", names, "--json", report, "--floor", "0"]
        subprocess.run([python, script, *options], check=True)
        rows += json.loads(report.read_text(encoding="utf-8"))
    return [{**row, "tool": "prosemill" if row["tool"] == "ours" else row["tool"]} for row in rows]


def chunking(numbers: str, gpt2: Path | None, cache: Path) -> Rows:
    rows: Rows = []
    for tokenizer in ["demo", *([str(gpt2)] if gpt2 else [])]:
        for number in map(int, numbers.split(",")):
            rows += clean_chunk.compare(synthetic_corpus.of_all_lengths(number, cache), cache, number, tokenizer)
    return rows


def with_ratios(rows: Rows, figure: str, peer: str) -> Rows:
    """To the peer on the same input: as many documents, or the same tokens, where the rows are of several inputs."""
    base = {_input(row): row[figure] for row in reversed(rows) if row["tool"] == peer and figure in row}
    return [
        {**row, "ratio": round(row[figure] / base[_input(row)], 2)} if figure in row and _input(row) in base else row
        for row in rows
    ]


def _input(row: dict[str, Any]) -> Any:
    return row.get("input", row.get("documents"))


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["# Clean, beside its peers", "", f"{results['machine']}. Written by `python -m benchmarks.clean`.", ""]
    for part, (figure, _, peer) in PARTS.items():
        if part in results:
            rows = with_ratios(results[part]["rows"], figure, peer)
            columns = list(dict.fromkeys(key for row in rows for key in row))
            lines += [
                f"## {part}: {results[part]['input']}",
                "",
                "| " + " | ".join(columns) + " |",
                "|---" * len(columns) + "|",
            ]
            lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
            lines.append("")
    return "\n".join(lines)


def plot(results: dict[str, Any], target: Path) -> None:
    """Bars of speed for each part, and cost and memory by size of corpus where results/corpus_growth.json is there."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(18, 4), layout="constrained")
    for axis, (part, (key, title, _)) in zip(axes, PARTS.items(), strict=False):
        rows = [row for row in results.get(part, {}).get("rows", []) if key in row]
        axis.barh(
            [f"{row['tool']} {row.get('input', row.get('documents', ''))}" for row in rows],
            [row[key] for row in rows],
            color="#4f6d8f",
        )
        axis.set(title=f"{part}: {title}", xscale="log" if part == "dedup" else "linear")
    history = RESULTS / "history.json"
    if history.exists():
        points = json.loads(history.read_text(encoding="utf-8"))
        sizes = [point["documents"] for point in points]
        for key, style in (("first", "o-"), ("run", "s--")):
            axes[3].plot(sizes, [point[key]["cpu_seconds"] for point in points], style, label=f"{key}: CPU seconds")
            axes[3].plot(
                sizes, [point[key]["peak_megabytes"] for point in points], style, alpha=0.4, label=f"{key}: MB"
            )
        axes[3].set(title="dedup and split, by documents", xscale="log", yscale="log")
        axes[3].legend(fontsize=7)
    figure.savefig(target, dpi=80, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--documents", type=int, default=100_000, help="for dedup")
    parser.add_argument("--chunk-rows", default="12000,48000", help="for chunking; 12,000 are 7 million tokens")
    parser.add_argument("--gpt2", type=Path, help="a folder with GPT-2's vocab.json, merges.txt and config.json")
    parser.add_argument("--pages", type=Path)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "prosemill-bench")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "clean.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results["machine"] = (
        f"{len(os.sched_getaffinity(0))} processors, {platform.machine()}, Python {platform.python_version()}"
    )

    def measured(part: str, described: str, run: Callable[[], Rows]) -> None:
        if part in arguments.only.split(","):
            results[part] = {"input": described, "rows": run()}
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    def documents(number: int) -> tuple[Path, Path]:
        return synthetic_corpus.planted(number, arguments.cache)

    cache, number = arguments.cache, arguments.documents
    if arguments.pages and arguments.annotations:
        described = "annotated pages, filters off"
        measured("extraction", described, lambda: extraction(arguments.pages, arguments.annotations, cache))
    described = f"{number:,} documents of Debian's documentation, near-copies planted"
    measured("dedup", described, lambda: clean_dedup.compare(*documents(number), cache))
    described = "Debian's documentation, documents of all lengths; vocabularies of the demo base and of GPT-2"
    measured("chunking", described, lambda: chunking(arguments.chunk_rows, arguments.gpt2, cache))
    (RESULTS / "clean.md").write_text(table(results), encoding="utf-8")
    plot(results, RESULTS / "clean.png")


if __name__ == "__main__":
    main()
