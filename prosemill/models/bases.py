"""The base: the pre-trained weights and tokenizer that a recipe starts from, found, checked and given a digest.

A base is a folder as Hugging Face lays it out: `config.json`; `tokenizer.json`, or `vocab.json` and `merges.txt` as
GPT-2 ships them; `model.safetensors` or `pytorch_model.bin`, whole or sharded with an index. Looking at one needs
neither torch nor transformers, so the CPU half of a run can.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from prosemill.config.base_names import is_baseline
from prosemill.errors import BaseModelError
from prosemill.models.baselines import folders
from prosemill.storage.disk import file_sha256

DEMO = "demo"
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # the first set that is complete is used
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CONTEXT_KEYS = ("n_positions", "max_position_embeddings", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length")
# BLOOM and Mamba have no position embeddings and state no limit; this is the longest chunk a recipe may ask for.
UNLIMITED_CONTEXT = 131_072
CAUSAL_HEADS = ("ForCausalLM", "LMHeadModel", "DoubleHeadsModel")
INSTEAD = f'give a local directory with config.json, tokenizer.json and model.safetensors, or base = "{DEMO}"'


@dataclass(frozen=True)
class Base:
    """A base that can be loaded. Digests follow the files: another model in the same folder is another base."""

    name: str  # as the recipe has it
    folder: Path
    tokenizer_digest: str
    weights_digest: str  # "" when resolved without weights
    context_tokens: int
    vocabulary_size: int  # of the model's embedding, which may be larger than the tokenizer's


def resolve(base: str, *, need_weights: bool = True) -> Base:
    """The base named "demo" (embedded), "rnn" or "transformer" (`models.baselines`), by a local directory or by the
    Hugging Face hub; else BaseModelError.

    `need_weights=False` neither downloads nor reads the weights, for the half of a run that only needs the tokenizer.
    HF_HUB_OFFLINE=1 keeps to what has been downloaded before.
    """
    folder = _find(base, need_weights)
    config = _read_json(folder / "config.json")
    _check_causal(folder, config)
    vocabulary_size = _vocabulary_size(folder, config)
    end_of_text = end_of_text_id(folder)
    if end_of_text >= vocabulary_size:
        raise BaseModelError(
            f"{folder}: the end-of-text id {end_of_text} is outside the model's vocabulary of {vocabulary_size}; "
            "config.json and the tokenizer do not belong together"
        )
    tokenizer_files = [folder / name for name in _tokenizer_files(folder)]
    return Base(
        name=base,
        folder=folder,
        tokenizer_digest=_digest(tokenizer_files, extra=f"end of text {end_of_text}"),
        weights_digest=_digest([folder / "config.json", *_weight_files(folder)]) if need_weights else "",
        context_tokens=_context_tokens(config),
        vocabulary_size=vocabulary_size,
    )


def tokenizer_folder(name: str) -> Path:
    """The folder with the tokenizer of a base, or one with nothing but a tokenizer; else BaseModelError."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        _tokenizer_files(folder)
        return folder.resolve()
    return _find(name, need_weights=False)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a base, reading text as nothing but text: "<|endoftext|>" within a document is spelled out."""
    names = _tokenizer_files(folder)
    try:
        tokenizer = Tokenizer.from_file(str(folder / names[0])) if len(names) == 1 else _byte_level_bpe(folder)
    except Exception as error:  # tokenizers raises nothing narrower
        raise BaseModelError(f"{folder / names[0]}: not a tokenizer ({_one_line(error)}); {INSTEAD}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def end_of_text_id(folder: Path) -> int:
    """The id put behind each document: the tokenizer's end-of-text token, else the one config.json names."""
    tokenizer = load_tokenizer(folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _read_json(folder / name).get("eos_token") if (folder / name).is_file() else None
        text = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(text, str) and (token_id := tokenizer.token_to_id(text)) is not None:
            return token_id
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    stated = _text_config(config).get("eos_token_id")
    first = stated[0] if isinstance(stated, list) and stated else stated  # several: the first ends a text
    if isinstance(first, int):
        return first
    token_id = tokenizer.token_to_id("<|endoftext|>")
    if token_id is None:
        raise BaseModelError(f"{folder}: no end-of-text token; add eos_token_id to config.json")
    return token_id


# --- finding -------------------------------------------------------------------------------------------------------


def _find(base: str, need_weights: bool) -> Path:
    if base == DEMO:
        return _embedded()
    if is_baseline(base):
        try:
            return folders.folder_of(base, _embedded())
        except ValueError as error:
            raise BaseModelError(f"finetune.base = {base!r}: {error}") from error
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BaseModelError(f"{folder}: no config.json in this directory; {INSTEAD}")
        return folder.resolve()
    if folder.is_file():
        raise BaseModelError(f"{folder}: a file, not a directory; {INSTEAD}")
    if folder.is_absolute() or base.startswith((".", "~")) or base.count("/") > 1:
        raise BaseModelError(f"{base}: no such directory; check the path, or give a Hugging Face name such as gpt2")
    return _download(base, need_weights)


def _embedded() -> Path:
    """data/base of the repository, or of the installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "data" / "base", package / "data" / "base"):
        if (folder / "config.json").is_file():
            return folder
    raise BaseModelError(
        f'base = "{DEMO}": the embedded model is not in this installation (no data/base/config.json); install '
        'prosemill again, or choose another base, such as "gpt2" or a local directory'
    )


def _download(name: str, need_weights: bool) -> Path:
    """The files of a hub name, downloaded once into Hugging Face's own cache."""
    patterns = ["*.json", "*.txt"]
    folder = _snapshot(name, patterns)
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"{name}: this Hugging Face repository is not a model, it has no config.json; {INSTEAD}")
    if need_weights:
        folder = _snapshot(name, [*patterns, "model*.safetensors"])
        if not any(folder.glob("model*.safetensors")):
            folder = _snapshot(name, [*patterns, "pytorch_model*.bin"])
    return folder


