"""Makes data/base/ again, from package names to the model card's figures.

    fetch -> prepare -> tokenizer -> train -> export -> evaluate

    python make_base.py --work DIR                    the whole way, 45 M tokens: about an hour on two idle cores
    python make_base.py --work DIR --minutes 80       end by the clock, on a machine that is shared
    python make_base.py --work DIR --only export      an intermediate model, from the last checkpoint

Every step keeps its result in the work folder and is skipped if it is there. A killed training goes on from its
checkpoint, at most a minute back. Needs apt-get and npm beside the project's own environment.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from prepare import SOURCES, Document, fetch, package_version, read_documents, split, unpack
from tokenizers import Tokenizer
from train import CONTEXT, END_ID, END_OF_TEXT, TrainingRun, bits_per_byte, encode, train_in_processes, train_tokenizer
from transformers import GenerationConfig, GPT2LMHeadModel, PreTrainedTokenizerFast

HERE = Path(__file__).parent


def prepare(work: Path) -> list[Document]:
    """All documents, read from the packages once and kept as JSON lines."""
    path = work / "documents.jsonl"
    if not path.exists():
        roots = {s.key: unpack(fetch(s, work / "downloads"), work / "unpacked" / s.key) for s in SOURCES}
        documents = [document for s in SOURCES for document in read_documents(s, roots[s.key])]
        path.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents), "utf-8")
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def make_tokenizer(work: Path, documents: list[Document]) -> Tokenizer:
    """The tokenizer, trained on the training documents only."""
    path = work / "tokenizer.json"
    if not path.exists():
        train_tokenizer(documents).save(str(path))
    return Tokenizer.from_file(str(path))


def describe_sources(work: Path, documents: list[Document]) -> list[dict[str, Any]]:
    """What the model was trained on, for sources.json: bytes as prepared, share of bytes as shown."""
    sizes = {s.key: sum(len(d["text"].encode()) for d in documents if d["source"] == s.key) for s in SOURCES}
    total = sum(sizes[s.key] * s.repeats for s in SOURCES)
    return [
        {
            "name": s.key,
            "package": s.package,
            "registry": s.registry,
            "version": package_version(s, fetch(s, work / "downloads")),
            "licence": s.licence,
            "documents": sum(d["source"] == s.key for d in documents),
            "bytes": sizes[s.key],
            "repeats": s.repeats,
            "share": round(sizes[s.key] * s.repeats / total, 4),
        }
        for s in SOURCES
    ]


def export(model: GPT2LMHeadModel, tokenizer_file: Path, target: Path) -> None:
    """Writes the model in fp16, the tied head stored once, and the tokenizer for `from_pretrained`."""
    model = model.half()
    model.generation_config = GenerationConfig(bos_token_id=END_ID, eos_token_id=END_ID, pad_token_id=END_ID)
    model.save_pretrained(target)
    (target / "model.safetensors").chmod(0o644)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file),
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        add_prefix_space=False,
    )
    tokenizer.save_pretrained(target)
    path = target / "tokenizer_config.json"  # the class by the name that transformers 4 and 5 both know
    path.write_text(path.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))


def evaluate(target: Path, held_out: list[Document], tokenizer: Tokenizer) -> dict[str, Any]:
    """The held-out score of the files in `target`: fp16 weights, fp32 arithmetic."""
    model = GPT2LMHeadModel.from_pretrained(target, dtype=torch.float32)
    return bits_per_byte(model, held_out, encode(tokenizer, held_out))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads, text and checkpoints")
    parser.add_argument("--target", type=Path, default=HERE, help="folder for the finished model")
    parser.add_argument("--tokens", type=float, default=45e6, help="tokens to train on")
    parser.add_argument("--minutes", type=float, help="end by the clock instead of by tokens")
    parser.add_argument("--processes", type=int, default=2, help="one per core; must divide 4 (a batch is 8 windows)")
    parser.add_argument("--only", choices=["prepare", "train", "export", "evaluate"], help="one part of the way")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    train_documents, held_out = split(prepare(args.work))
    tokenizer = make_tokenizer(args.work, train_documents)
    if args.only == "prepare":
        return
    repeats = {source.key: source.repeats for source in SOURCES}
    run_arguments = {
        "arrays": encode(tokenizer, train_documents),
        "repeats": [repeats[document["source"]] for document in train_documents],
        "work": args.work,
        "target_tokens": int(args.tokens),
        "minutes": args.minutes,
    }
    if args.only in (None, "train"):
        train_in_processes(run_arguments, args.processes)
    run = TrainingRun(**run_arguments)
    if args.only in (None, "export"):
        export(run.model, args.work / "tokenizer.json", args.target)
        sources = describe_sources(args.work, train_documents)
        (args.target / "sources.json").write_text(json.dumps(sources, indent=2) + "\n")
    if args.only in (None, "evaluate"):
        scores = evaluate(args.target, held_out, tokenizer)
        (args.work / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
        print(json.dumps({"step": run.step, "tokens": run.tokens, "seconds": round(run.seconds), "scores": scores}))


if __name__ == "__main__":
    main()
