"""Training on one GPU: build, check and time everything in one call of under ten minutes.

    python benchmarks/gpu.py --out gpu.json                  # gpt2 (124 M); --shape gpt2-medium (355 M)
    python benchmarks/gpu.py --shape tiny --device cpu       # what the tests run: does every part work?

It needs torch, transformers and accelerate and this folder, nothing else: no Prefect, no MLflow, no `datasets`. Weights
and text are random, so that nothing is fetched; speed does not depend on them. Every part is timed by itself, a part
that fails says why in its place and the others go on, and one that would begin after --seconds is skipped.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from prosemill.finetune.attention import MASKED
from prosemill.finetune.autotune import choose, flops_per_token, keeps_apart, peak_flops
from prosemill.finetune.batches import collate, num_scored
from prosemill.finetune.checkpoints import complete
from prosemill.finetune.loss_wrapper import ComputeMode, SummedLoss
from prosemill.finetune.plan import TrainingPlan
from prosemill.finetune.trainer import ChunkTrainer

H100_FLOPS = 989e12  # dense bf16, NVIDIA's data sheet
CAUSAL = "causal"  # attention that knows no documents, for comparison alone
DOCUMENT_TOKENS = 400  # mean length of the made documents: two or three a chunk


@dataclass(frozen=True)
class Shape:
    config: dict[str, int]
    batch: int  # chunks a step, ours and theirs
    micro: int
    steps: int  # timed; as many again warm up
    new_tokens: int = 128  # of generation


SHAPES = {
    "tiny": Shape({"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 331, "n_positions": 64}, 4, 2, 2, 8),
    "gpt2": Shape({"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}, 64, 32, 10),
    "gpt2-medium": Shape(
        {"n_embd": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 50257, "n_positions": 1024}, 32, 16, 8
    ),
}


# --- model and text --------------------------------------------------------------------------------------------------


def build(shape: Shape, *, dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout)
    return GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0, **shape.config, **rates))


class RandomChunks:
    """Chunks of random ids, cut into documents of random lengths; or each one document, with `whole`."""

    def __init__(self, shape: Shape, number: int, *, whole: bool = False) -> None:
        self.tokens, self.number, self.whole = shape.config["n_positions"], number, whole
        self.ids = np.random.default_rng(0).integers(1, shape.config["vocab_size"], (256, self.tokens), dtype=np.uint16)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Any]:
        lengths = np.random.default_rng([1, index]).exponential(DOCUMENT_TOKENS * self.tokens / 1024, 64) + 8
        starts = np.concatenate([[0], np.cumsum(lengths.astype(np.int64))])
        starts = starts[:1] if self.whole else starts[starts < self.tokens]
        return {"input_ids": self.ids[index % len(self.ids)], "starts": starts, "num_tokens": self.tokens}

    def num_tokens(self) -> Any:
        return np.full(self.number, self.tokens)


# --- ours ------------------------------------------------------------------------------------------------------------


class Bench:
    """The parts of the benchmark; each gives its figures."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.shape, self.device = shape, device
        self.tokens = shape.config["n_positions"]
        self.mode: ComputeMode | None = None
        self.peak = 0.0

    def machine(self) -> dict[str, Any]:
        self.peak = peak_flops(self.device, "bf16")
        machine = {"torch": torch.__version__, "device": str(self.device), "matmul_tflops": round(self.peak / 1e12, 1)}
        if self.device.type == "cuda":
            machine |= {"name": torch.cuda.get_device_name(), "gigabytes": _total_gigabytes()}
        return machine

    def checks(self) -> dict[str, Any]:
        """The compute mode that the probe chooses, whether it keeps documents apart, its loss beside the plain one."""
        learner = SummedLoss(build(self.shape).to(self.device))
        batch = self._batch(2)
        choice = choose(learner, batch, precision="auto" if self.device.type == "cuda" else "fp32", dropout=0.0)
        self.mode = replace(choice.mode, compiled=self.device.type == "cuda")
        scored = num_scored(batch)
        nats = {}
        for name, mode in (("chosen", choice.mode), ("plain", ComputeMode())):
            learner.follow(mode)
            with torch.no_grad():
                nats[name] = round(float(learner(**batch, scale=1 / scored)), 6)
        learner.follow(choice.mode)
        apart = keeps_apart(learner, choice.mode, batch)
        return {"compute_mode": asdict(self.mode), "keeps_documents_apart": apart, "nats": nats}

    def train_ours(self) -> dict[str, Any]:
        return self._ours(self._chosen_mode())

    def train_ours_without_documents(self) -> dict[str, Any]:
        """Each chunk one document, torch's causal attention: what keeping documents apart must not cost against."""
        AttentionInterface.register(CAUSAL, _causal_attention)
        AttentionMaskInterface.register(CAUSAL, lambda *_, **__: None)
        return self._ours(replace(self._chosen_mode(), attention=CAUSAL), whole=True)

    def train_ours_with_mask_tensor(self) -> dict[str, Any]:
        return self._ours(replace(self._chosen_mode(), attention=MASKED, compiled=False))

    def train_ours_uncompiled(self) -> dict[str, Any]:
        return self._ours(replace(self._chosen_mode(), compiled=False))

    def _ours(self, mode: ComputeMode, *, whole: bool = False) -> dict[str, Any]:
        learner = SummedLoss(build(self.shape).to(self.device))
        with tempfile.TemporaryDirectory() as folder:
            trainer = self._trainer(learner, mode, Path(folder), steps=2 * self.shape.steps, whole=whole)
            figures = self._time(trainer.run, trainer.add_callback)
        return self._shares(figures, flops_per_token(learner, self.tokens)) | {"compute_mode": asdict(mode)}

    def _trainer(
        self, learner: SummedLoss, mode: ComputeMode, folder: Path, *, steps: int, whole: bool = False
    ) -> ChunkTrainer:
        rows = RandomChunks(self.shape, steps * self.shape.batch, whole=whole)
        learner.follow(mode)
        plan = TrainingPlan(
            steps=steps,
            examples=len(rows),
            batch_chunks=self.shape.batch,
            micro_batch_chunks=self.shape.micro,
            eval_every=10**9,
            learning_rate=1e-4,
            mode=mode,
            threads=torch.get_num_threads(),
            max_documents=16 + self.tokens // 32,
            flops_per_token=1.0,
            peak_flops=1.0,
        )
        settings: Any = SimpleNamespace(
            warmup_share=0.05, weight_decay=0.1, max_grad_norm=1.0, seed=0, patience=10**9, checkpoint_minutes=10**9
        )
        trainer = ChunkTrainer(learner, rows, None, plan, settings, folder)
        trainer._save_checkpoint = lambda *_: None  # type: ignore[method-assign]  # timed by itself
        return trainer

    # --- transformers' Trainer, as run_clm uses it ---

    def train_run_clm(self) -> dict[str, Any]:
        """run_clm --bf16: dropout 0.1, a micro-batch of 8, and all else by default."""
        return self._stock(dropout=0.1, micro=min(8, self.shape.batch))

    def train_run_clm_best_flags(self) -> dict[str, Any]:
        """--bf16 --torch_compile --optim adamw_torch_fused, --config_overrides for dropout 0, our micro-batch."""
        on_gpu = self.device.type == "cuda"
        return self._stock(dropout=0.0, micro=self.shape.micro, optim="adamw_torch_fused", torch_compile=on_gpu)

    def _stock(self, *, dropout: float, micro: int, **flags: Any) -> dict[str, Any]:
        steps = 2 * self.shape.steps
        rows = RandomChunks(self.shape, steps * self.shape.batch, whole=True)
        ids = [rows[row]["input_ids"].astype(np.int64) for row in range(len(rows))]
        model = build(self.shape, dropout=dropout)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=micro,
                gradient_accumulation_steps=self.shape.batch // micro,
                bf16=True,
                use_cpu=self.device.type == "cpu",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **flags,
            )
            trainer = Trainer(
                model=model,
                args=arguments,
                train_dataset=[{"input_ids": row, "labels": row} for row in ids],
                data_collator=default_data_collator,
            )
            figures = self._time(lambda _: trainer.train(), trainer.add_callback)
        return self._shares(figures, flops_per_token(SummedLoss(model), self.tokens)) | {"dropout": dropout, **flags}

    # --- the rest ---

    def resume(self) -> dict[str, Any]:
        """Six steps at once, and three with a checkpoint, thrown away and gone on from: how far the weights differ."""
        mode = replace(self._chosen_mode(), compiled=False)
        with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as broken:
            unbroken = SummedLoss(build(self.shape).to(self.device))
            self._trainer(unbroken, mode, Path(whole), steps=6).run(None)
            first = self._trainer(SummedLoss(build(self.shape).to(self.device)), mode, Path(broken), steps=6)
            del first._save_checkpoint  # it saves again
            first.add_callback(_StopAfter(3))
            first.run(None)
            started = time.perf_counter()
            resumed = SummedLoss(build(self.shape).to(self.device))
            second = self._trainer(resumed, mode, Path(broken), steps=6)
            (checkpoint,) = complete(Path(broken) / "checkpoints")
            seconds = time.perf_counter() - started
            second.run(checkpoint)
            size = sum(path.stat().st_size for path in checkpoint.iterdir())
        pairs = zip(unbroken.parameters(), resumed.parameters(), strict=True)
        difference = max(float((one - other).detach().abs().max()) for one, other in pairs)
        return {"largest_difference": difference, "checkpoint_bytes": size, "seconds_to_build_again": round(seconds, 2)}

    def evaluate(self) -> dict[str, Any]:
        """Tokens scored a second: in batches, the loss alone; and window by window with all logits (HF's recipe)."""
        model = build(self.shape).to(self.device).eval()
        learner = SummedLoss(copy.deepcopy(model), replace(self._chosen_mode(), compiled=False))
        batches = [self._batch(self.shape.micro) for _ in range(3)]
        ours = self._speed(lambda batch: learner.measure(**batch), batches)

        def window(batch: dict[str, torch.Tensor]) -> None:
            with torch.no_grad():
                float(model(input_ids=batch["input_ids"], labels=batch["input_ids"]).loss)

        theirs = self._speed(window, [self._batch(1) for _ in range(6)])
        return {"tokens_per_second": ours, "recipe_tokens_per_second": theirs, "ratio": round(ours / theirs, 2)}

    def generate(self) -> dict[str, Any]:
        """New tokens a second, 16 texts at once and one by one, greedy, bf16 on a GPU."""
        kind = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        model = build(self.shape).to(self.device, kind).eval()
        prompts = self._batch(16)["input_ids"][:, :16]
        speeds = {}
        for size in (1, 16):
            started = self._now()
            with torch.no_grad():
                model.generate(
                    prompts[:size],
                    attention_mask=torch.ones_like(prompts[:size]),
                    max_new_tokens=self.shape.new_tokens,
                    min_new_tokens=self.shape.new_tokens,
                    do_sample=False,
                    pad_token_id=0,
                )
            speeds[size] = size * self.shape.new_tokens / (self._now() - started)
        return {"one": round(speeds[1], 1), "sixteen": round(speeds[16], 1), "ratio": round(speeds[16] / speeds[1], 2)}

    # --- inside ---

    def _chosen_mode(self) -> ComputeMode:
        if self.mode is None:
            raise RuntimeError("no compute mode was chosen: the part `checks` failed")
        return self.mode

    def _batch(self, rows: int) -> dict[str, torch.Tensor]:
        chunks = RandomChunks(self.shape, rows)
        batch = collate([chunks[row] for row in range(rows)])
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _speed(self, work: Callable[[dict[str, torch.Tensor]], Any], batches: list[dict[str, torch.Tensor]]) -> float:
        work(batches[0])
        started = self._now()
        for batch in batches:
            work(batch)
        seconds = self._now() - started
        return round(sum(batch["input_ids"].numel() for batch in batches) / seconds, 1)

    def _time(self, train: Callable[[None], Any], add_callback: Callable[[Any], None]) -> dict[str, Any]:
        """Tokens a second over the second half of the steps, and the most memory that was ever held."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        clock = _Clock(self.shape.steps, self._now)
        add_callback(clock)
        train(None)
        speed = self.shape.steps * self.shape.batch * self.tokens / clock.seconds
        memory = torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else None
        return {"tokens_per_second": round(speed, 1), "gigabytes": memory and round(memory, 2)}

    def _shares(self, figures: dict[str, Any], flops: float) -> dict[str, Any]:
        achieved = figures["tokens_per_second"] * flops
        shares = {"share_of_matmul_peak": achieved / self.peak, "share_of_989_tflops": achieved / H100_FLOPS}
        return figures | {name: float(f"{share:.4g}") for name, share in shares.items()}


def _causal_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return attended.transpose(1, 2), None


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Times the steps after the first `warm` ones, without stopping the GPU in between."""

    def __init__(self, warm: int, now: Callable[[], float]) -> None:
        self.warm, self.now, self.started, self.seconds = warm, now, 0.0, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.warm:
            self.started = self.now()
        if state.global_step == 2 * self.warm:
            self.seconds = self.now() - self.started


