"""Lines that a source repeats on page after page: found by counting, and taken out of new documents.

What counts is a line as a reader sees it (stripped), of at least three words or twelve characters; shorter ones ("}",
"Yes.") repeat in honest text. Lines of code, fenced or indented, are never touched.

Copies of one document repeat all of its lines, and taking those for boilerplate would delete the text from every copy.
So exact copies count once, and documents that consist mostly of repeated lines are not counted at all: the
search for duplicates deals with them. Documents that are published already are counted but never changed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh64_intdigest

from prosemill.config.settings import Dedup
from prosemill.dedup.shingles import Hashes
from prosemill.text.words import words

LINES_FILE = "lines-hashes.npy"  # ascending, the source's name hashed too; how many pages each is on lies beside it
PAGES_FILE = "lines-pages.npy"

MIN_LINE_WORDS = 3
MIN_LINE_CHARACTERS = 12
# Repeated lines are 18 % of the bytes of a documentation site; a document of which they are half is a copy or empty.
MOSTLY = 0.5
MIN_WORDS_LEFT = 20  # what strip asks of a document by default; less than that is a page without a text of its own


@dataclass(frozen=True)
class BoilerplateLines:
    """Every distinct line that may be boilerplate, of each document: three parallel arrays."""

    hashes: Hashes
    documents: NDArray[np.int32]
    characters: NDArray[np.int32]


def lines_of(texts: Iterator[str], sources: Sequence[str]) -> tuple[BoilerplateLines, NDArray[np.int64]]:
    """The lines of each document, and the length of each text in characters."""
    hashes, characters = array("Q"), array("i")  # millions of lines: a list of integers takes five times the memory
    counts, lengths = array("i"), array("q")
    for text, source in zip(texts, sources, strict=True):
        sizes = {_hash(line, source): len(line) for line, is_prose in _iter_lines(text) if is_prose}
        hashes.extend(sizes)
        characters.extend(sizes.values())
        counts.append(len(sizes))
        lengths.append(len(text))
    documents = np.repeat(np.arange(len(counts), dtype=np.int32), np.array(counts, np.int32))
    lines = BoilerplateLines(np.array(hashes, np.uint64), documents, np.array(characters, np.int32))
    return lines, np.array(lengths, np.int64)


class LineCounts:
    """On how many keepers each line was on earlier runs."""

    def __init__(
        self, increments: Sequence[tuple[Hashes, NDArray[np.int32]]], pages_of_source: Mapping[str, int]
    ) -> None:
        self.increments = [increment for increment in increments if len(increment[0])]
        self.pages_of_source = dict(pages_of_source)

    def of(self, lines: Hashes) -> NDArray[np.int64]:
        """`lines` ascend."""
        total = np.zeros(len(lines), np.int64)
        for known, pages in self.increments:
            places = np.minimum(np.searchsorted(known, lines), len(known) - 1)
            total += np.where(known[places] == lines, pages[places], 0)
        return total


def find(
    lines: BoilerplateLines,
    lengths: NDArray[np.int64],
    texts: Hashes,
    sources: Sequence[str],
    past: LineCounts,
    settings: Dedup,
) -> Hashes:
    """Hashes of the lines that are boilerplate, ascending. `texts`: hashes that are equal for exact copies."""
    counted = np.zeros(len(texts), bool)
    counted[np.unique(texts, return_index=True)[1]] = True
    pages = dict(past.pages_of_source)
    for source, is_counted in zip(sources, counted, strict=True):
        pages[source] = pages.get(source, 0) + int(is_counted)
    needed = np.array([max(settings.boilerplate_pages, settings.boilerplate_share * pages[name]) for name in sources])

    repeated = _repeated(lines, counted, past, needed)
    if not len(repeated):
        return repeated
    is_repeated = _is_in(lines.hashes, repeated)
    covered = np.bincount(lines.documents[is_repeated], weights=lines.characters[is_repeated], minlength=len(lengths))
    return _repeated(lines, counted & (covered <= MOSTLY * lengths), past, needed)


def _repeated(
    lines: BoilerplateLines, counted: NDArray[np.bool_], past: LineCounts, needed: NDArray[np.float64]
) -> Hashes:
    """Lines on at least as many of the counted documents, history included, as their source asks for."""
    distinct, first, inverse = np.unique(lines.hashes, return_index=True, return_inverse=True)
    added = np.bincount(inverse, weights=counted[lines.documents], minlength=len(distinct))
    return distinct[added + past.of(distinct) >= needed[lines.documents[first]]]


def documents_with(lines: BoilerplateLines, boilerplate: Hashes) -> NDArray[np.int32]:
    """Rows of the documents that have any of these lines."""
    return np.unique(lines.documents[_is_in(lines.hashes, boilerplate)])


def without(text: str, source: str, boilerplate: Set[int]) -> str:
    """`text` without the boilerplate lines of its source, and without the double gaps they leave."""
    kept: list[str] = []
    in_gap = False
    for line, is_prose in _iter_lines(text):
        if is_prose and _hash(line, source) in boilerplate:
            in_gap = True
        elif line.strip() or not (in_gap and kept and not kept[-1].strip()):
            kept.append(line)
            in_gap = in_gap and not line.strip()
    return "\n".join(kept).strip("\n")


def is_too_short(text: str) -> bool:
    return len(words(text)) < MIN_WORDS_LEFT


def count(lines: BoilerplateLines, documents: NDArray[np.int64]) -> tuple[Hashes, NDArray[np.int32]]:
    """The distinct lines of the given documents, ascending, and how many of these have each: a run to remember."""
    counted = np.zeros(int(lines.documents.max(initial=-1)) + 1, bool)
    counted[documents[documents < len(counted)]] = True
    hashes, pages = np.unique(lines.hashes[counted[lines.documents]], return_counts=True)
    return hashes, pages.astype(np.int32)


def _iter_lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is prose long enough to be counted."""
    fenced = False
    for line in text.split("\n"):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            yield line, False
        else:
            yield line, not fenced and _is_long(line.strip()) and not line.startswith(("    ", "\t"))


def _is_long(line: str) -> bool:
    return len(line) >= MIN_LINE_CHARACTERS or line.count(" ") >= MIN_LINE_WORDS - 1


def _hash(line: str, source: str) -> int:
    return xxh64_intdigest(f"{source}\n{line.strip()}".encode())


def _is_in(values: Hashes, ascending: Hashes) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    is_member: NDArray[np.bool_] = ascending[places] == values
    return is_member
