"""Words looked up in a table: the ids that tiktoken gives, whatever the text."""

from __future__ import annotations

import functools
import json
import random

import numpy as np
import pytest
from tiktoken import Encoding

from prosemill.chunk import engine, words
from prosemill.chunk.words import WordTable, character_kinds
from prosemill.models.bases import load_tokenizer, tokenizer_folder

PARTS = [
    *(" ", "  ", "\n", "\n\n", "\u3000", "\xa0", "\x85", "\u2028", "\x1c", "\u200b", "\t", "a", "Zß", "漢字"),
    *("12", "½", "٣", "'", "'s", "'ll", "'re", "'ve", "'v", "'S", "😀", "-", "...", "\u0301", "_", "\U00020000"),
    *("\U0001e900", "\0", ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def encoding() -> Encoding:
    parts = json.loads(load_tokenizer(tokenizer_folder("demo")).to_str())
    ranks = engine._ranks(parts)
    assert ranks
    return Encoding("demo", pat_str=engine.GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})


@pytest.fixture(scope="module")
def table(encoding: Encoding) -> WordTable:
    kinds = character_kinds(functools.partial(Encoding, "kinds", special_tokens={}))
    return WordTable(encoding._core_bpe.encode_single_piece, kinds)


def sample_texts(number: int) -> list[str]:
    rng = random.Random(7)
    joined = ["".join(rng.choices(PARTS, k=rng.randrange(14))) for _ in range(number)]
    anything = ["".join(chr(rng.randrange(0xD800)) + chr(rng.randrange(0xE000, 0x110000)) for _ in range(50))]
    return [*joined, *anything, *engine.SAMPLE, ""]


def same(table: WordTable, encoding: Encoding, texts: list[str]) -> bool:
    ids = table.encode([text.encode() for text in texts])
    return all(map(np.array_equal, ids, [encoding.encode_to_numpy(text) for text in texts])) and len(ids) == len(texts)


def test_the_ids_are_tiktokens(table: WordTable, encoding: Encoding) -> None:
    texts = sample_texts(3_000)
    assert same(table, encoding, texts)
    assert same(table, encoding, texts[::-1])  # all in the table by now
    assert table.encode([]) == []


def test_a_full_table_begins_anew(encoding: Encoding, table: WordTable, request: pytest.FixtureRequest) -> None:
    slots, group = words.SLOTS, words.GROUP_BYTES
    request.addfinalizer(lambda: vars(words).update(SLOTS=slots, GROUP_BYTES=group))
    vars(words).update(SLOTS=64, GROUP_BYTES=1_000)
    small = WordTable(encoding._core_bpe.encode_single_piece, table._kinds)
    assert same(small, encoding, sample_texts(500))


def test_where_every_word_is_new_a_table_is_of_no_use(table: WordTable, encoding: Encoding) -> None:
    fresh = WordTable(encoding._core_bpe.encode_single_piece, table._kinds)
    letters = str.maketrans("0123456789", "ghijklmnop")
    fresh.encode([" ".join(f"{number:x}" for number in range(120_000)).translate(letters).encode()])
    assert not fresh.is_of_use
    fresh = WordTable(encoding._core_bpe.encode_single_piece, table._kinds)
    fresh.encode([b"the same words again and again " * 20_000])
    assert fresh.is_of_use


@pytest.mark.parametrize("threads", [1, 2])
def test_much_text_goes_by_the_table(threads: int, request: pytest.FixtureRequest) -> None:
    worth = engine.WORTH_CHARACTERS
    request.addfinalizer(lambda: vars(engine).update(WORTH_CHARACTERS=worth))
    tokenizer = load_tokenizer(tokenizer_folder("demo"))
    texts = sample_texts(300)
    expected = engine.engine_for(tokenizer, threads)(texts)
    vars(engine).update(WORTH_CHARACTERS=0)
    actual = engine.engine_for(tokenizer, threads)(texts)
    assert all(map(np.array_equal, actual, expected))
