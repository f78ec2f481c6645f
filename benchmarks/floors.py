"""The lowest quality that CI accepts, on small fixtures made on the spot. A floor only rises.

    python -m benchmarks.floors            measure, compare, exit 1 below a floor

Floors are pinned with the fingerprint of their fixture in floors.toml: another fixture needs another floor.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa

from benchmarks.fixtures import made_pages, planted_copies
from benchmarks.strip_fuzz import mutated
from prosemill.chunk import pack, pieces_of
from prosemill.config.settings import Dedup
from prosemill.dedup import remove_duplicates
from prosemill.strip import strip_html

FLOORS = Path(__file__).with_name("floors.toml")

Measured = tuple[str, dict[str, float]]  # fingerprint of the fixture, figures (higher is better)


def dedup() -> Measured:
    """Recall and precision of removal against brute force, and the share of removed documents with a kept twin."""
    texts = planted_copies(150).texts
    threshold = Dedup().threshold
    shingles = [_shingles(text) for text in texts]
    pairs = {
        (a, b) for a in range(len(texts)) for b in range(a) if _jaccard(shingles[a], shingles[b]) >= threshold
    }  # fmt: skip
    in_pair = {document for pair in pairs for document in pair}
    table = pa.table({"id": [str(number) for number in range(len(texts))], "text": texts})
    removed = {int(row["id"]): int(row["keeper"]) for row in remove_duplicates(table, Dedup()).removed.to_pylist()}
    kept = set(range(len(texts))) - removed.keys()
    missed = [pair for pair in pairs if pair[0] in kept and pair[1] in kept]
    true = sum(_jaccard(shingles[a], shingles[b]) >= threshold for a, b in removed.items())
    covered = sum(keeper in kept for keeper in removed.values())
    return _fingerprint(texts), {
        "recall": 1 - len(missed) / len(in_pair),
        "precision": true / len(removed),
        "covered": covered / len(removed),
    }


def strip() -> Measured:
    """Precision, recall and F1 of segments that must and must not be in the text; paragraphs that stayed apart."""
    pages = made_pages(60)
    kept, lost, wrong, apart, borders = 0, 0, 0, 0, 0
    for page in pages:
        text = strip_html(page.body).text
        flat = " ".join(text.split())
        kept += sum(segment in flat for segment in page.wanted)
        lost += sum(segment not in flat for segment in page.wanted)
        wrong += sum(segment in flat for segment in page.unwanted)
        blocks = {" ".join(block.split()) for block in text.split("\n\n")}
        paragraphs = [segment for segment in page.wanted if len(segment.split()) >= 30]
        borders += len(paragraphs)
        apart += sum(paragraph in blocks for paragraph in paragraphs)
    precision, recall = kept / (kept + wrong), kept / (kept + lost)
    return _fingerprint(page.body.decode() for page in pages), {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "paragraphs_apart": apart / borders,
    }


def chunk() -> Measured:
    """Share of the chunks' room that holds tokens, of short documents left whole, and of tokens kept."""
    sizes = [len(text.split()) * 3 for text in planted_copies(400, seed=1).texts]
    chunks = pack(pieces_of(sizes, 1024), 1024)
    whole = sum(piece.size == sizes[piece.document] for pieces in chunks for piece in pieces)
    tokens = sum(piece.size for pieces in chunks for piece in pieces)
    return _fingerprint(str(size) for size in sizes), {
        "filled": tokens / (1024 * len(chunks)),
        "whole": whole / len(sizes),
        "kept": tokens / sum(sizes),
    }


def hostile() -> Measured:
    """Share of mutated pages that strip survives: a text or a reason, never an exception."""
    pages = [mutated(number, seed=1)[1] for number in range(30)]
    survived = 0
    for body in pages:
        try:
            stripped = strip_html(body)
        except Exception as error:  # noqa: BLE001 - that there is none is what is measured
            print(f"{type(error).__name__}: {error}")
        else:
            survived += bool(stripped.reason or stripped.text)
    return _fingerprint(hashlib.sha256(body).hexdigest() for body in pages), {"survived": survived / len(pages)}


AREAS: dict[str, Callable[[], Measured]] = {"strip": strip, "hostile": hostile, "dedup": dedup, "chunk": chunk}


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = [word.strip(".").lower() for word in text.split()]
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def _jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other)


def _fingerprint(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def main() -> None:
    pinned = tomllib.loads(FLOORS.read_text(encoding="utf-8"))
    below = []
    for area, measure in AREAS.items():
        fingerprint, figures = measure()
        if fingerprint != pinned[area]["fixture"]:
            sys.exit(f"{FLOORS.name}: the fixture of {area} is {fingerprint} now; measure anew and pin its floors")
        for name, value in figures.items():
            floor = pinned[area][name]
            print(f"{area:>7} {name:<17} {value:.4f}  floor {floor:.4f}")
            if value < floor:
                below.append(f"{area}.{name} is {value:.4f}, below its floor {floor:.4f}")
    sys.exit("; ".join(below) or 0)


if __name__ == "__main__":
    main()