def _snapshot(name: str, patterns: list[str]) -> Path:
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    try:
        # ignore: whatever lies in folders (other formats, other frameworks) is not the model
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except HFValidationError as error:
        raise BaseModelError(f"{name!r}: no directory here, and no possible Hugging Face name; {INSTEAD}") from error
    except GatedRepoError as error:
        raise BaseModelError(
            f"{name}: the owner gives this model on request only; ask for access and set HF_TOKEN, or {INSTEAD}"
        ) from error
    except RepositoryNotFoundError as error:
        raise BaseModelError(
            f"{name}: no such model on the Hugging Face hub, and no such directory here; check the name, or {INSTEAD}"
        ) from error
    except (OSError, EntryNotFoundError, HTTPError) as error:
        raise BaseModelError(
            f"{name}: not downloaded yet, and the Hugging Face hub does not answer ({_first_line(error)}); "
            f"check the name and the network, or {INSTEAD}"
        ) from error


# --- checking ------------------------------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path}: cannot be read as JSON ({_one_line(error)}); {INSTEAD}") from error
    if not isinstance(value, dict):
        raise BaseModelError(f"{path}: holds {type(value).__name__} instead of an object; {INSTEAD}")
    return value


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Models that also see or hear keep their language model's figures one level down."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def _check_causal(folder: Path, config: dict[str, Any]) -> None:
    if not config.get("model_type"):
        raise BaseModelError(f"{folder / 'config.json'}: no model_type, so nobody can tell what model it is; {INSTEAD}")
    heads = config.get("architectures") or []
    causal = any(str(head).endswith(CAUSAL_HEADS) for head in heads)
    if config.get("is_encoder_decoder") or (heads and not causal):
        raise BaseModelError(
            f"{folder}: {', '.join(map(str, heads)) or config['model_type']} is not a causal language model; "
            "choose one that writes from left to right, such as gpt2"
        )


def _context_tokens(config: dict[str, Any]) -> int:
    stated = _text_config(config)
    lengths = [stated[key] for key in CONTEXT_KEYS if isinstance(stated.get(key), int) and stated[key] > 0]
    return lengths[0] if lengths else UNLIMITED_CONTEXT


def _vocabulary_size(folder: Path, config: dict[str, Any]) -> int:
    """Rows of the embedding; refused where the tokenizer has ids beyond them."""
    tokenizer_size = max(load_tokenizer(folder).get_vocab().values(), default=-1) + 1
    stated = _text_config(config).get("vocab_size")
    if not isinstance(stated, int):
        raise BaseModelError(f"{folder / 'config.json'}: no vocab_size; {INSTEAD}")
    if not 0 < tokenizer_size <= stated:
        raise BaseModelError(
            f"{folder}: the tokenizer has {tokenizer_size} ids and the model {stated}; they do not belong together"
        )
    return stated


def _tokenizer_files(folder: Path) -> tuple[str, ...]:
    for names in TOKENIZER_FILES:
        if all((folder / name).is_file() for name in names):
            return names
    raise BaseModelError(f"{folder}: no tokenizer.json, nor vocab.json with merges.txt; save a fast tokenizer there")


def _byte_level_bpe(folder: Path) -> Tokenizer:
    """GPT-2's tokenizer from its two files (Radford et al. 2019)."""
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if tokenizer.token_to_id("<|endoftext|>") is not None:
        tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return tokenizer


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, an index first; BaseModelError when one is missing or cut short."""
    for name in WEIGHT_FILES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return _whole([folder / name])
        if index.is_file():
            weight_map = _read_json(index).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise BaseModelError(f"{index}: no weight_map; download the model again")
            return [index, *_whole(folder / str(part) for part in sorted(set(weight_map.values())))]
    raise BaseModelError(f"{folder}: no weights ({' or '.join(WEIGHT_FILES)}); {INSTEAD}")


def _whole(paths: Iterable[Path]) -> list[Path]:
    from safetensors import SafetensorError, safe_open

    checked = list(paths)
    for path in checked:
        if not path.is_file() or not path.stat().st_size:
            raise BaseModelError(f"{path}: missing or empty, though the model needs it; download the model again")
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="np"):
                    pass
            except (SafetensorError, OSError) as error:
                raise BaseModelError(f"{path}: damaged ({_one_line(error)}); download the model again") from error
    return checked


def _digest(paths: Iterable[Path], extra: str = "") -> str:
    lines = [f"{path.name} {file_sha256(path)}" for path in paths]
    return hashlib.sha256("\n".join([*lines, extra]).encode()).hexdigest()


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].removeprefix("Got: ")[:160]
