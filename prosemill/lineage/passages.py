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

from prosemill.text.ngrams import ngrams
from prosemill.text.words import words

RUN_WORDS = (4, 3, 2)  # four: short enough for a sentence that a model has changed, long enough not to match by chance
MOST_WORDS = 60  # of a sentence that are looked at
BATCH_ROWS = 2000
# What may stand between words: ASCII and Latin-1 signs, general and CJK punctuation, variation selectors, the commonest
# stops of other scripts (Hebrew, Arabic, danda, Tibetan, Burmese, Ethiopic, Khmer), the middle dot of katakana.
# "Neither letter nor number" would cover it, but costs RE2 a thousand states at each use.
_BETWEEN = (
    r"[\x00-/:-@\[-`{-\x{bf}\x{5be}\x{60c}\x{61b}-\x{61f}\x{6d4}\x{964}\x{965}\x{f0b}-\x{f0e}\x{104a}\x{104b}\x{1361}-\x{1368}"
    r"\x{17d4}-\x{17d6}\x{2000}-\x{206f}\x{3000}-\x{303f}\x{30fb}\x{fe00}-\x{fe0f}\x{ff00}-\x{ff0f}\x{ff1a}-\x{ff20}]*"
)
_FIRST_JOINED = "\u0600"  # scripts from Arabic on have joiners within words, which strip takes out of all before
_JOINERS = r"[\x{200c}\x{200d}]*"


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
    sentence_words = words(sentence)[:MOST_WORDS]
    for length in RUN_WORDS:
        runs = runs_of(sentence_words, length)
        if not runs:
            continue
        matches = [passage for file in files for passage in _matches(file, sentence_words, runs, length, wanted)]
        if matches:
            return sorted(matches, key=lambda match: (-match.shared, match.url, match.document))[:most]
    return []


def runs_of(text_words: Sequence[str], length: int) -> set[str]:
    return set(map(" ".join, ngrams(text_words, length)))


def _matches(
    file: Path, sentence_words: Sequence[str], runs: set[str], length: int, wanted: Container[str]
) -> list[Passage]:
    pattern = _pattern(sentence_words, length)
    matches = []
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(BATCH_ROWS, columns=["id", "url", "text"]):
            table = pa.Table.from_batches([batch])
            for row in table.filter(pc.match_substring_regex(table["text"], pattern)).to_pylist():
                if row["id"] in wanted and (shared := runs & runs_of(words(row["text"]), length)):
                    matches.append(Passage(row["id"], row["url"], len(shared) / len(runs), length, len(shared)))
    return matches


def _pattern(sentence_words: Sequence[str], length: int) -> str:
    """Any run of `length` of the words, whatever stands between them."""
    return "(?i)" + "|".join(
        _BETWEEN.join(map(_word_pattern, run)) for run in dict.fromkeys(ngrams(sentence_words, length))
    )


def _word_pattern(word: str) -> str:
    """`word`; in scripts that have joiners, with any of them between its letters."""
    return _JOINERS.join(map(re.escape, word)) if max(word) >= _FIRST_JOINED else re.escape(word)
