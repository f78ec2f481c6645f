"""Near-duplicates against brute force, signatures against datasketch, boilerplate, and runs that build on runs."""

import random
import subprocess
import sys
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasketch import MinHash
from xxhash import xxh64_intdigest

from prosemill.config.settings import Dedup
from prosemill.dedup import dedup, remove_duplicates
from prosemill.dedup.index import IndexSegment, segments_of
from prosemill.dedup.minhash import Parameters, bands_for, sign
from prosemill.dedup.shingles import jaccard
from prosemill.errors import CorpusEmpty, StoreError
from prosemill.storage import stages
from prosemill.storage.manifest import Counts, digest
from prosemill.storage.store import Store
from prosemill.text.ngrams import shingles_of
from tests.increments import edited, sentence, write_strip

SETTINGS = Dedup()


def planted(seed: int = 7) -> list[str]:
    """240 texts: originals, and copies of them with 0 to 12 % of the words changed, shuffled."""
    rng = random.Random(seed)
    texts = []
    for _ in range(80):
        original = sentence(rng, rng.randint(40, 300))
        texts += [
            original,
            *(edited(rng, original, rng.choice([0.004, 0.01, 0.02, 0.04, 0.07, 0.12])) for _ in range(2)),
        ]
    rng.shuffle(texts)
    return texts


