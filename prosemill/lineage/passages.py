"""Which documents a sentence is closest to: those that share most of its runs of four words.

Finding is done in two steps. A regular expression of all the runs goes over the texts in Arrow (RE2: about 200 MB a
second, no backtracking) and lets through what holds any; what is left is compared run by run. A sentence that shares no
run of four words with any text is looked for by runs of three, then two.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

RUN_WORDS = (4, 3, 2)  # four: short enough for a sentence that a model has bent a little, long enough to mean something
MOST_WORDS = 60  # of a sentence that are looked at
BATCH_ROWS = 2000
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
# What may stand between words: ASCII and Latin-1 signs, general and CJK punctuation, some full stops of other scripts.
# "Neither letter nor number" would say it all, and is a thousand states for RE2 each time that it is named.
_BETWEEN = r"[\x00-/:-@\[-`{-\x{bf}\x{2000}-\x{206f}\x{3000}-\x{303f}\x{ff00}-\x{ff0f}\x{ff1a}-\x{ff20}\x{60c}\x{964}]*"


@dataclass(frozen=True)
class Passage:
    """A document and what it shares with the sentence."""

    document: str
    url: str
    shared: float  # share of the sentence's runs that the document holds
    run_words: int  # how long these runs are
    runs: int  # how many they are


def closest(files: Sequence[Path], sentence: str, most: int, wanted: Container[str]) -> list[Passage]:
    """The `most` documents of Parquet `files` (id, url, text), of those in `wanted`, that share most; best first."""
    words = words_of(sentence)[:MOST_WORDS]
    for length in RUN_WORDS:
        runs = runs_of(words, length)
        if not runs:
            continue
        found = [passage for file in files for passage in _matches(file, words, runs, length, wanted)]
        if found:
            return sorted(found, key=lambda each: (-each.shared, each.url, each.document))[:most]
    return []


def words_of(text: str) -> list[str]:
    """Words in lower case; a Chinese, Japanese or Korean character is a word."""
    return _WORD.findall(text.lower())


def runs_of(words: Sequence[str], length: int) -> set[str]:
    return {" ".join(words[start : start + length]) for start in range(len(words) - length + 1)}


def _matches(file: Path, words: Sequence[str], runs: set[str], length: int, wanted: Container[str]) -> list[Passage]:
    pattern = _pattern(words, length)
    found = []
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(BATCH_ROWS, columns=["id", "url", "text"]):
            table = pa.Table.from_batches([batch])
            for row in table.filter(pc.match_substring_regex(table["text"], pattern)).to_pylist():
                if row["id"] in wanted and (shared := runs & runs_of(words_of(row["text"]), length)):
                    found.append(Passage(row["id"], row["url"], len(shared) / len(runs), length, len(shared)))
    return found


def _pattern(words: Sequence[str], length: int) -> str:
    """Any run of `length` of the words, whatever stands between them."""
    runs = dict.fromkeys(tuple(words[start : start + length]) for start in range(len(words) - length + 1))
    return "(?i)" + "|".join(_BETWEEN.join(re.escape(word) for word in run) for run in runs)
