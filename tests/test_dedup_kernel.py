"""The compiled kernel against Python shingles and datasketch's signatures; the choice between the two."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from xxhash import xxh64_intdigest

from prosemill.config.settings import Dedup
from prosemill.dedup import kernel, signing
from prosemill.dedup.index import History
from prosemill.dedup.minhash import Parameters, sign, sign_by_datasketch, signer
from prosemill.dedup.search import choose
from prosemill.errors import RecipeError

# Every way of tokens: separators, accents, letters that lower-case to other sizes or by their place, ideographs of
# three planes, kana, Hangul, combining marks, joiners, digits of other scripts, emoji, mathematical letters.
LETTERS = "aAbBzZ09_ -.,\n\tÀéßẞσΣİıȺ汉字かカ한ｶǅ\u0300\u200d😀𝐀𝔸\U00010400\U0001f600½²٣\U00020000\U000e0001"
# Of scripts with vowel signs, points and spaces, or none of these; compatibility ideographs, jamo, tags.
MORE_LETTERS = (
    "कडिी़्தொோাো้ำກຳကျွေ្កབོད་العَبֿשּ\u200c\u093c\u09c7\u09be"
    "\u1100\u1161\u11a8\u115f\ufe0f\uf900\U0002f800é\u0323\u0301가゙๑１ \u00ad.।"
)
EDGES = ["", "!!!", "one", "a b c d e", "a b c d e f", "Ω Σας ΑΣ", "İstanbul x", "汉字測試 abc def 漢字", "x\u0300y"]


def random_texts(seed: int, texts: int, letters: str) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choice(letters) for _ in range(rng.randint(0, 300))) for _ in range(texts)]


@pytest.mark.parametrize("num_perm", [64, 128, 256])
@pytest.mark.parametrize("words", [1, 5])
def test_the_bits_of_datasketch(num_perm: int, words: int) -> None:
    texts = [
        *EDGES,
        *random_texts(0, 300, LETTERS),
        *random_texts(2, 300, MORE_LETTERS),
        *random_texts(3, 200, LETTERS + MORE_LETTERS),
        *random_texts(1, 300, LETTERS.replace("Σ", "").replace("İ", "")),
        "word " * 3000,
    ]
    parameters = Parameters.of(Dedup(num_perm=num_perm, shingle_words=words))
    fast = signer("numba")

    array = pa.array(["cut off", *texts], pa.large_string())[1:]
    whole, hashes, sizes, signatures = fast(array, parameters)
    expected_whole, expected, expected_sizes, expected_signatures = sign_by_datasketch(array, parameters)

    assert whole.tolist() == expected_whole.tolist()
    assert sizes.tolist() == expected_sizes.tolist()
    assert np.array_equal(hashes, expected)
    assert (signatures == expected_signatures).all()


def test_both_engines_keep_the_same_documents() -> None:
    texts = [
        *random_texts(0, 200, LETTERS),
        *random_texts(1, 200, LETTERS.replace("Σ", "")),
        *(f"{text} and" for text in random_texts(0, 200, LETTERS)),
    ]
    settings = Dedup(shingle_words=2)
    numba, datasketch = (sign(texts, Parameters.of(settings), engine=engine) for engine in ("numba", "datasketch"))
    assert np.array_equal(numba.signatures, datasketch.signatures)
    assert np.array_equal(numba.keys, datasketch.keys)
    choice = choose(numba, History([]), settings)
    assert choice == choose(datasketch, History([]), settings)
    assert {removal.reason for removal in choice.removed} == {"exact", "near"}


SIGN = """
import os, sys
if os.environ["WITHOUT"]:
    sys.modules[os.environ["WITHOUT"]] = None
