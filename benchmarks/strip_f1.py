"""Precision, recall and F1 of main-text extraction, ours beside its peers, on one set of pages in one run.

    python benchmarks/strip_f1.py --pages DIR --annotations FILE [--every N] [--only ours,trafilatura] [--floor .92]

The annotations are JSON: {url: {"file": name, "with": [segments], "without": [segments]}}. White space is collapsed in
the result and in each segment; a `with` segment found is a true positive, one not found a false negative, a `without`
segment found a false positive. A crash counts as an empty result. Every extractor is fed bytes. Exit code 1 when our F1
is below the floor.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Extract = Callable[[bytes], str]


@dataclass
class Score:
    kept: int = 0
    missed: int = 0
    intruded: int = 0
    crashed: int = 0
    cpu_seconds: float = 0.0

    @property
    def precision(self) -> float:
        return self.kept / max(1, self.kept + self.intruded)

    @property
    def recall(self) -> float:
        return self.kept / max(1, self.kept + self.missed)

    @property
    def f1(self) -> float:
        return 2 * self.kept / max(1, 2 * self.kept + self.missed + self.intruded)


def ours(body: bytes) -> str:
    """The extraction alone, without quality filters, so that a short page is judged by its text as with the peers."""
    from prosemill.config.settings import Strip
    from prosemill.strip import strip_html

    return strip_html(body, settings=Strip(min_words=0, max_repetition=1, max_symbol_share=1, languages=["*"])).text


def trafilatura_default(body: bytes) -> str:
    import trafilatura

    return trafilatura.extract(body, include_tables=True, include_comments=False) or ""


def readability(body: bytes) -> str:
    from lxml import html
    from readability import Document  # type: ignore[import-not-found]

    return str(html.fromstring(Document(body).summary()).text_content())


def get_text(body: bytes) -> str:
    from bs4 import BeautifulSoup

    return BeautifulSoup(body, "lxml").get_text(" ")


EXTRACTORS: dict[str, tuple[str, Extract]] = {
    "ours": ("prosemill", ours),
    "trafilatura": ("trafilatura", trafilatura_default),
    "readability-lxml": ("readability", readability),
    "bs4 get_text": ("bs4", get_text),
}


def collapse(text: str) -> str:
    return " ".join(text.split())


def measure(extract: Extract, pages: list[tuple[bytes, dict[str, list[str]]]], misses: list[str]) -> Score:
    score = Score()
    extract(b"<html><body><p>" + b"Load what is loaded late. " * 20 + b"</p></body></html>")
    for body, segments in pages:
        started = time.process_time()
        try:
            text = extract(body)
        except Exception as error:  # noqa: BLE001  an extractor may fail in any way; that is part of what is measured
            text = ""
            score.crashed += 1
            misses.append(f"crash: {error!r}")
        score.cpu_seconds += time.process_time() - started
        text = collapse(text)
        wanted = [collapse(segment) in text for segment in segments["with"]]
        score.kept += sum(wanted)
        score.missed += len(wanted) - sum(wanted)
        score.intruded += sum(collapse(segment) in text for segment in segments["without"])
    return score


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, required=True, help="the folder with the pages")
    parser.add_argument("--annotations", type=Path, required=True, help="the JSON file")
    parser.add_argument("--every", type=int, default=1, help="measure every n-th page only")
    parser.add_argument("--only", default="", help="names of extractors, with commas; default: all that are installed")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--floor", type=float, default=0.92, help="our F1 must reach this")
    args = parser.parse_args()
    logging.disable(logging.ERROR)

    annotations = json.loads(args.annotations.read_text(encoding="utf-8"))
    chosen = list(annotations.values())[:: args.every]
    pages = [((args.pages / entry["file"]).read_bytes(), entry) for entry in chosen]
    names = args.only.split(",") if args.only else list(EXTRACTORS)
    below_floor = False
    rows = []
    print(f"{len(pages)} pages\n{'':18}{'P':>7}{'R':>7}{'F1':>7}{'pages/CPU-s':>13}{'crashes':>9}")
    for name in names:
        module, extract = EXTRACTORS[name]
        if importlib.util.find_spec(module) is None:
            print(f"{name:18} not installed")
            continue
        crashes: list[str] = []
        score = measure(extract, pages, crashes)
        speed = len(pages) / max(score.cpu_seconds, 1e-9)
        print(
            f"{name:18}{score.precision:7.3f}{score.recall:7.3f}{score.f1:7.3f}{speed:13.1f}{score.crashed:9}",
            flush=True,
        )
        figures = {"precision": score.precision, "recall": score.recall, "f1": score.f1, "pages_per_cpu_second": speed}
        rows.append(
            {"tool": name, **{key: round(value, 4) for key, value in figures.items()}, "crashed": score.crashed}
        )
        for crash in crashes[:3]:
            print(f"{'':18}{crash}")
        below_floor = below_floor or (name == "ours" and score.f1 < args.floor)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return int(below_floor)


if __name__ == "__main__":
    sys.exit(main())
