"""Small real things for tests of models: a two-layer GPT-2 with a tokenizer of its own, chunks, a corpus."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prosemill.models import bases, loading
from prosemill.models.bases import Base
from prosemill.storage.manifest import Counts, document_id
from prosemill.storage.schemas import DOCUMENT, SPLIT
from prosemill.storage.store import Store

SUBJECTS = ["The miller", "An old ferryman", "My sister", "The night train", "A heron", "The clock of the town hall"]
VERBS = ["waits for", "remembers", "paints", "carries", "forgets", "counts", "never trusts"]
OBJECTS = ["the river", "seven grey horses", "a letter from the coast", "the last light", "bread and salt", "the bells"]
ENDINGS = ["before winter.", "without a word.", "every Thursday.", "and smiles.", "because nobody else will.", "again."]


def sentences(count: int, seed: int = 0) -> list[str]:
    """`count` different sentences, the same for the same seed."""
    parts = [" ".join(words) for words in itertools.product(SUBJECTS, VERBS, OBJECTS, ENDINGS)]
    return random.Random(seed).sample(parts, count)


def texts(count: int, seed: int = 0, words: int = 6) -> list[str]:
    """`count` documents of a few sentences each, of different lengths."""
    source = iter(sentences(count * words, seed))
    return ["\n\n".join(itertools.islice(source, 1 + number % words)) for number in range(count)]


def make_base(folder: Path, *, context_tokens: int = 64, vocabulary: int = 480, seed: int = 0) -> Base:
    """A two-layer GPT-2 with 32 dimensions and a byte-level BPE tokenizer, as a Hugging Face folder."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(300), trainer)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end).save_pretrained(folder)
    torch.manual_seed(seed)
    end_id = tokenizer.token_to_id(end)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=context_tokens,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=end_id,
        eos_token_id=end_id,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return bases.resolve(str(folder))


def encode(base: Base, documents: Sequence[str]) -> list[list[int]]:
    """Token ids of each document, an end-of-text first."""
    tokenizer, end = bases.load_tokenizer(base.folder), bases.end_of_text_id(base.folder)
    return [[end, *encoding.ids] for encoding in tokenizer.encode_batch_fast(documents, add_special_tokens=False)]


def teach(base: Base, folder: Path, batches: Iterable[Sequence[list[int]]], *, learning_rate: float) -> Path:
    """A copy of the base in `folder` after one step on each batch of rows of ids."""
    import torch

    model = loading.load_model(base.folder)
    end = bases.end_of_text_id(base.folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    for rows in batches:
        length = max(map(len, rows))
        batch = torch.tensor([row + [end] * (length - len(row)) for row in rows])
        model(batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for path in base.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    model.save_pretrained(folder)
    return folder


def make_chunks(store: Store, base: Base, train: list[str], validation: list[str], *, chunk_tokens: int = 64) -> str:
    """A chunk snapshot of these documents, packed in order; a longer document is cut."""
    snapshot = "chunk-0123456789abcdef"
    with store.write(snapshot, stage="chunk", version=1, parents=[], settings={}) as writer:
        for role, documents in (("train", train), ("validation", validation)):
            table = pack(base, documents, chunk_tokens)
            if table.num_rows:
                name = f"{role}-00000.arrow"
                with pa.OSFile(str(writer.path(name)), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
                    stream.write_table(table)
                writer.add(name, role, table.num_rows)
        writer.counts = Counts(len(train) + len(validation), len(train) + len(validation))
    return snapshot


def pack(base: Base, documents: list[str], chunk_tokens: int) -> pa.Table:
    tokenizer, end = bases.load_tokenizer(base.folder), bases.end_of_text_id(base.folder)
    rows: list[tuple[list[int], list[int]]] = []
    for text in documents:
        ids = [*tokenizer.encode(text).ids, end]
        for piece in (ids[first : first + chunk_tokens] for first in range(0, len(ids), chunk_tokens)):
            if not rows or len(rows[-1][0]) + len(piece) > chunk_tokens:
                rows.append(([], []))
            rows[-1][1].append(len(rows[-1][0]))
            rows[-1][0].extend(piece)
    padded = [ids + [end] * (chunk_tokens - len(ids)) for ids, _ in rows]
    return pa.table(
        {
            "input_ids": pa.array(padded, pa.list_(pa.uint16(), chunk_tokens)),
            "starts": pa.array([starts for _, starts in rows], pa.list_(pa.uint16())),
            "num_tokens": pa.array([len(ids) for ids, _ in rows], pa.int32()),
        }
    )


def make_corpus(
    store: Store,
    documents: dict[str, list[str]],
    *,
    increment: str = "0",
    parts: dict[str, str] | None = None,
    dates: dict[str, str] | None = None,
) -> tuple[str, str]:
    """A dedup and a split snapshot of `documents`, by source: test documents unless `parts` says what a source's are.

    `dates`: when the documents of a source were first seen.
    """
    dedup, split = f"dedup-{increment:0>16}", f"split-{increment:0>16}"
    rows = []
    for source, texts in documents.items():
        for text in texts:
            url = f"https://{source}.example/{len(rows)}"
            row = dict.fromkeys(DOCUMENT.names, "") | {"id": document_id(url, text), "url": url, "source": source}
            rows.append(row | {"text": text, "size_bytes": len(text.encode()), "scrubbed": 0})
    with store.write(dedup, stage="dedup", version=1, parents=[], settings={}) as writer:
        pq.write_table(pa.Table.from_pylist(rows, DOCUMENT), writer.path("keepers.parquet"))
        writer.add("keepers.parquet", "keepers", len(rows))
    assignments = [
        dict.fromkeys(SPLIT.names, "")
        | {
            "id": row["id"],
            "url": row["url"],
            "split": (parts or {}).get(row["source"], "test"),
            "first_seen": (dates or {}).get(row["source"], ""),
        }
        for row in rows
    ]
    with store.write(split, stage="split", version=1, parents=[dedup], settings={}) as writer:
        pq.write_table(pa.Table.from_pylist(assignments, SPLIT), writer.path("assignments.parquet"))
        writer.add("assignments.parquet", "assignments", len(rows))
    return dedup, split
