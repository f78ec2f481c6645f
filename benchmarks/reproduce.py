"""Does `prosemill reproduce` make the same weights in a fresh clone? One clone trains, another makes its model again.

    python -m benchmarks.reproduce [--out benchmarks/results/reproduce.json]

What is compared is the last commit: uncommitted changes are not in a clone. The recipe is small (the embedded base, a
few of the presidents' messages), the probe is left on: what it found is part of the record. Minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gate_trials import passages

ROOT = Path(__file__).resolve().parent.parent
PAGES = 60
RECIPE = """
name = "again"
[[sources]]
name = "messages"
kind = "folder"
path = "texts"
[dedup]
boilerplate_pages = 1000
[split]
test_share = 0.2
validation_share = 0.1
[chunk]
chunk_tokens = 256
[finetune]
base = "demo"
learning_rate = 1e-3
epochs = 2
batch_chunks = 4
evals = 3
[evaluate]
stride = 128
sample_tokens = 24
continuations = 2
other_kilobytes = 4
"""


def clone(folder: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder)], check=True)
    return folder


def prosemill(where: Path, *arguments: str) -> dict[str, Any]:
    """What a command says, run with the code of the clone `where`."""
    program = [sys.executable, "-c", "from flows.cli import main; main()", *arguments, "--json"]
    environ = os.environ | {"PYTHONPATH": str(where)}
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, cwd=where, env=environ, check=False)
    if not done.stdout.startswith("{"):
        sys.exit(f"prosemill {arguments[0]} ended with {done.returncode} and said nothing")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/reproduce.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "texts").mkdir()
        for number, text in enumerate(passages(1850)[:PAGES]):
            (folder / "texts" / f"page-{number:03}.txt").write_text(text, encoding="utf-8")
        (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
        store = ("--store", str(folder / "store"))
        trained = prosemill(clone(folder / "first"), "retrain", str(folder / "recipe.toml"), *store)
        reproduced = prosemill(clone(folder / "second"), "reproduce", "again", *store)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result = {"commit": commit.stdout.strip(), "decision": trained["decision"], "model": trained["model"]} | reproduced
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    if not reproduced["same"]:
        sys.exit("the weights differ")


if __name__ == "__main__":
    main()
