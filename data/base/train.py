"""Documents in, a trained GPT-2 out: tokenizer, packing, optimiser, schedule and held-out score of the base model."""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from prepare import SOURCES, Document
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, GPT2Config, GPT2LMHeadModel

END_OF_TEXT = "<|endoftext|>"
END_ID = 0
VOCABULARY = 4_096  # with 256 columns a quarter of the weights; 8,192 would leave too little for the layers in 10 MB
CONTEXT = 1_024
SHORT_CONTEXT = 256  # 1.4 times the tokens per CPU second of the full context; what is learned at first is local
SHORT_UNTIL = 0.6  # share of the run with short windows: all 1,024 positions are trained for the last two fifths
DECAY_FROM = 0.75  # of the run: warm-up, constant, then linear to zero (WSD), so the end can be moved while it runs
WARMUP_STEPS = 100
BATCH_TOKENS = 8_192  # small model, few tokens: more steps are worth more than larger ones
MICRO_BATCH_TOKENS = 2_048  # its activations stay near the caches; larger ones were no faster
MUON_RATE = 4e-3  # with Muon's update scaled to the root mean square of AdamW's (match_rms_adamw)
ADAM_RATE = 5e-3  # embeddings, positions, norms, biases
SEED = 1729

Tokens = NDArray[np.uint16]


def train_tokenizer(documents: Iterable[Document]) -> Tokenizer:
    """A byte-level BPE like GPT-2's: every text comes back exactly, <|endoftext|> is id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    repeats = {source.key: source.repeats for source in SOURCES}
    tokenizer.train_from_iterator((d["text"] for d in documents for _ in range(repeats[d["source"]])), trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[Document]) -> list[Tokens]:
    """One array of ids per document, each ending in <|endoftext|>."""
    encodings = tokenizer.encode_batch_fast([document["text"] for document in documents])
    return [np.array([*encoding.ids, END_ID], dtype=np.uint16) for encoding in encodings]


def pass_over(arrays: list[Tokens], repeats: list[int], number: int) -> Tokens:
    """The ids of one pass over the corpus in an order of its own, documents shown as often as their source says."""
    order = np.repeat(np.arange(len(arrays)), repeats)
    np.random.default_rng([SEED, number]).shuffle(order)
    return np.concatenate([np.array([END_ID], dtype=np.uint16), *(arrays[i] for i in order)])


def chunked_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention as plain matrix products over runs of queries; batch x heads x length x 64 in.

    Measured on one core with avx512_bf16 and no AMX, forward and backward, 2,048 tokens: 21 ms at length 512 and 40 ms
    at 1,024, where torch's fused kernel takes 42 and 52 ms. For training only: the scores are in bf16.
    """
    length, outputs = query.shape[2], []
    size = min(length, 128)
    future = torch.full((size, size), float("-inf"), dtype=query.dtype).triu(1)
    for start in range(0, length, size):
        end = start + size
        scores = query[:, :, start:end] @ key[:, :, :end].transpose(-1, -2) * query.shape[-1] ** -0.5
        scores[..., start:end] += future
        outputs.append(torch.softmax(scores, -1) @ value[:, :, :end])
    return torch.cat(outputs, 2).transpose(1, 2), None


def build_model() -> GPT2LMHeadModel:
    """GPT-2 of 4 layers x 256, 4.5 M parameters: 9.2 MB in fp16.

    The activation is GPT-2's own (the tanh approximation of GELU) under the name of torch's fused kernel, which is
    faster than the four element-wise kernels of "gelu_new". Dropout 0: it costs half of the speed on a CPU.
    """
    torch.manual_seed(SEED)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=256,
        n_layer=4,
        n_head=4,
        activation_function="gelu_pytorch_tanh",
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        attn_implementation="sdpa",
    )
    return GPT2LMHeadModel(config)


