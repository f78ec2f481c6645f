"""The fast engine gives the tokenizer's ids, or is not used."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from benchmarks.fixtures import planted_copies
from prosemill.chunk.engine import SAMPLE, engine_for, is_fast
from prosemill.models.bases import load_tokenizer

TEXTS = [*planted_copies(60).texts, *SAMPLE]
# Another way of splitting: letters with what stands before them, digits by threes.
BY_THREES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def trained(pre_tokenizer: pre_tokenizers.PreTokenizer, alphabet: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    letters = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["<|endoftext|>"], initial_alphabet=letters)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("pre_tokenizer", [pre_tokenizers.ByteLevel(add_prefix_space=False), split_by(BY_THREES)])
def test_the_same_ids_from_the_fast_engine(pre_tokenizer: pre_tokenizers.PreTokenizer) -> None:
    tokenizer = trained(pre_tokenizer)
    assert is_fast(tokenizer)
    rng = random.Random(0)
    letters = "".join(SAMPLE)
    texts = [*TEXTS, *("".join(rng.choice(letters) for _ in range(200)) for _ in range(300))]
    for text, ids in zip(texts, engine_for(tokenizer)(texts), strict=True):
        assert ids.tolist() == ids_of(tokenizer, text), repr(text[:80])


def test_the_embedded_base_has_it() -> None:
    assert is_fast(load_tokenizer(Path(__file__).parent.parent / "data" / "base"))


def test_another_kind_of_tokenizer_is_left_to_its_own_engine() -> None:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    no_alphabet = trained(byte_level, alphabet=False)
    normalised = trained(byte_level)
    normalised.normalizer = normalizers.NFC()
    prefixed = trained(pre_tokenizers.ByteLevel(add_prefix_space=True))
    by_digit = trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]))
    word_level = Tokenizer(models.WordLevel({"[UNK]": 0, "mill": 1}, unk_token="[UNK]"))
    for tokenizer in (no_alphabet, normalised, prefixed, by_digit, word_level):
        assert not is_fast(tokenizer)
        for text, ids in zip(TEXTS[:5], engine_for(tokenizer)(TEXTS[:5]), strict=True):
            assert ids.tolist() == ids_of(tokenizer, text)


def test_a_vocabulary_with_a_token_that_no_merge_makes_is_left_to_its_own_engine() -> None:
    """tiktoken would make "ll" of "l" and "l" all the same, because it is in the vocabulary."""
    parts = json.loads(trained(pre_tokenizers.ByteLevel(add_prefix_space=False)).to_str())
    parts["model"]["merges"] = [merge for merge in parts["model"]["merges"] if "".join(merge) != "ll"]
    parts["model"]["vocab"].setdefault("ll", len(parts["model"]["vocab"]))
    tokenizer = Tokenizer.from_str(json.dumps(parts))
    tokenizer.encode_special_tokens = True
    assert not is_fast(tokenizer)
    assert engine_for(tokenizer)(["it'll call"])[0].tolist() == ids_of(tokenizer, "it'll call")


def test_no_text_is_no_work() -> None:
    encode = engine_for(load_tokenizer(Path(__file__).parent.parent / "data" / "base"))
    assert encode([]) == []
    assert np.array_equal(encode([""])[0], np.empty(0, np.uint32))
