"""Evaluation by slice: old and fresh, general and training text, weeks; copying, canaries, and what a run reuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from prosemill.config.settings import Evaluate
from prosemill.errors import RecipeError
from prosemill.evaluation.documents import sample, week_of
from prosemill.evaluation.general import general_documents
from prosemill.evaluation.scorer import ModelRef
from prosemill.evaluation.stage import evaluate
from prosemill.models.bases import Base
from prosemill.storage.store import Store
from tests.tiny import encode, make_base, make_corpus, teach, texts

CANARY = "The miller hid the golden key under the seventh stone"
SETTINGS = Evaluate(
    stride=32, sample_tokens=32, batch_windows=16, other_kilobytes=4, continuations=4, canaries=[CANARY]
)
LEARNED = texts(6, seed=4, words=20)[3:]
DOCUMENTS = {"old": texts(8, words=10), "new": texts(6, seed=3, words=10), "learned": [*LEARNED, CANARY * 3]}
PARTS = {"learned": "train"}
DATES = {"old": "2026-01-02", "new": "2026-01-12", "learned": "2026-01-02"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    torch.set_num_threads(1)
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def crammed(tmp_path_factory: pytest.TempPathFactory, base: Base) -> Path:
    """The base after it was taught one document and the canary until it knew them by heart."""
    rows = encode(base, [CANARY, CANARY, *LEARNED])
    windows = [row[first : first + 64] for row in rows for first in range(0, len(row), 16)]
    return teach(base, tmp_path_factory.mktemp("crammed"), [windows] * 160, learning_rate=1e-2)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, base: Base, crammed: Path) -> tuple[Store, str]:
    """An evaluation of a champion of the first week (the base) and a challenger (the crammed model)."""
    store = Store(str(tmp_path_factory.mktemp("store")))
    store.check_writable()
    corpus = make_corpus(store, DOCUMENTS, parts=PARTS, dates=DATES)
    with store.write("chunk-1", stage="chunk", version=1, parents=list(corpus), settings={}, as_of="2026-01-05"):
        pass
    with store.write("finetune-1", stage="finetune", version=1, parents=["chunk-1"], settings={}):
        pass
    models = {"champion": ModelRef("finetune-1", base.folder), "challenger": ModelRef("c", crammed)}
    return store, evaluate(store, *corpus, models, SETTINGS, context_tokens=64, as_of="2026-01-12")


def summary_of(evaluated: tuple[Store, str]) -> dict[str, Any]:
    store, snapshot = evaluated
    (shard,) = store.manifest(snapshot).shards_of("summary")
    return json.loads(store.open(shard.path).read())  # type: ignore[no-any-return]


def test_slices_are_told_by_the_champion_s_corpus(evaluated: tuple[Store, str]) -> None:
    summary = summary_of(evaluated)
    assert summary["dates"] == {"champion": "2026-01-05", "challenger": ""}
    champion = summary["models"]["champion"]
    assert {name: part["documents"] for name, part in champion["slices"].items()} == {
        "old": 8,
        "fresh": 6,
        "general": champion["parts"]["general"]["documents"],
    }
    assert champion["newer_than_model"]["documents"] == 6
    assert {week: part["documents"] for week, part in champion["weeks"].items()} == {"2026-W01": 8, "2026-W03": 6}
    assert champion["documents"] == champion["parts"]["test"]["documents"] == 14
    by_slice = summary["slices"]["challenger-champion"]
    old = summary["models"]["challenger"]["slices"]["old"]["bits_per_byte"]
    assert by_slice["old"]["bits_per_byte"] == pytest.approx(old - champion["slices"]["old"]["bits_per_byte"])
    assert set(by_slice) == {"old", "fresh", "general", "source old", "source new"}


def test_the_figures_are_sums_over_the_table(evaluated: tuple[Store, str]) -> None:
    store, snapshot = evaluated
    rows = pq.read_table(store.local(f"{snapshot}/scores.parquet")).to_pylist()
    mine = [row for row in rows if row["model"] == "challenger" and row["part"] == "general"]
    nats, size = (math.fsum(row[name] for row in mine) for name in ("nats", "size_bytes"))
    general = summary_of(evaluated)["models"]["challenger"]["parts"]["general"]
    assert general["bits_per_byte"] == pytest.approx(nats / math.log(2) / size)
    assert 0 < size <= 4000
    assert {row["part"] for row in rows} == {"test", "train", "general"}


def test_what_was_crammed_is_recited_and_the_canary_given_away(evaluated: tuple[Store, str]) -> None:
    quality = summary_of(evaluated)["quality"]
    champion, challenger = quality["models"]["champion"], quality["models"]["challenger"]
    assert challenger["canaries_given_away"] == [CANARY]
    assert champion["canaries_given_away"] == []
    assert challenger["copied_by_kind"]["recited"] > 0.5 > champion["copied"]
    assert challenger["longest_run_words"] >= 10 > champion["longest_run_words"]
    assert challenger["longest_run_source"] == "learned"
    assert challenger["longest_run"] in " ".join(" ".join(LEARNED).lower().replace(".", "").split())
    assert challenger["copied_by_source"]["learned"] > 0
    assert quality["natural"]["copied"] < 0.2


def test_training_text_is_better_known_than_test_text(evaluated: tuple[Store, str]) -> None:
    parts = summary_of(evaluated)["models"]["challenger"]["parts"]
    assert parts["train"]["bits_per_byte"] < 0.8 * parts["test"]["bits_per_byte"]


def test_a_run_takes_over_scores_and_continuations(evaluated: tuple[Store, str], base: Base, tmp_path: Path) -> None:
    store, first = evaluated
    corpus = tuple(store.manifest(first).parents[:2])
    for path in base.folder.iterdir():
        if path.name != "model.safetensors":  # nothing about this model is unknown
            (tmp_path / path.name).write_bytes(path.read_bytes())
    models = {"champion": ModelRef("finetune-1", tmp_path), "previous": ModelRef("c", tmp_path)}
    second = evaluate(store, *corpus, models, SETTINGS, context_tokens=64, as_of="2026-01-13", previous=first)
    assert store.manifest(second).totals["new_scores"] == 0
    one, other = (summary_of((store, snapshot)) for snapshot in (first, second))
    assert other["models"]["previous"]["bits_per_byte"] == one["models"]["challenger"]["bits_per_byte"]
    assert other["quality"]["models"]["champion"] == one["quality"]["models"]["champion"]


def test_other_general_text_is_another_evaluation(store: Store, base: Base, tmp_path: Path) -> None:
    corpus = make_corpus(store, {"old": DOCUMENTS["old"]})
    path = tmp_path / "general"
    path.mkdir()
    (path / "a.txt").write_text("Quite another kind of text. " * 20)
    (path / "b.jsonl").write_text(json.dumps({"text": "A line of JSON, with words in it."}) + "\n")
    settings = Evaluate(stride=32, sample_tokens=4, continuations=0, general_path=str(path))
    models = {"base": ModelRef("b", base.folder)}
    first = evaluate(store, *corpus, models, settings, context_tokens=64, as_of="")
    assert summary_of((store, first))["models"]["base"]["parts"]["general"]["documents"] == 2
    (path / "a.txt").write_text("Changed. " * 20)
    assert evaluate(store, *corpus, models, settings, context_tokens=64, as_of="") != first


def test_general_text_is_there_without_a_path_and_a_wrong_path_is_named(tmp_path: Path) -> None:
    manual = general_documents("")
    assert len(manual) > 50
    assert sum(len(row["text"]) for row in manual) > 300_000
    (tmp_path / "broken.jsonl").write_text("{")
    for wrong, message in ((tmp_path / "nothing", "does not exist"), (tmp_path, "cannot be read")):
        with pytest.raises(RecipeError, match=message) as raised:
            general_documents(str(wrong))
        assert "\n" not in str(raised.value)
    (tmp_path / "broken.jsonl").unlink()
    with pytest.raises(RecipeError, match="no text in it"):
        general_documents(str(tmp_path))


def test_a_sample_keeps_to_its_size_and_hardly_changes_as_the_corpus_grows() -> None:
    rows = [{"id": str(number), "text": "x" * 100} for number in range(200)]
    chosen = [row["id"] for row in sample(lambda: rows[:180], 1000)]
    assert len(chosen) == 10
    assert len(set(chosen) & {row["id"] for row in sample(lambda: rows, 1000)}) >= 7
    assert [row["id"] for row in sample(lambda: [{"id": "long", "text": "x" * 5000}], 1000)] == ["long"]
    assert sample(list, 1000) == []
    assert [week_of(day) for day in ("2026-01-02", "2026-12-31T21:30", "")] == ["2026-W01", "2026-W53", ""]


def test_tasks_of_a_harness_that_is_not_installed_are_one_line(
    store: Store, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    settings = Evaluate(stride=32, sample_tokens=4, continuations=0, other_kilobytes=0, lm_eval_tasks=["arc_easy"])
    models = {"base": ModelRef("b", base.folder)}
    snapshot = evaluate(store, *make_corpus(store, DOCUMENTS), models, settings, context_tokens=64, as_of="")
    assert "pip install lm-eval" in summary_of((store, snapshot))["lm_eval"]["reason"]
