"""SIGKILL at ten random steps of one training run: do the weights end equal to those of an unbroken run, bit for bit?

    python -m benchmarks.kill_training [--kills 10] [--seed 0] [--out benchmarks/results/kill_training.json]

A two-layer GPT-2 learns from a few hundred made sentences, with dropout, so that random state counts as well. The
program that trains is killed, or its training process alone, by turns, as soon as it tells of the step that was drawn,
and started again. Checkpoints are written every half second, so most kills lose some steps, which are then made again.
A minute on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prosemill.config.settings import Finetune
from prosemill.models import bases
from prosemill.storage.store import Store
from tests.tiny import make_base, make_chunks, texts

SETTINGS = Finetune(
    epochs=10, learning_rate=3e-3, batch_chunks=4, micro_batch_chunks=4, evals=4, patience=1000, precision="fp32",
    dropout=0.1,
)  # fmt: skip
CHECKPOINT_SECONDS = 0.5


def lay(folder: Path) -> tuple[Store, str]:
    """A store with a base beside it and a chunk snapshot in it."""
    store = Store(str(folder / "store"))
    store.check_writable()
    base = make_base(folder / "base")
    return store, make_chunks(store, base, texts(150), texts(12, seed=1))


def train(folder: Path, chunk: str) -> None:
    """What the victim does: fine-tune, telling each step on a line of its own."""
    from prosemill.finetune import finetune

    minutes = CHECKPOINT_SECONDS / 60
    settings = SETTINGS.model_copy(update={"checkpoint_minutes": minutes})
    finetune(
        Store(str(folder / "store")), chunk, bases.resolve(str(folder / "base")), settings,
        listener=lambda message: print(json.dumps(message), flush=True),
    )  # fmt: skip


def start(folder: Path, chunk: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.kill_training", "--train", str(folder), "--chunk", chunk]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_at(folder: Path, chunk: str, step: int, victim: str) -> dict[str, Any]:
    """Start the run and kill it, or its child, once it has told of that step; what was lost by it."""
    process = start(folder, chunk)
    assert process.stdout is not None  # we asked for a pipe
    steps = _steps(process.stdout)
    began = next(steps)
    reached = next((reported for reported in steps if reported >= step), None)
    if reached is None:
        raise SystemExit(f"the run ended before step {step}, at which it was to be killed")
    pid = process.pid if victim == "program" else _child_of(process.pid)
    os.kill(pid, signal.SIGKILL)
    process.stdout.read()
    process.wait()
    kept = [int(path.name.split("-")[1]) for path in folder.glob("store/unfinished/*/checkpoints/checkpoint-*")]
    return {"victim": victim, "wanted": step, "went_on_from": began, "killed_at": reached, "kept": max(kept, default=0)}


def _steps(lines: Any) -> Iterator[int]:
    """The first of them is where the run went on from; 0 at the beginning."""
    first = True
    for line in lines:
        message = json.loads(line)
        if "step" in message:
            if first and not message.get("resumed"):
                yield 0
            first = False
            yield message["step"]


def _child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


def totals(store: Store) -> Mapping[str, Any]:
    (snapshot,) = [id for id in store.snapshots() if id.startswith("finetune-")]
    return store.manifest(snapshot).totals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the steps at which it is killed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kill_training.json"))
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--chunk", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        return train(args.train, args.chunk)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        store, chunk = lay(Path(one))
        victim, _ = lay(Path(other))
        start(Path(one), chunk).communicate()
        expected = totals(store)
        steps = sorted(random.Random(args.seed).sample(range(2, expected["steps"]), args.kills))
        kills = []
        for number, step in enumerate(steps):
            kills.append(kill_at(Path(other), chunk, step, ("program", "training process")[number % 2]))
            print(kills[-1], flush=True)
        start(Path(other), chunk).communicate()
        after_kills = totals(victim)
    same = {
        name: after_kills[name] == expected[name]
        for name in ("weights_sha256", "validation_loss", "best_step", "steps")
    }
    result = {"steps": expected["steps"], "kills": kills, "same": same, "weights_sha256": after_kills["weights_sha256"]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(same))
    if not all(same.values()):
        sys.exit("the weights differ from those of the unbroken run")
    return None


if __name__ == "__main__":
    main()
