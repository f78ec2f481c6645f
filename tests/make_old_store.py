"""Make `fixtures/old_store.tar.xz` anew: a small store as an older checkout of prosemill leaves it behind.

    git archive ba62e44 | tar x -C OLD                    the last commit before the packages of today
    python -m tests.make_old_store OLD /srv/prosemill

The older code is run as a command, in the environment of this Python, and never imported. The second argument is where
the store stands meanwhile: that path stays in its manifests and in MLflow's database (`PLACE` in test_old_store.py),
OLD's in its OpenLineage events, so neither should tell of a person or machine.
Two runs, each of which promotes its model: 36 pages of our own sentences (text and HTML), then ten more, one changed
and one gone. `later/` holds what a third run finds. Left out: Prefect's own database and login, which no other machine
uses.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.tiny import sentences

FIXTURE = Path(__file__).with_name("fixtures") / "old_store.tar.xz"
RECIPE = """\
name = "stories"
[[sources]]
name = "texts"
kind = "folder"
path = "texts"
[strip]
languages = ["*"]
[dedup]
boilerplate_pages = 1000
[split]
test_share = 0.2
validation_share = 0.1
[chunk]
chunk_tokens = 64
[evaluate]
stride = 32
sample_tokens = 8
other_kilobytes = 2
[gate]
known_margin = 0
[finetune]
base = "base"
learning_rate = 1e-2
precision = "fp32"
epochs = 4
evals = 2
"""


def make_base(folder: Path) -> None:
    """A GPT-2 of two layers and eight dimensions with 300 byte-level tokens: 20 KB."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer, end = Tokenizer(BPE()), "<|endoftext|>"
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sentences(300), trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end).save_pretrained(folder)
    torch.manual_seed(0)
    id = tokenizer.token_to_id(end)
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=8, n_layer=2, n_head=2, bos_token_id=id, eos_token_id=id)
    GPT2LMHeadModel(config).save_pretrained(folder)


def write_pages(folder: Path, numbers: range) -> None:
    """Every third page as HTML, the others as plain text: three paragraphs of four sentences."""
    folder.mkdir(exist_ok=True)
    source = sentences(1000, seed=11)
    for number in numbers:
        paragraphs = [" ".join(source[number * 12 + start : number * 12 + start + 4]) for start in (0, 4, 8)]
        if number % 3:
            (folder / f"page-{number:03}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
            continue
        body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
        html = f"<html><head><title>Story {number}</title></head><body><article>{body}</article></body></html>"
        (folder / f"page-{number:03}.html").write_text(html, encoding="utf-8")


def retrain(old: Path, home: Path, as_of: str) -> None:
    own = ("PREFECT_", "PROSEMILL_", "MLFLOW_", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment |= {"PYTHONPATH": str(old), "PROSEMILL_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from flows.cli import main; main()", "retrain", home / "stories.toml"]
    subprocess.run(
        [*command, "--as-of", as_of, "--store", home / "store"],
        cwd=old, env=environment, check=True,
    )  # fmt: skip


def is_kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without what belongs to Prefect's server alone, and without names of users."""
    if member.name.startswith("store/prefect/") and not member.name.startswith("store/prefect/results"):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main(old: Path, home: Path) -> None:
    home.mkdir(parents=True)
    make_base(home / "base")
    (home / "stories.toml").write_text(RECIPE, encoding="utf-8")
    write_pages(home / "texts", range(36))
    retrain(old, home, "2026-01-05")
    write_pages(home / "texts", range(36, 46))
    changed = home / "texts" / "page-001.txt"
    changed.write_text(f"{changed.read_text()}\n\n{' '.join(sentences(8, seed=12))}", encoding="utf-8")
    (home / "texts" / "page-002.txt").unlink()
    retrain(old, home, "2026-01-12")
    write_pages(home / "later", range(46, 58))
    with tarfile.open(FIXTURE, "w:xz") as archive:
        for part in ("stories.toml", "base", "texts", "later", "store"):
            archive.add(home / part, part, filter=is_kept)
    shutil.rmtree(home)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