def brute_force(texts: list[str]) -> dict[tuple[int, int], float]:
    """Jaccard of every pair, with Python sets of Python strings: shares no code with what it judges."""
    sets = []
    for text in texts:
        words = text.lower().split()
        sets.append({" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))})
    return {(a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in combinations(range(len(texts)), 2)}


def read(store: Store, snapshot: str, role: str) -> list[dict]:
    shards = store.manifest(snapshot).shards_of(role)
    return [row for shard in shards for row in pq.read_table(store.local(shard.path)).to_pylist()]


# --- shingles and signatures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_perm", [64, 128, 256])
def test_signatures_equal_datasketch(num_perm):
    rng = random.Random(1)
    texts = [sentence(rng, words) for words in (0, 1, 4, 5, 6, 300, 5000)]
    for engine in ("numba", "datasketch"):
        signed = sign(texts, Parameters.of(Dedup(num_perm=num_perm)), engine=engine)
        for text, signature in zip(texts, signed.signatures, strict=True):
            reference = MinHash(num_perm=num_perm, hashfunc=lambda data: xxh64_intdigest(data) & 0xFFFFFFFF)
            reference.update_batch(shingles_of(text, 5))
            assert (signature == reference.hashvalues).all()


def test_jaccard_equals_that_of_python_sets():
    rng = np.random.default_rng(3)
    for _ in range(50):
        a, b = (np.unique(rng.integers(0, 60, rng.integers(0, 40)).astype(np.uint64)) for _ in range(2))
        union = len(set(a.tolist()) | set(b.tolist()))
        expected = len(set(a.tolist()) & set(b.tolist())) / union if len(a) and len(b) else 0.0
        assert jaccard(a, b) == jaccard(b, a) == expected


@pytest.mark.parametrize("num_perm", [64, 128, 256])
@pytest.mark.parametrize("loose", [0.3, 0.5, 0.65, 0.8, 1.0])
def test_bands_find_a_pair_at_the_loose_threshold(num_perm, loose):
    bands, rows = bands_for(num_perm, loose)
    assert bands * rows <= num_perm
    assert rows == 1 or 1 - (1 - loose**rows) ** bands >= 0.995


def test_default_bands():
    assert bands_for(128, 0.65) == (32, 4)


# --- the search against brute force ----------------------------------------------------------------------------------


def test_planted_clusters_against_brute_force():
    texts = planted()
    truth = brute_force(texts)
    result = remove_duplicates(pa.table({"text": texts}), SETTINGS)
    removed = {int(row["id"]): row for row in result.removed.to_pylist()}
    kept = set(range(len(texts))) - set(removed)
    assert [texts[row] for row in sorted(kept)] == result.keepers["text"].to_pylist()
    assert 60 < len(removed) < 160

    for row, removal in removed.items():  # precision 1, nothing uncovered, the similarity exact
        keeper = int(removal["keeper"])
        assert keeper in kept
        assert removal["similarity"] == truth[min(row, keeper), max(row, keeper)] >= SETTINGS.threshold
        assert keeper == max(kept & set(range(row)), key=lambda other: (truth[other, row], -other))

    greedy: list[int] = []  # the same rule with every pair at hand
    for row in range(len(texts)):
        if all(truth[other, row] < SETTINGS.threshold for other in greedy):
            greedy.append(row)
    assert len(set(greedy) - kept) <= 0.01 * len(greedy)
    assert len(kept - set(greedy)) <= 0.01 * len(greedy)

    loose = {pair for pair, similarity in truth.items() if similarity >= 0.65 and set(pair) <= kept}
    found_pairs = {(int(row["a"]), int(row["b"])): row["similarity"] for row in result.pairs.to_pylist()}
    assert len(loose) >= 20
    assert all(truth[pair] == similarity for pair, similarity in found_pairs.items())
    assert len(loose & set(found_pairs)) >= 0.99 * len(loose)


def test_exact_copies_differ_in_case_and_white_space_only():
    texts = ["The mill stood\nby the river all year", "THE MILL stood by  the river all year", "The mill stood"]
    result = remove_duplicates(pa.table({"text": texts, "url": ["a", "b", "c"]}), SETTINGS)
    assert result.removed.to_pylist() == [
        {"id": "1", "url": "b", "keeper": "0", "keeper_url": "a", "similarity": 1.0, "reason": "exact"}
    ]


def test_a_thousand_copies_leave_one():
    rng = random.Random(5)
    text = sentence(rng, 200)
    result = remove_duplicates(pa.table({"text": [text, *(edited(rng, text, 0.005) for _ in range(1000))]}), SETTINGS)
    assert result.keepers.num_rows == 1


def test_documents_without_words_are_compared_as_text_only():
    result = remove_duplicates(pa.table({"text": ["***", "---", "***", ""]}), SETTINGS)
    assert result.keepers["text"].to_pylist() == ["***", "---", ""]


# --- boilerplate -----------------------------------------------------------------------------------------------------


def site(rng: random.Random, pages: int, name: str = "mill") -> list[tuple[str, str, str]]:
    return [
        (name, f"http://{name}/{page:03}", f"Home of the mill\n\n{sentence(rng, 60)}\n\n}}\n\nAll rights reserved here")
        for page in range(pages)
    ]


def test_repeated_lines_go_and_short_ones_stay(store):
    id = dedup(store, write_strip(store, "1", site(random.Random(1), 12)), SETTINGS, as_of="2026-01-01")
    keepers = read(store, id, "keepers")
    assert len(keepers) == 12
    for keeper in keepers:
        lines = keeper["text"].split("\n")
        assert len(lines) == 3
        assert lines[1:] == ["", "}"]
        assert keeper["size_bytes"] == len(keeper["text"].encode())
    assert store.manifest(id).totals["cleaned_documents"] == 12


def test_few_pages_repeat_nothing(store):
    id = dedup(store, write_strip(store, "1", site(random.Random(1), 9)), SETTINGS, as_of="2026-01-01")
    assert all("All rights reserved" in keeper["text"] for keeper in read(store, id, "keepers"))


def test_the_share_counts_within_a_source(store):
    rng = random.Random(1)
    documents = site(rng, 12) + [("big", f"http://big/{page:03}", sentence(rng, 40)) for page in range(300)]
    documents += [
        ("big", f"http://big/line/{page:03}", f"A line on few pages\n{sentence(rng, 40)}") for page in range(12)
    ]
    id = dedup(store, write_strip(store, "1", documents), SETTINGS, as_of="2026-01-01")
    texts = [keeper["text"] for keeper in read(store, id, "keepers")]
    assert sum("A line on few pages" in text for text in texts) == 12  # 12 of 312 pages: under 5 %
    assert sum("All rights reserved" in text for text in texts) == 0


def test_code_is_never_boilerplate(store):
    rng = random.Random(2)
    code = "```\nimport the whole mill\n```\n    from the river import water"
    documents = [("docs", f"http://docs/{page}", f"{sentence(rng, 50)}\n{code}") for page in range(20)]
    id = dedup(store, write_strip(store, "1", documents), SETTINGS, as_of="2026-01-01")
    assert all(code in keeper["text"] for keeper in read(store, id, "keepers"))


def test_many_copies_of_a_page_are_copies_and_not_boilerplate(store):
    rng = random.Random(3)
    lines = [sentence(rng, 12) for _ in range(20)]
    versions = ["\n".join([*lines[:-1], sentence(rng, 12)]) for _ in range(15)]
    documents = [("docs", f"http://docs/{page:02}", text) for page, text in enumerate([*versions, *[versions[0]] * 5])]
    documents += site(rng, 30, "docs")
    id = dedup(store, write_strip(store, "1", documents), SETTINGS, as_of="2026-01-01")
    keepers = [keeper["text"] for keeper in read(store, id, "keepers")]
    assert versions[0] in keepers
    assert store.manifest(id).counts.dropped == {"exact": 5, "near": 14}


def test_a_page_of_nothing_but_boilerplate_is_dropped(store):
    documents = [*site(random.Random(1), 30), ("mill", "http://mill/x", "Home of the mill\nAll rights reserved here")]
    id = dedup(store, write_strip(store, "1", documents), SETTINGS, as_of="2026-01-01")
    assert store.manifest(id).counts == Counts(31, 30, {"boilerplate_only": 1})
    assert [row["url"] for row in read(store, id, "dropped")] == ["http://mill/x"]
    again = dedup(store, write_strip(store, "2", documents), SETTINGS, as_of="2026-01-02", previous=id)
    assert store.manifest(again).counts == Counts(0, 0, {})


def test_lines_are_counted_over_the_runs(store):
    documents = site(random.Random(1), 14)
    first = dedup(store, write_strip(store, "1", documents[:8]), SETTINGS, as_of="2026-01-01")
    second = dedup(store, write_strip(store, "2", documents), SETTINGS, as_of="2026-01-02", previous=first)
    has_footer = ["All rights reserved" in keeper["text"] for keeper in read(store, second, "keepers")]
    assert has_footer == [True] * 8 + [False] * 6  # what is published is not touched


# --- runs ----------------------------------------------------------------------------------------------------------


def as_documents(texts: list[str]) -> list[tuple[str, str, str]]:
    return [("made", f"http://made/{row:04}", text) for row, text in enumerate(texts)]


def test_runs_keep_all_that_was_kept_and_find_old_twins(store):
    documents = as_documents(planted())
    id, kept = "", set()
    for increment, end in enumerate((100, 180, 240), start=1):
        strip = write_strip(store, str(increment), documents[:end])
        id = dedup(store, strip, SETTINGS, as_of=f"2026-01-0{increment}", previous=id)
        now = {keeper["id"] for keeper in read(store, id, "keepers")}
        assert kept <= now
        kept = now
    whole = dedup(store, write_strip(store, "all", documents), SETTINGS, as_of="2026-01-03")
    for role in ("keepers", "removed", "pairs"):  # urls sort as the runs came, so the order of arrival is the same
        by = lambda row: sorted(map(str, row.values()))  # noqa: E731
        assert sorted(read(store, id, role), key=by) == sorted(read(store, whole, role), key=by)
    assert store.manifest(id).totals["live_documents"] == 240
    assert store.manifest(id).counts.seen == 60


def test_segments_stay_few(store):
    documents = as_documents(planted())[:60]
    id, sizes = "", []
    for increment in range(12):
        strip = write_strip(store, str(increment), documents[: 5 * (increment + 1)])
        id = dedup(store, strip, SETTINGS, as_of=f"2026-01-{increment + 1:02}", previous=id)
        segments = [IndexSegment.read(store, path, Parameters.of(SETTINGS)) for path in segments_of(store.manifest(id))]
        keepers = [shard.path for shard in store.manifest(id).shards_of("keepers")]
        assert [path for segment in segments for path in segment.keepers] == keepers
        assert sum(len(segment) for segment in segments) == store.manifest(id).totals["documents"]
        sizes.append(len(segments))
    assert max(sizes) <= 4
    merged, texts = segments[0], [keeper["text"] for keeper in read(store, id, "keepers")]
    fresh = IndexSegment.of(sign(texts[: len(merged)], merged.parameters), merged.parameters, merged.keepers)
    assert all((fresh.arrays()[name] == values).all() for name, values in merged.arrays().items())
    other = Dedup(num_perm=64)
    anew = dedup(store, strip, other, as_of="2026-02-01", previous=id)
    segments = [IndexSegment.read(store, path, Parameters.of(other)) for path in segments_of(store.manifest(anew))]
    assert [path for segment in segments for path in segment.keepers] == keepers
    assert len(segments) <= 4, "what is signed anew is merged alike"


def test_other_parameters_make_the_index_anew(store):
    documents = as_documents(planted())
    first = dedup(store, write_strip(store, "1", documents[:150]), SETTINGS, as_of="2026-01-01")
    other = Dedup(num_perm=64, shingle_words=4)
    with pytest.raises(StoreError, match="made with"):
        IndexSegment.read(store, segments_of(store.manifest(first))[0], Parameters.of(other))
    second = dedup(store, write_strip(store, "2", documents), other, as_of="2026-01-02", previous=first)
    keepers = {keeper["id"] for keeper in read(store, second, "keepers")}
    assert {keeper["id"] for keeper in read(store, first, "keepers")} <= keepers
    texts = [keeper["text"] for keeper in read(store, second, "keepers")]
    assert sum(
        len(IndexSegment.read(store, path, Parameters.of(other))) for path in segments_of(store.manifest(second))
    ) == len(texts)
    twin = write_strip(store, "3", [*documents, ("made", "http://made/twin", texts[0] + " zozozo")])
    third = dedup(store, twin, other, as_of="2026-01-03", previous=second)
    assert store.manifest(third).counts == Counts(1, 0, {"near": 1})


def test_a_run_without_news_inherits_everything(store):
    strip = write_strip(store, "1", as_documents(planted()[:50]))
    first = dedup(store, strip, SETTINGS, as_of="2026-01-01")
    second = dedup(store, strip, SETTINGS, as_of="2026-01-02", previous=first)
    assert store.manifest(second).counts == Counts(0, 0, {})
    assert set(store.manifest(second).shards) == set(store.manifest(first).shards)
    assert dedup(store, strip, SETTINGS, as_of="2026-01-02", previous=first) == second


def test_nothing_left_is_an_error(store):
    with pytest.raises(CorpusEmpty, match="no document is left"):
        dedup(store, write_strip(store, "1", []), SETTINGS, as_of="2026-01-01")
    assert not [name for name in store.snapshots() if name.startswith("dedup")]


def test_output_is_pinned(store):
    id = dedup(store, write_strip(store, "1", as_documents(planted())), SETTINGS, as_of="2026-01-01")
    output = digest([read(store, id, role) for role in ("keepers", "removed", "pairs")])
    signed = sign(planted()[:5], Parameters.of(SETTINGS))
    lines = [np.load(store.local(shard.path)).tolist() for shard in store.manifest(id).shards_of("lines")]
    keys = digest([signed.keys.tolist(), signed.texts.tolist(), lines])
    assert (stages.of("dedup").version, output[:16], keys[:16]) == GOLDEN, "output changed: raise the version"


GOLDEN = (3, "3f2da4592c32a81b", "b9e9ef23183a19fa")


def test_torch_is_not_imported():
    code = (
        "import sys, prosemill.dedup, prosemill.split, prosemill.chunk; "
        "import prosemill.split.stage, prosemill.models.bases, prosemill.storage.corpus; "
        "print([name for name in ('torch', 'transformers', 'prefect') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
