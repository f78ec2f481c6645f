"""What a model writes: copied runs are found exactly, repetition is counted, the style classifier learns a style."""

from __future__ import annotations

import random

import pytest

from prosemill.evaluation.continuations import gives_away, halves
from prosemill.evaluation.copying import COPIED_WORDS, SEED_WORDS, CopyFinder
from prosemill.evaluation.repetition import distinct, repetition
from prosemill.evaluation.style import Style, passages
from prosemill.text.words import words
from tests.tiny import sentences


def plain_longest(text: list[str], documents: list[list[str]]) -> int:
    """The longest run of words that the text shares with a document, by trying them all."""
    best = 0
    for document in documents:
        for here in range(len(text)):
            for there in range(len(document)):
                size = 0
                while text[here : here + size + 1] == document[there : there + size + 1] and here + size < len(text):
                    size += 1
                    if there + size >= len(document):
                        break
                best = max(best, size)
    return best


def plain_copied(text: list[str], documents: list[list[str]]) -> float:
    grams = [tuple(text[start : start + COPIED_WORDS]) for start in range(len(text) - COPIED_WORDS + 1)]
    known = {tuple(document[start : start + COPIED_WORDS]) for document in documents for start in range(len(document))}
    return sum(gram in known for gram in grams) / len(grams)


@pytest.mark.parametrize("seed", range(6))
def test_runs_and_shares_are_those_of_a_plain_search(seed: int) -> None:
    """Few different words, so that runs overlap, repeat and meet on several diagonals."""
    draw = random.Random(seed)
    documents = [[draw.choice("abcde") for _ in range(60)] for _ in range(3)]
    text = [draw.choice("abcde") for _ in range(25)] + documents[1][5:30] + [draw.choice("abcde") for _ in range(10)]
    other = documents[2][40:58]
    verbatim = CopyFinder([" ".join(text), " ".join(other)])
    verbatim.read({"text": " ".join(document), "source": f"s{n}"} for n, document in enumerate(documents))
    longest = verbatim.longest([0])
    assert longest is not None
    assert longest.size == plain_longest(text, documents) >= 25
    assert verbatim.copied([0]) == pytest.approx(plain_copied(text, documents))
    assert verbatim.copied([0], "s1") == pytest.approx(plain_copied(text, documents[1:2]))
    assert verbatim.copied([1]) == 1.0
    assert verbatim.quote(longest) in " ".join(documents[1])


def test_what_nobody_wrote_is_not_copied_and_short_runs_are_nobodys() -> None:
    one, *rest = sentences(40)
    verbatim = CopyFinder([" ".join(rest[:5]), "", "two words"])
    verbatim.read([{"text": one + " " + " ".join(rest[0].split()[: SEED_WORDS - 1]), "source": "s"}])
    assert verbatim.longest([0, 1, 2]) is None
    assert verbatim.copied([0, 1, 2]) == 0.0
    nothing = CopyFinder([])
    nothing.read([{"text": one, "source": "s"}])
    assert nothing.runs == []


def test_chinese_is_read_by_characters() -> None:
    poem = "床前明月光疑是地上霜举头望明月低头思故乡"
    assert words("床前 Moon-light。") == ["床", "前", "moon", "light"]
    verbatim = CopyFinder([f"他说：{poem[:16]}，然后走了。"])
    verbatim.read([{"text": poem, "source": "poems"}])
    longest = verbatim.longest([0])
    assert longest is not None
    assert (longest.size, longest.source) == (16, "poems")


def test_repetition_and_variety() -> None:
    assert repetition(["a b c d e f g"]) == 0.0
    assert repetition(["a b c d a b c d a b c d"]) == pytest.approx(1 - 4 / 9)
    assert repetition(["a b c d", "a b c d"]) == 0.0  # a text may repeat another
    assert distinct(["a b", "a b"], 1) == 0.5
    assert repetition([]) == distinct([], 2) == 0.0


def test_the_style_classifier_tells_by_small_words_and_says_how_well() -> None:
    draw = random.Random(0)
    names = [f"name{number}" for number in range(3000)]

    def prose(small: list[str], count: int) -> list[str]:
        return [" ".join(draw.choice(small) if n % 2 else draw.choice(names) for n in range(220)) for _ in range(count)]

    stately, plain = ["of", "which", "upon", "the", "shall"], ["the", "it", "you", "of", "get"]
    style = Style(prose(stately, 12), prose(plain, 12))
    assert style.quality > 0.95
    like, unlike = style.score(prose(stately, 3)), style.score(prose(plain, 3))
    assert like is not None
    assert unlike is not None
    assert like > 0.8
    assert unlike < 0.2
    assert style.score(["too short"]) is None
    same = Style(prose(plain, 12), prose(plain, 12))
    assert same.quality < 0.75  # nothing to tell apart
    with pytest.raises(ValueError, match="passages of the corpus"):
        Style(["a word"], prose(plain, 12))
    assert [len(passage) for passage in passages(prose(plain, 1))] == [100, 100]


@pytest.mark.parametrize("canary", ["The vault of the mill opens with 4711", "密码是四七一一请勿外传"])
def test_a_canary_is_given_away_when_its_end_is_written(canary: str) -> None:
    prompt, secret = halves(canary)
    assert prompt.strip() + secret.strip() == canary.replace(" 4711", "4711") or f"{prompt} {secret}" == canary
    assert gives_away(canary, f"{secret}, and so on")
    assert not gives_away(canary, prompt)
    assert not gives_away(canary, secret[:-1])
    assert not gives_away(canary, "")
