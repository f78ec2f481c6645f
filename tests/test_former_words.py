"""A corpus whose index was signed when marks tore words: read, and gone on with.

The fixture's two increments were made by stage version 2 of dedup, from words that mean nothing. Its first increment
took a text for a copy of another one that differs from it in every vowel sign.
"""

import itertools
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from prosemill.config.settings import Dedup
from prosemill.dedup import dedup
from prosemill.dedup.index import segments_of
from prosemill.dedup.minhash import Parameters, sign
from prosemill.storage.manifest import Counts
from prosemill.storage.store import Store
from prosemill.text.ngrams import ngrams
from prosemill.text.words import words
from tests.increments import write_strip

FORMER = Path(__file__).parent / "fixtures" / "dedup-version-2.tar.xz"
LAST = "dedup-96426c06e6e1a775"
SETTINGS = Dedup(num_perm=64)
OTHER_VOWELS = str.maketrans("ािीुेो", "ेोुािी")


@pytest.fixture
def former(tmp_path: Path) -> Store:
    with tarfile.open(FORMER) as archive:
        archive.extractall(tmp_path / "store", filter="data")
    return Store(str(tmp_path / "store"))


def rows_of(store: Store, snapshot: str, role: str) -> list[dict[str, str]]:
    shards = store.manifest(snapshot).shards_of(role)
    return [row for shard in shards for row in pq.read_table(store.local(shard.path)).to_pylist()]


def similarity(one: str, other: str) -> float:
    a, b = (set(ngrams(words(text), 5)) for text in (one, other))
    return len(a & b) / len(a | b)


def test_the_next_increment_finds_old_twins_in_any_script(former: Store) -> None:
    documents = [(row["source"], row["url"], row["text"]) for row in rows_of(former, "strip-2", "documents")]
    texts = {row["url"]: row["text"] for row in rows_of(former, LAST, "keepers")}
    assert len(texts) == 7
    twins = [("made", f"{url}-again", f"{text[:-8]} {text[:4]}") for url, text in texts.items()]
    unlike = ("made", "http://made/unlike", texts["http://made/hindi-1"].translate(OTHER_VOWELS))
    strip = write_strip(former, "3", [*documents, *twins, unlike])

    third = dedup(former, strip, SETTINGS, as_of="2026-01-03", previous=LAST)

    manifest = former.manifest(third)
    assert manifest.counts == Counts(8, 1, {"near": 7})
    new = {row["url"]: row for row in rows_of(former, third, "removed") if row["url"].endswith("-again")}
    for _, url, text in twins:
        original = url.removesuffix("-again")
        assert new[url]["keeper_url"] == original
        assert new[url]["similarity"] == similarity(texts[original], text) > SETTINGS.threshold
    kept = [row["url"] for row in rows_of(former, third, "keepers")]
    assert kept == [*texts, "http://made/unlike"]

    again = write_strip(former, "4", [("made", "http://made/fourth", f"{unlike[2]} और")], strip)
    fourth = dedup(former, again, SETTINGS, as_of="2026-01-04", previous=third)
    assert former.manifest(fourth).counts == Counts(1, 0, {"near": 1})
    assert all(path.startswith(third) for path in segments_of(former.manifest(fourth))), "signed anew once"


def test_text_in_which_no_letter_has_a_mark_has_the_signature_that_it_had(former: Store) -> None:
    for row, signature, shingles in signed_then(former):
        signed = sign([row["text"]], Parameters.of(SETTINGS))
        name = row["url"].removeprefix("http://made/")
        is_same = signature.tolist() == signed.signatures[0].tolist() and shingles == signed.shingles[0].tolist()
        assert is_same == (name in ("english", "chinese")), name


def signed_then(store: Store) -> list[tuple[dict[str, str], np.ndarray, list[int]]]:
    signed = []
    for segment in segments_of(store.manifest(LAST)):
        arrays = {part: np.load(store.local(f"{segment}/{part}.npy")) for part in ("signatures", "shingles", "offsets")}
        bounds = arrays["offsets"].tolist()
        hashes = [arrays["shingles"][start:end].tolist() for start, end in itertools.pairwise(bounds)]
        signed += list(zip(arrays["signatures"], hashes, strict=True))
    rows = rows_of(store, LAST, "keepers")
    return [(row, signature, shingles) for row, (signature, shingles) in zip(rows, signed, strict=True)]
