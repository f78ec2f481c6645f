"""Bases: what is a base, what is not and how it is said, and digests that follow what is in the files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from prosemill.errors import BaseModelError
from prosemill.models.bases import UNLIMITED_CONTEXT, end_of_text_id, load_tokenizer, resolve

TEXT = [
    "The mill turns when the river is high.",
    "Nobody grinds corn by moonlight.",
    "The miller's cat sleeps on sacks.",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config(folder, model_type="gpt2", architectures=["GPT2LMHeadModel"], vocab_size=300, n_positions=64, eos_token_id=0)
    save_file({"wte.weight": np.zeros((4, 2), np.float32)}, folder / "model.safetensors")
    return folder


def config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({key: value for key, value in {**old, **changes}.items() if value is not None}))


def test_a_directory(folder):
    base = resolve(str(folder))
    assert (base.name, base.folder) == (str(folder), folder)
    assert (base.context_tokens, base.vocabulary_size) == (64, 300)
    assert end_of_text_id(folder) == 0


def test_digests_follow_the_files(folder, tmp_path):
    base = resolve(str(folder))
    shutil.copytree(folder, tmp_path / "copy")
    copy = resolve(str(tmp_path / "copy"))
    assert (copy.tokenizer_digest, copy.weights_digest) == (base.tokenizer_digest, base.weights_digest)
    save_file({"wte.weight": np.ones((4, 2), np.float32)}, folder / "model.safetensors")
    other = resolve(str(folder))
    assert other.tokenizer_digest == base.tokenizer_digest
    assert other.weights_digest != base.weights_digest
    config(folder, eos_token_id=1)
    assert resolve(str(folder)).tokenizer_digest != base.tokenizer_digest


def test_weights_are_not_needed_by_the_cpu_half(folder):
    (folder / "model.safetensors").unlink()
    assert resolve(str(folder), need_weights=False).weights_digest == ""
    with pytest.raises(BaseModelError, match="no weights"):
        resolve(str(folder))


def test_gpt2_files_give_the_same_ids(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / "tokenizer.json").unlink()
    tokenizer.model.save(str(old))  # vocab.json, merges.txt
    assert sorted(path.name for path in old.iterdir())[-2:] == ["model.safetensors", "vocab.json"]
    for text in [*TEXT, "  two  spaces\n\nnaïve 磨坊 <|endoftext|>"]:
        assert load_tokenizer(old).encode(text).ids == tokenizer.encode(text).ids
    assert resolve(str(old)).context_tokens == 64


def test_special_tokens_in_text_are_text(folder):
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode("corn <|endoftext|> corn", add_special_tokens=False).ids
    assert end_of_text_id(folder) not in ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == "corn <|endoftext|> corn"


def test_the_tokenizer_says_which_token_ends_a_text(folder):
    mill = load_tokenizer(folder).token_to_id("m")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "m"}}))
    assert end_of_text_id(folder) == mill
    (folder / "tokenizer_config.json").unlink()
    config(folder, eos_token_id=[7, 8])
    assert end_of_text_id(folder) == 7


def test_sharded_weights(folder):
    (folder / "model.safetensors").unlink()
    for part in "ab":
        save_file({part: np.zeros(3, np.float32)}, folder / f"model-{part}.safetensors")
    index = {"weight_map": {part: f"model-{part}.safetensors" for part in "ab"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    first = resolve(str(folder)).weights_digest
    save_file({"b": np.ones(3, np.float32)}, folder / "model-b.safetensors")
    assert resolve(str(folder)).weights_digest != first
    (folder / "model-b.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"model-b\.safetensors: missing"):
        resolve(str(folder))


@pytest.mark.parametrize(
    ("changes", "context"),
    [({"n_positions": None, "max_position_embeddings": 512}, 512), ({"n_positions": None}, UNLIMITED_CONTEXT)],
)
def test_context(folder, changes, context):
    config(folder, **changes)
    assert resolve(str(folder)).context_tokens == context


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": None}, "no model_type"),
        ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM is not a causal language model"),
        ({"is_encoder_decoder": True}, "not a causal language model"),
        ({"vocab_size": None}, "no vocab_size"),
        ({"vocab_size": 10}, "the tokenizer has 300 ids and the model 10"),
        ({"eos_token_id": 300}, "end-of-text id 300 is outside"),
    ],
)
def test_configurations_that_cannot_be_trained(folder, changes, message):
    config(folder, **changes)
    assert_refused(str(folder), message)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "no config.json in this directory"),
        ("config.json", "{", "cannot be read as JSON"),
        ("config.json", "[]", "holds list instead of an object"),
        ("tokenizer.json", None, "no tokenizer.json"),
        ("tokenizer.json", "{}", "not a tokenizer"),
        ("model.safetensors", "version https://git-lfs", "damaged"),
        ("model.safetensors", "", "missing or empty"),
    ],
)
def test_damaged_directories(folder, file, content, message):
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    assert_refused(str(folder), message)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere/at/all", "a b"])
def test_names_that_are_nothing(name):
    assert_refused(name, "no such directory|no directory here")


def assert_refused(base: str, message: str) -> None:
    with pytest.raises(BaseModelError, match=message) as caught:
        resolve(base)
    assert "\n" not in str(caught.value)


def test_a_hub_name_without_a_network(tmp_path):
    code = "from prosemill.models.bases import resolve; resolve('nobody/has-this-model')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("prosemill.errors.BaseModelError: nobody/has-this-model: not downloaded yet")
    assert 'base = "demo"' in last


def test_hub_cache_is_used_offline(folder, tmp_path):
    """A model downloaded earlier, in the hub's own layout, needs no network."""
    repository = tmp_path / "hub" / "models--somebody--mill"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    shutil.copytree(folder, repository / "snapshots" / "c0ffee")
    code = "from prosemill.models.bases import resolve; print(resolve('somebody/mill').context_tokens)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert run.stdout == "64\n", run.stderr


def test_the_demo_base():
    base = resolve("demo")
    assert base.context_tokens >= 1024  # the default chunk fits
    assert base.vocabulary_size <= 65_536
    assert end_of_text_id(base.folder) < base.vocabulary_size