from prosemill.config.settings import Dedup
from prosemill.dedup.minhash import Parameters, sign
print(sign(["a road to the mill and back"], Parameters.of(Dedup())).signatures.sum(), "datasketch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("without", "engine", "by_datasketch"),
    [("", "", False), ("", "datasketch", True), ("numba", "", True)],
)
def test_datasketch_signs_where_it_is_asked_to_or_numba_does_not_work(
    without: str, engine: str, by_datasketch: bool
) -> None:
    environment = os.environ | {"WITHOUT": without, "PROSEMILL_DEDUP_ENGINE": engine}
    done = subprocess.run([sys.executable, "-c", SIGN], env=environment, capture_output=True, text=True, check=True)
    expected = int(sign(["a road to the mill and back"], Parameters.of(Dedup())).signatures.sum())
    assert done.stdout.split() == [str(expected), str(by_datasketch)]


def test_numba_asked_for_where_it_is_missing_is_a_refusal() -> None:
    environment = os.environ | {"WITHOUT": "numba", "PROSEMILL_DEDUP_ENGINE": "numba"}
    done = subprocess.run([sys.executable, "-c", SIGN], env=environment, capture_output=True, text=True, check=False)
    assert "dedup engine numba: numba is not installed; use datasketch" in done.stderr


def test_an_engine_that_nobody_knows_is_a_refusal() -> None:
    with pytest.raises(RecipeError, match="no such engine; numba or datasketch"):
        signer("rensa")


def test_shingles_spilled_to_a_file_are_the_same(tmp_path: Path) -> None:
    texts, parameters = [*EDGES, *random_texts(0, 1200, LETTERS)], Parameters.of(Dedup())
    with open(tmp_path / "spilled", "w+b") as file:
        spilled, held = sign(texts, parameters, file), sign(texts, parameters)
        assert isinstance(spilled.shingles.hashes, np.memmap)
        assert np.array_equal(spilled.shingles.hashes, held.shingles.hashes)
        assert np.array_equal(spilled.shingles.offsets, held.shingles.offsets)
        assert np.array_equal(spilled.keys, held.keys)
        assert choose(spilled, History([]), Dedup()) == choose(held, History([]), Dedup())


def test_what_only_python_can_lower_is_left_to_it() -> None:
    texts = ["ΟΔΟΣ αβγ", "plain words", "İ", "e\u0301"]
    array = pa.array(texts, pa.large_string())
    _, offsets, data = array.buffers()
    factors = np.ones(4, np.uint32)
    arguments = np.frombuffer(data, np.uint8), np.frombuffer(offsets, np.int64)[:5], 5, factors, factors
    for is_nfc, left in ((False, [True, False, True, True]), (True, [True, False, True, False])):
        _, _, counts, _ = signing.sign_batch(*arguments, is_nfc=is_nfc)
        assert (counts < 0).tolist() == left


def test_the_kernel_knows_every_character() -> None:
    """Each behind a letter, behind a separator, in front of a letter; of ideographs and what is unassigned some."""
    codes = [*range(0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x17000), *range(0x18B00, 0x20000)]
    codes += [
        *range(0x2F800, 0x2FA20),
        *range(0xE0000, 0xE0200),
        *range(0x3400, 0xD800, 41),
        *range(0x20000, 0x110000, 997),
    ]
    pieces = [f"a{chr(code)}b {chr(code)}か{chr(code)}" for code in codes]
    array = pa.array([" ".join(pieces[at : at + 4]) for at in range(0, len(pieces), 4)], pa.large_string())
    parameters = Parameters.of(Dedup(num_perm=64, shingle_words=12))
    fast = signer("numba")
    for actual, expected in zip(fast(array, parameters), sign_by_datasketch(array, parameters), strict=True):
        assert np.array_equal(actual, expected)


def test_xxh64_is_xxhash() -> None:
    rng = random.Random(3)
    for size in [*range(70), 300, 1000]:
        data = rng.randbytes(size)
        assert int(kernel.xxh64(np.frombuffer(data, np.uint8), 0, size)) == xxh64_intdigest(data)
