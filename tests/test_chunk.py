"""Chunks: every token of every document once, nothing cut that fits, appended by run, readable by `datasets`."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from prosemill.chunk import chunk, pack, pieces_of
from prosemill.config.settings import Chunk
from prosemill.errors import CorpusEmpty, RecipeError
from prosemill.models.bases import Base, load_tokenizer, resolve
from prosemill.storage import stages
from prosemill.storage.manifest import digest
from prosemill.storage.schemas import DOCUMENT, SPLIT
from prosemill.storage.store import Store

SETTINGS = Chunk(chunk_tokens=64)
NOUNS = ["mill", "river", "miller", "sack", "cat", "flour", "wheel", "moon"]
VERBS = ["turns", "sleeps", "grinds", "waits", "carries", "forgets"]


def prose(rng: random.Random, sentences: int) -> str:
    lines = (f"The {rng.choice(NOUNS)} {rng.choice(VERBS)} by the {rng.choice(NOUNS)}." for _ in range(sentences))
    return " ".join(lines)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("base"), vocabulary=320)


def make_base(folder: Path, vocabulary: int, stated: int = 0) -> Base:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([prose(random.Random(0), 200)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_type": "gpt2", "vocab_size": stated or vocabulary, "n_positions": 128, "eos_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    return resolve(str(folder), need_weights=False)


Increment = dict[str, tuple[str, str]]  # id -> split, text


def made_increment(seed: int, prefix: str, documents: int = 60) -> Increment:
    rng = random.Random(seed)
    parts = ["train"] * 7 + ["validation", "test", "excluded"]
    return {
        f"{prefix}{number:03}": (parts[number % 10], prose(rng, rng.choice([1, 2, 3, 5, 8, 30])))
        for number in range(documents)
    }


def write_corpus(store: Store, name: str, increments: list[Increment]) -> tuple[str, str]:
    """Dedup and split snapshots that inherit the shards of earlier runs, as the stages write them."""
    names = (f"dedup-{name}", f"split-{name}")
    shards: tuple[list, list] = ([], [])
    for number, increment in enumerate(increments):
        last = number == len(increments) - 1
        keepers = [
            dict.fromkeys(DOCUMENT.names, "")
            | {"id": id, "url": f"u/{id}", "text": text, "size_bytes": 0, "scrubbed": 0}
            for id, (_, text) in increment.items()
        ]
        splits = [
            dict.fromkeys(SPLIT.names, "") | {"id": id, "url": f"u/{id}", "split": part}
            for id, (part, _) in increment.items()
        ]
        for place, (rows, schema, role) in enumerate([(keepers, DOCUMENT, "keepers"), (splits, SPLIT, "assignments")]):
            id = names[place] if last else f"{names[place]}-{number}"
            with store.write(id, stage=role, version=1, parents=[], settings={}) as writer:
                writer.inherit(shards[place])
                pq.write_table(pa.Table.from_pylist(rows, schema=schema), writer.path("rows.parquet"))
                shards[place].append(writer.add("rows.parquet", role, len(rows)))
    return names


def rows_of(store: Store, snapshot: str, role: str) -> list[dict]:
    rows = []
    for shard in store.manifest(snapshot).shards_of(role):
        path = store.local(shard.path)
        table = pq.read_table(path) if role == "map" else pa.ipc.open_stream(path.read_bytes()).read_all()
        rows += [{"chunk": f"{shard.path}#{number}"} | row for number, row in enumerate(table.to_pylist())]
    return rows


def texts_from_chunks(store: Store, snapshot: str, part: str, base: Base) -> dict[str, str]:
    """Every document put together again from its chunks by the map."""
    chunks = {row["chunk"]: row["input_ids"] for row in rows_of(store, snapshot, part)}
    pieces: dict[str, list[dict]] = {}
    for row in rows_of(store, snapshot, "map"):
        if row["split"] == part:
            pieces.setdefault(row["document"], []).append(row)
    tokenizer, texts = load_tokenizer(base.folder), {}
    for document, rows in pieces.items():
        ids: list[int] = []
        for row in sorted(rows, key=lambda row: row["document_start"]):
            assert row["document_start"] == len(ids)
            ids += chunks[row["chunk"]][row["chunk_start"] : row["chunk_start"] + row["num_tokens"]]
        assert ids[-1] == 0
        assert 0 not in ids[:-1]
        texts[document] = tokenizer.decode(ids[:-1], skip_special_tokens=False)
    return texts


# --- packing ---------------------------------------------------------------------------------------------------------


def test_packing_loses_nothing_and_cuts_nothing_short():
    rng = random.Random(4)
    sizes = [min(5000, int(rng.lognormvariate(5.5, 1.1)) + 1) for _ in range(5000)]
    pieces = pieces_of(sizes, 1024)
    chunks = pack(pieces, 1024)
    assert sorted(piece for chunk in chunks for piece in chunk) == pieces
    assert all(sum(piece.size for piece in chunk) <= 1024 for chunk in chunks)
    cut = {piece.document for piece in pieces if piece.start}
    assert cut == {document for document, size in enumerate(sizes) if size > 1024}
    assert 1 - sum(sizes) / (1024 * len(chunks)) <= 0.008
    assert pack(pieces, 1024) == chunks


def test_best_fit_takes_the_tightest_chunk():
    sizes = [7, 6, 3, 4]
    chunks = pack(pieces_of(sizes, 10), 10)
    assert [[piece.document for piece in chunk] for chunk in chunks] == [[0, 2], [1, 3]]


def test_nothing_to_pack():
    assert pack([], 64) == []


# --- the stage -------------------------------------------------------------------------------------------------------


def test_every_document_can_be_read_back(store, base):
    increment = made_increment(1, "a")
    increment["a000"] = ("train", "A text may say <|endoftext|> and 磨坊 — naïvely.\n\n  Twice. ")
    increment["a001"] = ("train", "")
    id = chunk(store, *write_corpus(store, "1", [increment]), base, SETTINGS, as_of="2026-01-01")
    for part in ("train", "validation"):
        expected = {document: text for document, (of, text) in increment.items() if of == part}
        assert texts_from_chunks(store, id, part, base) == expected
    manifest = store.manifest(id)
    assert manifest.counts.seen == 60
    assert manifest.counts.dropped == {"test": 6, "excluded": 6}


def test_chunks_have_one_length_starts_and_padding(store, base):
    id = chunk(store, *write_corpus(store, "1", [made_increment(1, "a")]), base, SETTINGS, as_of="2026-01-01")
    pieces: dict[str, list[int]] = {}
    for row in rows_of(store, id, "map"):
        pieces.setdefault(row["chunk"], []).append(row["chunk_start"])
    padded = 0
    for row in rows_of(store, id, "train"):
        assert len(row["input_ids"]) == 64
        padding = row["input_ids"][row["num_tokens"] :]
        assert padding == [0] * len(padding)
        assert row["starts"] == pieces[row["chunk"]] + [row["num_tokens"]] * bool(padding)
        padded += len(padding)
    totals = store.manifest(id).totals
    assert totals["train_tokens"] == 64 * totals["train_chunks"] - padded
    assert 0 < totals["padding_share"] < 0.1


def test_datasets_maps_the_file(store, base):
    from datasets import Dataset

    id = chunk(store, *write_corpus(store, "1", [made_increment(1, "a")]), base, SETTINGS, as_of="2026-01-01")
    shard = store.manifest(id).shards_of("train")[0]
    dataset = Dataset.from_file(str(store.local(shard.path)))
    assert len(dataset) == shard.rows
    ids = dataset.with_format("numpy")["input_ids"][:]
    assert ids.shape == (shard.rows, 64)
    assert dataset.features["input_ids"].feature.dtype == "uint16"
    assert shard.size_bytes < 3 * ids.size + 4000


def test_a_run_appends(store, base):
    increments = [made_increment(1, "a"), made_increment(2, "b", 20)]
    one = chunk(store, *write_corpus(store, "1", increments[:1]), base, SETTINGS, as_of="2026-01-01")
    dedup, split = write_corpus(store, "1b", increments[:1])
    with store.write("dedup-2", stage="dedup", version=1, parents=[], settings={}) as writer:
        writer.inherit(store.manifest("dedup-1").shards)
        writer.inherit(store.manifest(write_corpus(store, "n", increments[1:])[0]).shards)
    with store.write("split-2", stage="split", version=1, parents=[], settings={}) as writer:
        writer.inherit(store.manifest("split-1").shards)
        writer.inherit(store.manifest("split-n").shards)
    two = chunk(store, "dedup-2", "split-2", base, SETTINGS, as_of="2026-01-02", previous=one)
    first, second = store.manifest(one), store.manifest(two)
    assert set(first.shards) < set(second.shards)
    expected = {id: text for increment in increments for id, (part, text) in increment.items() if part == "train"}
    assert texts_from_chunks(store, two, "train", base) == expected
    assert second.counts.seen == 20
    assert second.totals["new_train_documents"] == 14
    assert second.totals["train_tokens"] == first.totals["train_tokens"] + second.totals["new_train_tokens"]
    assert chunk(store, "dedup-2", "split-2", base, SETTINGS, as_of="2026-01-02", previous=one) == two

    quiet = chunk(store, "dedup-2", "split-2", base, SETTINGS, as_of="2026-01-03", previous=two)
    assert set(store.manifest(quiet).shards) == set(second.shards)
    assert store.manifest(quiet).totals["new_train_documents"] == 0

    other_corpus = chunk(store, dedup, split, base, SETTINGS, as_of="2026-01-03", previous=two)
    assert not set(store.manifest(other_corpus).shards) & set(second.shards)


def test_another_tokenizer_or_length_starts_anew(store, base, tmp_path):
    corpus = write_corpus(store, "1", [made_increment(1, "a")])
    one = chunk(store, *corpus, base, SETTINGS, as_of="2026-01-01")
    other = make_base(tmp_path, vocabulary=280)
    for two in (
        chunk(store, *corpus, other, SETTINGS, as_of="2026-01-02", previous=one),
        chunk(store, *corpus, base, Chunk(chunk_tokens=32), as_of="2026-01-02", previous=one),
    ):
        assert not set(store.manifest(two).shards) & set(store.manifest(one).shards)
        assert store.manifest(two).totals["new_train_documents"] == 42
    assert len(texts_from_chunks(store, one, "train", base)) == 42


def test_a_large_vocabulary_takes_four_bytes(store, tmp_path):
    big = make_base(tmp_path, vocabulary=300, stated=70_000)
    id = chunk(store, *write_corpus(store, "1", [made_increment(1, "a")]), big, SETTINGS, as_of="2026-01-01")
    path = store.local(store.manifest(id).shards_of("train")[0].path)
    assert pa.ipc.open_stream(path.read_bytes()).schema.field("input_ids").type == pa.list_(pa.int32(), 64)


def test_chunks_longer_than_the_context_are_refused(store, base):
    with pytest.raises(
        RecipeError, match=r"chunk_tokens 256 is longer than the context .*\(128 tokens\); set it to 128"
    ):
        chunk(store, "dedup-x", "split-x", base, Chunk(chunk_tokens=256), as_of="2026-01-01")


def test_nothing_to_train_on(store, base):
    corpus = write_corpus(store, "1", [{"a": ("test", "The mill turns.")}])
    with pytest.raises(CorpusEmpty, match="no text to train on"):
        chunk(store, *corpus, base, SETTINGS, as_of="2026-01-01")


def test_output_is_pinned(store, base):
    id = chunk(store, *write_corpus(store, "1", [made_increment(1, "a")]), base, SETTINGS, as_of="2026-01-01")
    content = [rows_of(store, id, role) for role in ("train", "validation", "map")]
    for row in [row for rows in content for row in rows]:
        row["chunk"] = row["chunk"].split("/")[1]
    assert (stages.of("chunk").version, digest(content)[:16]) == GOLDEN, "output changed: raise the version"


GOLDEN = (1, "eb9b0790832ec5d2")
