"""The baselines are models like any other: folders, packed documents, generation, training, word vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prosemill.config.base_names import KINDS
from prosemill.config.recipe import parse_recipe
from prosemill.config.settings import Finetune, Write
from prosemill.errors import BaseModelError
from prosemill.finetune import finetune
from prosemill.models import bases, loading
from prosemill.models.baselines.vectors import as_embedding, read_vectors
from prosemill.models.generation import Writer
from prosemill.storage.store import Store
from tests.tiny import make_chunks, texts


@pytest.mark.parametrize("kind", KINDS)
def test_a_baseline_is_a_base_of_about_the_embedded_one_s_size(kind: str) -> None:
    base, embedded = bases.resolve(kind), bases.resolve("demo")
    assert base.tokenizer_digest == embedded.tokenizer_digest
    assert base.context_tokens >= 1024
    assert bases.resolve(kind).weights_digest == base.weights_digest
    model = loading.load_model(base.folder)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(
        sum(parameter.numel() for parameter in loading.load_model(embedded.folder).parameters()), rel=0.1
    )
    ids = torch.randint(1, base.vocabulary_size, (2, 40))
    with torch.inference_mode():
        loss = float(model(input_ids=ids, labels=ids).loss)
    assert loss == pytest.approx(np.log(base.vocabulary_size), rel=0.02)  # it knows nothing yet


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_document_has_the_logits_it_has_alone(kind: str) -> None:
    model = loading.load_model(bases.resolve(kind).folder)
    sizes = [17, 30, 1, 16]
    torch.manual_seed(0)
    pieces = [torch.randint(0, 4096, (1, size)) for size in sizes]
    packed = torch.cat(pieces, dim=1)
    positions = torch.cat([torch.arange(size) for size in sizes])[None]
    with torch.inference_mode():
        together = model(input_ids=torch.cat([packed, packed]), position_ids=torch.cat([positions, positions])).logits
        alone = torch.cat([model(input_ids=piece).logits for piece in pieces], dim=1)
        kept = model(input_ids=packed, logits_to_keep=torch.arange(5, 9)).logits
        whole = model(input_ids=packed).logits
    assert torch.allclose(together[0], alone[0], atol=1e-6)  # logits of untrained weights: some 1e-4
    assert torch.allclose(together[0], together[1], atol=1e-6)
    assert torch.allclose(kept, whole[:, 5:9], atol=1e-6)
    assert not torch.allclose(whole[0], alone[0], atol=1e-5)  # without positions it is one text


@pytest.mark.parametrize("kind", KINDS)
def test_it_writes_and_survives_saving(kind: str, tmp_path: Path) -> None:
    folder = bases.resolve(kind).folder
    writer = Writer(folder)
    greedy = Write(temperature=0, repetition_penalty=1, max_new_tokens=12)
    (written,) = writer.write("The mill", greedy, seed=0)
    ids = torch.tensor([[writer.end_of_text, *writer.encode(["The mill"])[0]]])
    model = loading.load_model(folder)
    generated = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert writer.decode(generated[0].tolist()[1:]) == written
    model.save_pretrained(tmp_path)
    again = loading.load_model(tmp_path)
    for (name, one), (_, other) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    assert again.lm_head.weight is again.model.embedding.weight


@pytest.mark.parametrize("kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
def test_it_is_fine_tuned_as_any_base(kind: str, store: Store) -> None:
    base = bases.resolve(kind)
    chunk = make_chunks(store, base, texts(16), texts(2, seed=2), chunk_tokens=64)
    settings = Finetune(
        base=kind,
        epochs=1,
        max_steps=5,
        batch_chunks=2,
        micro_batch_chunks=2,
        learning_rate=2e-3,
        precision="fp32",
        evals=1,
    )
    totals = store.manifest(finetune(store, chunk, base, settings)).totals
    assert totals["validation_loss"] < totals["validation_loss_before"] - 0.5


# --- word vectors ----------------------------------------------------------------------------------------------------


def write_vectors(path: Path, words: list[str], rows: np.ndarray, header: bool) -> Path:
    lines = [f"{len(words)} {rows.shape[1]}"] if header else []
    lines += [f"{word} {' '.join(f'{value:.5f}' for value in row)}" for word, row in zip(words, rows, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


WORDS = ["house", "water", "horse", "horses", "winter", "letter"]


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("width", [20, 300])
def test_word_vectors_begin_the_embedding(header: bool, width: int, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(6, width))
    rows[1] = rows[0] + 0.01  # house and water are alike
    path = write_vectors(tmp_path / "vectors.txt", WORDS, rows, header)
    words, read = read_vectors(path)
    assert words == WORDS
    assert read == pytest.approx(rows, abs=1e-5)
    base = bases.resolve(f"transformer:{path}")
    plain = bases.resolve("transformer")
    assert base.weights_digest != plain.weights_digest
    assert base.tokenizer_digest == plain.tokenizer_digest
    tokenizer = bases.load_tokenizer(base.folder)
    embedding = loading.load_model(base.folder).get_input_embeddings().weight.detach().numpy()
    random = loading.load_model(plain.folder).get_input_embeddings().weight.detach().numpy()
    whole = [word for word in WORDS if len(tokenizer.encode(f" {word}").ids) == 1]
    assert {"house", "water", "letter"} <= set(whole)
    house, water, other = (embedding[tokenizer.encode(f" {word}").ids[0]] for word in ("house", "water", "letter"))
    assert cosine(house, water) > 0.9 > cosine(house, other)
    changed = (embedding != random).any(axis=1)
    assert 6 <= changed.sum() < 60  # only what the words are spelled with
    assert embedding[changed].std() == pytest.approx(random.std(), rel=0.1)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_a_token_of_many_words_is_their_mean() -> None:
    base = bases.resolve("demo")
    tokenizer = bases.load_tokenizer(base.folder)
    rows = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]], np.float32)
    random = np.random.default_rng(0).normal(0, 0.02, (4096, 3)).astype(np.float32)
    matrix = as_embedding((["water", "water", "letter"], rows), tokenizer, random)
    (water,), (letter,) = tokenizer.encode(" water").ids, tokenizer.encode(" letter").ids
    assert matrix[water][0] == pytest.approx(matrix[water][1])
    assert matrix[letter][2] > matrix[letter][0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no word vectors"),
        ("river 1 2\nwater 1\n", "line 2"),
        ("just text here\n", "line 1"),
        (None, "no such file"),
    ],
)
def test_wrong_vectors_are_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BaseModelError, match=message) as raised:
        bases.resolve(f"rnn:{path}")
    assert "\n" not in str(raised.value)


def test_a_recipe_names_vectors_beside_it(tmp_path: Path) -> None:
    fields = {
        "name": "stories",
        "sources": [{"name": "a", "kind": "folder", "path": "."}],
        "finetune": {"base": "transformer:glove.txt"},
    }
    recipe = parse_recipe(fields, where="recipe.toml", folder=tmp_path)
    assert recipe.finetune.base == f"transformer:{tmp_path}/glove.txt"
    plain = parse_recipe(fields | {"finetune": {"base": "rnn"}}, where="recipe.toml", folder=tmp_path)
    assert plain.finetune.base == "rnn"
