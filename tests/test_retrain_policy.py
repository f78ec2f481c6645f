"""Not worth retraining: too little that is new, or pages that the champion reads as if it had seen them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from prosemill.config.settings import Recipe
from prosemill.finetune import identity_settings
from prosemill.gate import retrain_policy
from prosemill.models.bases import Base
from prosemill.storage.schemas import CHUNK_MAP
from prosemill.storage.store import Store
from tests.tiny import encode, make_base, make_corpus, teach, texts

TEST = texts(12, seed=3, words=10)
OLD = texts(20, seed=4, words=12)
EASY = [" ".join(["the bells the bells the bells the bells the bells"] * (4 + number)) for number in range(8)]
HARD = [
    " ".join("".join(letters) for letters in itertools.permutations("aeioustr", 3))[n * 40 : n * 40 + 300]
    for n in range(8)
]
ALIKE = texts(8, seed=8, words=10)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    torch.set_num_threads(1)
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory, base: Base) -> Path:
    """A model that learned the sentences and, by heart, the easy pages."""
    rows = [ids[:64] for ids in encode(base, [*OLD, *EASY, *EASY, *EASY])]
    return teach(base, tmp_path_factory.mktemp("champion"), [rows] * 30, learning_rate=1e-2)


def recipe(**gate: Any) -> Recipe:
    fields = {
        "name": "stories",
        "sources": [{"name": "old", "kind": "folder", "path": "/"}],
        "chunk": {"chunk_tokens": 64},
        "evaluate": {"stride": 32},
        "gate": gate,
    }
    return Recipe.model_validate(fields)


def lay(store: Store, champion: Path, new: list[str]) -> tuple[str, str]:
    """The chunk snapshot of this run and the champion, which learned from last run's."""
    corpus = make_corpus(store, {"test": TEST, "old": OLD, "new": new}, parts={"old": "train", "new": "train"})
    documents = pq.read_table(store.local(f"{corpus[0]}/keepers.parquet")).to_pylist()
    for increment, sources in ((1, {"old"}), (2, {"old", "new"})):
        rows = [
            dict.fromkeys(CHUNK_MAP.names, 0)
            | {"chunk": "c", "split": "train", "document": row["id"], "url": row["url"], "num_tokens": 50}
            for row in documents
            if row["source"] in sources
        ]
        with store.write(f"chunk-{increment}", stage="chunk", version=1, parents=list(corpus), settings={}) as writer:
            pq.write_table(pa.Table.from_pylist(rows, CHUNK_MAP), writer.path("map.parquet"))
            writer.add("map.parquet", "map", len(rows))
    settings = identity_settings(recipe().finetune)
    with store.write("finetune-1", stage="finetune", version=1, parents=["chunk-1"], settings=settings) as writer:
        for path in champion.iterdir():
            writer.path(f"model/{path.name}").write_bytes(path.read_bytes())
    return "chunk-2", "finetune-1"


def assess_and_ask(store: Store, chunk: str, champion: str, recipe: Recipe) -> retrain_policy.NewText:
    """Counted, then put to the champion."""
    counted = retrain_policy.assess(store, chunk, champion, recipe)
    assert counted.worth_training
    return retrain_policy.ask_champion(store, chunk, champion, recipe, counted)


@pytest.mark.parametrize(
    ("new", "is_worth", "message"),
    [
        (EASY, False, "hold little that is new"),
        pytest.param(HARD, True, "more for them", marks=pytest.mark.slow),
        pytest.param(ALIKE, True, "for them than for", marks=pytest.mark.slow),
    ],
)
def test_what_the_champion_knows_already_is_not_worth_training(
    store: Store, champion: Path, new: list[str], is_worth: bool, message: str
) -> None:
    assessment = assess_and_ask(store, *lay(store, champion, new), recipe())
    assert assessment.worth_training is is_worth
    assert message in assessment.reason
    assert (assessment.documents, assessment.tokens) == (8, 400)
    assert "\n" not in assessment.reason


def test_the_question_can_be_left_out_and_few_tokens_are_not_worth_it(store: Store, champion: Path) -> None:
    ids = lay(store, champion, EASY)
    assert assess_and_ask(store, *ids, recipe(known_margin=0)).reason == "8 new training documents (400 tokens)"
    assessment = retrain_policy.assess(store, *ids, recipe(min_new_tokens=401, known_margin=0))
    assert not assessment.worth_training
    assert (
        "8 new training documents (400 tokens) since the champion was trained; it takes 401 tokens" in assessment.reason
    )
    assessment = retrain_policy.assess(store, *ids, recipe(min_new_documents=9))
    assert not assessment.worth_training
    assert assessment.reason.endswith("it takes 9")


def test_too_few_pages_are_not_asked_about(store: Store, champion: Path) -> None:
    assessment = assess_and_ask(store, *lay(store, champion, EASY[:3]), recipe())
    assert assessment.worth_training
    assert "test pages" not in assessment.reason


def test_other_reasons_to_train_are_not_put_to_the_champion(store: Store, champion: Path) -> None:
    chunk, finetune = lay(store, champion, EASY)
    other = recipe().model_copy(update={"finetune": recipe().finetune.model_copy(update={"seed": 7})})
    assessment = assess_and_ask(store, chunk, finetune, other)
    assert (assessment.worth_training, assessment.reason) == (
        True,
        "the [finetune] settings differ from the champion's",
    )