def build_optimizers(model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for the rest: at this size Muon needs far fewer tokens than AdamW alone."""
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and ".h." in name]
    tables = [p for name, p in model.named_parameters() if p.ndim == 2 and ".h." not in name]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(hidden, lr=MUON_RATE, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": tables, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=ADAM_RATE, betas=(0.9, 0.95), eps=1e-10)
    return [muon, adam]


def rate_factor(progress: float, step: int) -> float:
    """The share of the full learning rate at a step; progress runs from 0 to 1 over the run."""
    decay = min(1.0, max(0.0, (1 - progress) / (1 - DECAY_FROM)))
    return min(1.0, (step + 1) / WARMUP_STEPS) * decay


def nats(model: GPT2LMHeadModel, ids: torch.Tensor, targets: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Cross-entropy of `targets` after `ids`, in nats."""
    logits = model(input_ids=ids, use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)


@dataclass
class TrainingRun:
    """A training run that survives being killed: all that changes is in its checkpoint."""

    arrays: list[Tokens]
    repeats: list[int]
    work: Path
    target_tokens: int
    minutes: float | None = None  # end by the clock instead of by tokens, where the machine is shared
    # One process per core, each with its part of a batch: with other work on the machine, threads that wait for each
    # other in every kernel fell to a tenth of their speed, processes to a third.
    rank: int = 0
    ranks: int = 1
    model: GPT2LMHeadModel = field(default_factory=build_model)
    nats: Callable[[GPT2LMHeadModel, torch.Tensor, torch.Tensor], torch.Tensor] = nats
    step: int = 0
    tokens: int = 0
    number: int = 0  # of the pass
    at: int = 0  # position in the pass
    seconds: float = 0.0  # of training, pauses and restarts excluded
    deadline: float = 0.0

    def __post_init__(self) -> None:
        self.optimizers = build_optimizers(self.model)
        if self.checkpoint.exists():
            self.load()
        self.stream = pass_over(self.arrays, self.repeats, self.number)

    @property
    def checkpoint(self) -> Path:
        return self.work / "checkpoint.pt"

    def save(self) -> None:
        """Writes the checkpoint aside and renames it, so that a kill never leaves half of one."""
        counters = {k: getattr(self, k) for k in ("step", "tokens", "number", "at", "seconds", "deadline")}
        state = {
            "counters": counters,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        aside = self.checkpoint.with_suffix(".tmp")
        torch.save(state, aside)
        aside.rename(self.checkpoint)

    def load(self) -> None:
        state: dict[str, Any] = torch.load(self.checkpoint)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for name, value in state["counters"].items():
            setattr(self, name, value)

    def progress(self) -> float:
        """How much of the run is done, 0 to 1: by tokens, or by training time against what the deadline leaves."""
        if self.minutes is None:
            return self.tokens / self.target_tokens
        override = self.work / "deadline"  # a file with a Unix time moves the end of a run that is under way
        if override.exists():
            self.deadline = float(override.read_text())
        return self.seconds / max(1.0, self.seconds + self.deadline - time.time())

    def next_windows(self, context: int) -> tuple[torch.Tensor, torch.Tensor]:
        """This process's part of a batch: windows of `context` ids and the ids that follow each of them."""
        if self.at + BATCH_TOKENS + 1 > len(self.stream):
            self.number, self.at = self.number + 1, 0
            self.stream = pass_over(self.arrays, self.repeats, self.number)
        size = BATCH_TOKENS // self.ranks
        start = self.at + self.rank * size
        flat = torch.from_numpy(self.stream[start : start + size + 1].astype(np.int64))
        self.at += BATCH_TOKENS
        return flat[:-1].view(-1, context), flat[1:].view(-1, context)

    def share_gradients(self, loss: float) -> float:
        """Replaces every process's gradients, and its loss, by their mean over the processes."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([loss])])
        if self.ranks > 1:
            dist.all_reduce(flat)
        flat /= self.ranks
        for gradient, mean in zip(gradients, torch.split(flat[:-1], [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
        return float(flat[-1])

    def agreed_progress(self) -> float:
        """The first process's progress: every process must use the same rate and stop at the same step."""
        progress = torch.tensor([self.progress()], dtype=torch.float64)
        if self.ranks > 1:
            dist.broadcast(progress, 0)
        return progress.item()

    def one_step(self, progress: float) -> float:
        """One optimiser step over a batch, in micro-batches; the mean loss."""
        factor = rate_factor(progress, self.step)
        for optimizer, rate in zip(self.optimizers, (MUON_RATE, ADAM_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        ids, targets = self.next_windows(SHORT_CONTEXT if progress < SHORT_UNTIL else CONTEXT)
        parts = max(1, ids.numel() // MICRO_BATCH_TOKENS)
        total = 0.0
        for some_ids, some_targets in zip(ids.chunk(parts), targets.chunk(parts), strict=True):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = self.nats(self.model, some_ids, some_targets) / parts
            torch.autograd.backward(loss)
            total += loss.item()
        total = self.share_gradients(total)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step, self.tokens = self.step + 1, self.tokens + BATCH_TOKENS
        return total

    def train(self) -> None:
        """Trains to the end, with a checkpoint each minute and a line of log every 50 steps."""
        self.deadline = self.deadline or time.time() + 60 * (self.minutes or 0)
        saved, losses = time.time(), []
        self.model.train()
        while (progress := self.agreed_progress()) < 1:
            start = time.time()
            losses.append(self.one_step(progress))
            self.seconds += time.time() - start
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"loss {losses[-1]} at step {self.step}: lower MUON_RATE or ADAM_RATE")
            if self.step % 50 == 0 and self.rank == 0:
                line = {"step": self.step, "tokens": self.tokens, "progress": round(progress, 4)}
                line |= {"loss": round(sum(losses) / len(losses), 4), "seconds": round(self.seconds)}
                print(json.dumps(line), flush=True)
                losses.clear()
            if time.time() - saved > 60 and self.rank == 0:
                self.save()
                saved = time.time()
        if self.rank == 0:
            self.save()


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory: it would hand every large tensor back to the kernel and fault it in again.

    Measured here: 15 % more tokens a second, and the share of time in the kernel falls from 14 % to 2 %.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def train_in_processes(arguments: dict[str, Any], ranks: int) -> None:
    """Trains a Run of these arguments in one single-threaded process per core, on any number of cores."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo would else look for the machine's name on the network
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = f"file://{folder}/rendezvous"
        spawn(train_one_rank, (arguments, ranks, rendezvous), nprocs=ranks)  # type: ignore[no-untyped-call]


def train_one_rank(rank: int, arguments: dict[str, Any], ranks: int, rendezvous: str) -> None:
    """One of the processes of `train_in_processes`."""
    torch.set_num_threads(1)
    keep_freed_memory()
    AttentionInterface.register("chunked", chunked_attention)
    AttentionMaskInterface.register("chunked", lambda *_, **__: None)  # windows are full: no mask but the causal one
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=ranks)
    run = TrainingRun(**arguments, rank=rank, ranks=ranks)
    run.model.set_attn_implementation("chunked")
    run.nats = torch.compile(nats, dynamic=False)  # a tenth to a fifth faster, for a minute or two per window length
    run.train()
    dist.destroy_process_group()


def windows(ids: Tokens) -> Iterator[tuple[Tokens, Tokens, int]]:
    """Sliding windows of a document that begins with <|endoftext|>: inputs, targets and how many targets are scored.

    Each id is scored once; after the first window each is scored with at least half a context before it.
    """
    scored = 0
    while scored < len(ids) - 1:
        end = min(len(ids) - 1, CONTEXT if scored == 0 else scored + CONTEXT // 2)
        start = max(0, end - CONTEXT)
        yield ids[start:end], ids[start + 1 : end + 1], end - scored
        scored = end


@torch.no_grad()
def bits_per_byte(
    model: GPT2LMHeadModel, documents: list[Document], arrays: list[Tokens]
) -> dict[str, dict[str, float]]:
    """Held-out score per source and over all, in fp32: nats / (ln 2 x UTF-8 bytes), <|endoftext|> itself included."""
    model.eval()
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for document, array in zip(documents, arrays, strict=True):
        total = 0.0
        for inputs, targets, scored in windows(np.concatenate([np.array([END_ID], dtype=np.uint16), array])):
            ids = torch.from_numpy(inputs.astype(np.int64))[None]
            expected = torch.from_numpy(targets.astype(np.int64))[None]
            total += float(nats(model, ids, expected, "none")[-scored:].double().sum())
        for key in (document["source"], "all"):
            for i, value in enumerate((total, len(document["text"].encode()), len(array))):
                sums[key][i] += value
    return {
        key: {
            "bits_per_byte": round(loss / math.log(2) / size, 4),
            "perplexity": round(math.exp(loss / count), 3),
            "bytes": size,
            "tokens": count,
        }
        for key, (loss, size, count) in sums.items()
    }
