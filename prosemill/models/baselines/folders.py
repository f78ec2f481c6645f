"""A baseline laid out as a folder: config.json, tokenizer, random weights; made once, on first use, without torch."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from prosemill.config.base_names import MODEL_TYPES
from prosemill.models.baselines.vectors import as_embedding, read_vectors
from prosemill.storage.atomic import new_folder
from prosemill.storage.disk import file_sha256
from prosemill.storage.manifest import digest

Floats = npt.NDArray[np.float32]

VERSION = 1
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
SEED = 0
SPREAD = 0.02  # of the embedding, as GPT-2's

# Each about 4.7 million parameters with a vocabulary of 4,096: as many as the embedded base, whose 4.5 are 4 x 256.
SIZES: dict[str, dict[str, Any]] = {
    "rnn": {"embedding_size": 256, "hidden_size": 512, "num_hidden_layers": 2},
    "transformer": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "max_position_embeddings": 1024,
    },
}
ARCHITECTURES = {"rnn": "RnnForCausalLM", "transformer": "TransformerForCausalLM"}


def folder_of(base: str, tokenizer_folder: Path) -> Path:
    """The folder of the baseline `base` with that tokenizer; the same files every time. ValueError: wrong vectors."""
    kind, _, path = base.partition(":")
    vectors = Path(path).expanduser() if path else None
    if vectors is not None and not vectors.is_file():
        raise ValueError(f"{vectors}: no such file of word vectors")
    made_of = [file_sha256(tokenizer_folder / name) for name in TOKENIZER_FILES]
    made_of += [file_sha256(vectors)] if vectors else []
    parent = Path(tempfile.gettempdir()) / f"prosemill-{os.getuid()}" / "baselines"
    folder = parent / f"{kind}-{digest([VERSION, SIZES[kind], *made_of])[:16]}"
    if not (folder / "config.json").is_file():
        try:
            with new_folder(folder) as work_folder:
                _lay_out(work_folder, kind, tokenizer_folder, vectors)
        except OSError:
            if not (folder / "config.json").is_file():  # else another process was faster
                raise
    return folder


def _lay_out(folder: Path, kind: str, tokenizer_folder: Path, vectors: Path | None) -> None:
    from safetensors.numpy import save_file

    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer_folder / name, folder / name)
    stated = json.loads((tokenizer_folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = SIZES[kind] | {
        "model_type": MODEL_TYPES[kind],
        "architectures": [ARCHITECTURES[kind]],
        "vocab_size": stated["vocab_size"],
        "bos_token_id": stated["bos_token_id"],
        "eos_token_id": stated["eos_token_id"],
        "tie_word_embeddings": True,
    }
    random = np.random.default_rng(SEED)
    weights = (_rnn if kind == "rnn" else _transformer)(config, random)
    if vectors is not None:
        name = "model.embedding.weight"
        weights[name] = as_embedding(read_vectors(vectors), tokenizer, weights[name])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _rnn(config: dict[str, Any], random: np.random.Generator) -> dict[str, Floats]:
    """Uniform within 1/sqrt(hidden), as torch begins an LSTM; forget gates at 1 (Jozefowicz et al. 2015)."""
    wide, narrow = config["hidden_size"], config["embedding_size"]
    weights = {"model.embedding.weight": _normal(random, config["vocab_size"], narrow)}
    for layer in range(config["num_hidden_layers"]):
        bound = wide**-0.5
        inputs = narrow if layer == 0 else wide
        weights[f"model.lstm.weight_ih_l{layer}"] = _uniform(random, bound, 4 * wide, inputs)
        weights[f"model.lstm.weight_hh_l{layer}"] = _uniform(random, bound, 4 * wide, wide)
        forget = np.zeros(4 * wide, np.float32)
        forget[wide : 2 * wide] = 1.0
        weights[f"model.lstm.bias_ih_l{layer}"] = forget
        weights[f"model.lstm.bias_hh_l{layer}"] = np.zeros(4 * wide, np.float32)
    weights["model.narrow.weight"] = _uniform(random, wide**-0.5, narrow, wide)
    weights["model.narrow.bias"] = np.zeros(narrow, np.float32)
    return weights


def _transformer(config: dict[str, Any], random: np.random.Generator) -> dict[str, Floats]:
    """Normal with GPT-2's spread, what adds to the residual stream divided by the root of how often that happens."""
    wide, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    less = (2 * layers) ** -0.5
    ones, zeros = np.ones(wide, np.float32), np.zeros(wide, np.float32)
    weights: dict[str, Floats] = {
        "model.embedding.weight": _normal(random, config["vocab_size"], wide),
        "model.positions.weight": _normal(random, config["max_position_embeddings"], wide),
        "model.encoder.norm.weight": ones,
        "model.encoder.norm.bias": zeros,
    }
    for layer in range(layers):
        own = f"model.encoder.layers.{layer}"
        weights |= {
            f"{own}.self_attn.in_proj_weight": _normal(random, 3 * wide, wide),
            f"{own}.self_attn.in_proj_bias": np.zeros(3 * wide, np.float32),
            f"{own}.self_attn.out_proj.weight": _normal(random, wide, wide, spread=SPREAD * less),
            f"{own}.self_attn.out_proj.bias": zeros.copy(),
            f"{own}.linear1.weight": _normal(random, inner, wide),
            f"{own}.linear1.bias": np.zeros(inner, np.float32),
            f"{own}.linear2.weight": _normal(random, wide, inner, spread=SPREAD * less),
            f"{own}.linear2.bias": zeros.copy(),
        }
        for norm in ("norm1", "norm2"):
            weights |= {f"{own}.{norm}.weight": ones.copy(), f"{own}.{norm}.bias": zeros.copy()}
    return weights


def _normal(random: np.random.Generator, *shape: int, spread: float = SPREAD) -> Floats:
    return random.normal(0, spread, shape).astype(np.float32)


def _uniform(random: np.random.Generator, bound: float, *shape: int) -> Floats:
    return random.uniform(-bound, bound, shape).astype(np.float32)