class _StopAfter(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def _total_gigabytes() -> float:
    return round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1)


# --- the whole -------------------------------------------------------------------------------------------------------

# In order of worth: what comes last is what a slow machine does without.
PARTS = (
    "machine",
    "checks",
    "train_ours",
    "train_run_clm",
    "train_run_clm_best_flags",
    "train_ours_without_documents",
    "resume",
    "evaluate",
    "generate",
    "train_ours_uncompiled",
    "train_ours_with_mask_tensor",
)


def run(shape: str, device: str, seconds: float) -> dict[str, Any]:
    """All figures by part."""
    bench = Bench(SHAPES[shape], torch.device(device))
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    begun = time.perf_counter()
    results: dict[str, Any] = {"shape": shape}
    for name, figures in _parts(bench, begun, seconds):
        results[name] = figures
        print(f"{time.perf_counter() - begun:5.0f} s  {name}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    results["seconds"] = round(time.perf_counter() - begun, 1)
    return results | {"ratios": ratios(results)}


def _parts(bench: Bench, begun: float, seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in PARTS:
        if time.perf_counter() - begun > seconds:
            yield name, {"skipped": f"it was later than --seconds {seconds:g}"}
            continue
        try:
            yield name, getattr(bench, name)()
        except Exception as error:  # noqa: BLE001 - the other parts are still worth their time
            traceback.print_exc()
            yield name, {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        gc.collect()
        if bench.device.type == "cuda":
            torch._dynamo.reset()
            torch.cuda.empty_cache()


def ratios(results: dict[str, Any]) -> dict[str, float | None]:
    """Ours against each of the others; None where one of the two is lacking."""

    def speed(part: str) -> float | None:
        return results.get(part, {}).get("tokens_per_second")

    ours = speed("train_ours")
    others = ("train_run_clm", "train_run_clm_best_flags", "train_ours_without_documents", "train_ours_uncompiled")
    return {other: round(ours / theirs, 3) if ours and (theirs := speed(other)) else None for other in others}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=480, help="no part begins later than this")
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    result = json.dumps(run(options.shape, options.device, options.seconds), indent=1)
    if options.out:
        options.out.write_text(result + "\n", encoding="utf-8")
    print(result)


if __name__ == "__main__":
    main()
