"""Evaluation: every token scored once, by the exact sum; a run scores only what is new; differences are paired."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from prosemill.config.settings import Evaluate
from prosemill.errors import CorpusEmpty
from prosemill.evaluation.reuse import read_earlier
from prosemill.evaluation.score import score
from prosemill.evaluation.scorer import ModelRef
from prosemill.evaluation.stage import default_prompts, evaluate
from prosemill.evaluation.windows import windows_of
from prosemill.models import bases, loading
from prosemill.models.bases import Base
from prosemill.models.generation import Writer
from prosemill.storage import stages
from prosemill.storage.store import Store
from tests.tiny import encode, make_base, make_corpus, teach, texts

SETTINGS = Evaluate(stride=32, sample_tokens=8, batch_windows=4, other_kilobytes=0, continuations=0)
DOCUMENTS = {"blog": texts(8), "news": texts(5, seed=3, words=4)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    torch.set_num_threads(1)
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, base: Base) -> Path:
    """The base after a few steps on text like the test documents'."""
    rows = [[ids[:64]] for ids in encode(base, texts(40, seed=9))]
    return teach(base, tmp_path_factory.mktemp("tuned"), rows, learning_rate=5e-3)


def read(store: Store, snapshot: str, role: str) -> object:
    (shard,) = store.manifest(snapshot).shards_of(role)
    return json.loads(store.open(shard.path).read())


def exact(folder: Path, text: str) -> float:
    """Nats of a text that fits into the context, in float64 and in one piece."""
    ids = torch.tensor(encode(bases.resolve(str(folder)), [text]))
    with torch.inference_mode():
        logits = loading.load_model(folder).double()(ids).logits[0, :-1]
    return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))


# --- windows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_ids", "context", "stride"), [(2, 8, 4), (8, 8, 8), (9, 8, 4), (30, 8, 3), (100, 8, 8)])
def test_each_token_is_scored_once_and_windows_fit(num_ids: int, context: int, stride: int) -> None:
    windows = list(windows_of(0, num_ids, context, stride))
    scored = [token for window in windows for token in range(window.scored, window.end)]
    assert scored == list(range(1, num_ids))
    assert all(window.end - window.begin <= context for window in windows)
    assert all(window.begin < window.scored for window in windows)  # each scored token has something before it
    assert list(windows_of(0, 1, context, stride)) == []


def test_batched_scores_are_the_exact_sums_and_the_recipe_s(base: Base) -> None:
    writer = Writer(base.folder)
    encoded = [[writer.end_of_text, *ids] for ids in writer.encode(texts(9))]
    assert max(map(len, encoded)) > 64
    scores = score(writer.model, encoded, context_tokens=64, stride=32, batch_windows=5)
    model = loading.load_model(base.folder).double()
    for ids, nats in zip(encoded, scores, strict=True):
        expected, done = 0.0, 0
        for begin in range(0, len(ids), 32):  # as in Hugging Face's text on perplexity
            end = min(begin + 64, len(ids))
            inputs = torch.tensor([ids[begin:end]])
            with torch.inference_mode():
                losses = torch.nn.functional.cross_entropy(
                    model(inputs).logits[0, :-1], inputs[0, 1:], reduction="none"
                )
            expected += float(losses[max(done - begin - 1, 0) :].sum())
            done = end
            if end == len(ids):
                break
        assert nats == pytest.approx(expected, rel=1e-6)


# --- the stage -------------------------------------------------------------------------------------------------------


def test_scores_summary_and_samples(store: Store, base: Base, tuned: Path) -> None:
    dedup, split = make_corpus(store, DOCUMENTS)
    references = {"base": ModelRef("b", base.folder), "challenger": ModelRef("c", tuned)}
    snapshot = evaluate(store, dedup, split, references, SETTINGS, context_tokens=64, as_of="2026-01-02")
    manifest = store.manifest(snapshot)
    assert (manifest.counts.seen, manifest.counts.kept, manifest.as_of) == (13, 13, "2026-01-02")
    rows = pq.read_table(store.local(f"{snapshot}/scores.parquet")).to_pylist()
    short = min(DOCUMENTS["blog"], key=len)
    row = next(row for row in rows if row["model"] == "base" and row["size_bytes"] == len(short.encode()))
    assert row["nats"] == pytest.approx(exact(base.folder, short), rel=1e-6)
    summary = read(store, snapshot, "summary")
    of_base, of_challenger = summary["models"]["base"], summary["models"]["challenger"]
    mine = [row for row in rows if row["model"] == "base"]
    nats, tokens, size = (math.fsum(row[name] for row in mine) for name in ("nats", "num_tokens", "size_bytes"))
    assert of_base["perplexity"] == pytest.approx(math.exp(nats / tokens))
    assert of_base["bits_per_byte"] == pytest.approx(nats / math.log(2) / size)
    assert of_base["perplexity_interval"][0] < of_base["perplexity"] < of_base["perplexity_interval"][1]
    assert {name: part["documents"] for name, part in of_base["sources"].items()} == {"blog": 8, "news": 5}
    assert sum(part["bytes"] for part in of_base["sources"].values()) == of_base["bytes"]
    difference = summary["differences"]["challenger-base"]
    assert difference["bits_per_byte"] == pytest.approx(of_challenger["bits_per_byte"] - of_base["bits_per_byte"])
    assert difference["interval"][1] < 0
    assert summary["share_tokenizer"] is True
    samples = read(store, snapshot, "samples")
    prompts = default_prompts(DOCUMENTS["blog"] + DOCUMENTS["news"])
    assert [sample["prompt"] for sample in samples] == prompts
    assert all(text.startswith(sample["prompt"]) for sample in samples for text in sample["texts"].values())
    assert all(list(sample["texts"]) == ["base", "challenger"] for sample in samples)
    figures = [round(of_base["perplexity"], 2), round(of_base["bits_per_byte"], 4)]
    assert (stages.of("evaluate").version, figures) == (3, [424.71, 1.9209]), "output changed: raise the version"


def test_a_run_scores_only_what_is_new(store: Store, base: Base, tuned: Path, tmp_path: Path) -> None:
    references = {"base": ModelRef("b", base.folder), "challenger": ModelRef("c", tuned)}
    first = evaluate(store, *make_corpus(store, DOCUMENTS), references, SETTINGS, context_tokens=64, as_of="2026-01-02")
    more = DOCUMENTS | {"shop": texts(3, seed=8)}
    corpus = make_corpus(store, more, increment="1")
    models = {"base": ModelRef("b", base.folder), "champion": ModelRef("c", tuned), "challenger": ModelRef("d", tuned)}
    second = evaluate(store, *corpus, models, SETTINGS, context_tokens=64, as_of="2026-01-03", previous=first)
    assert store.manifest(second).totals["new_scores"] == 3 + 3 + 16
    used = store.manifest(first).settings
    assert read_earlier(store, first, used, stages.of("evaluate").version + 1).scores, "a version that scores alike"
    assert not read_earlier(store, first, used, stages.of("evaluate").version - 1).scores
    rows = pq.read_table(store.local(f"{second}/scores.parquet")).to_pylist()
    assert len(rows) == 3 * 16
    by_model = [[row["nats"] for row in rows if row["model"] == label] for label in ("champion", "challenger")]
    assert by_model[0] == pytest.approx(by_model[1], rel=1e-6)  # one from the earlier run, one scored again
    for path in base.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").unlink()  # not needed when everything about the model is known
    again = {"base": ModelRef("b", tmp_path)}
    third = evaluate(store, *corpus, again, SETTINGS, context_tokens=64, as_of="2026-01-04", previous=second)
    assert store.manifest(third).totals["new_scores"] == 0


def test_the_same_question_is_answered_at_once_and_another_stride_is_another(store: Store, base: Base) -> None:
    corpus = make_corpus(store, DOCUMENTS)
    references = {"base": ModelRef("b", base.folder)}
    first = evaluate(store, *corpus, references, SETTINGS, context_tokens=64, as_of="2026-01-02")
    assert evaluate(store, *corpus, references, SETTINGS, context_tokens=64, as_of="2026-01-09") == first
    other = SETTINGS.model_copy(update={"stride": 8})
    second = evaluate(store, *corpus, references, other, context_tokens=64, as_of="2026-01-02", previous=first)
    assert second != first
    assert store.manifest(second).totals["new_scores"] == 13


def test_prompts_of_the_recipe_are_used(store: Store, base: Base) -> None:
    settings = SETTINGS.model_copy(update={"prompts": ["The heron", ""]})
    references = {"base": ModelRef("b", base.folder)}
    snapshot = evaluate(store, *make_corpus(store, DOCUMENTS), references, settings, context_tokens=64, as_of="")
    assert [sample["prompt"] for sample in read(store, snapshot, "samples")] == ["The heron", ""]


def test_default_prompts_are_beginnings() -> None:
    english, chinese = " ".join(["one two three"] * 60), "今夜月明人尽望不知秋思落谁家" * 20
    assert default_prompts(["short", english, chinese]) == ["one two three one two three one two", chinese[:12]]
    assert default_prompts(["short"]) == ["short"]
    verse = "\n".join(["近清明。", "翠禽枝上消魂。", "可惜一片清歌，都付与黄昏。"] * 20)
    assert default_prompts([verse]) == ["近清明。翠禽枝上消魂。可"]
    korean = "강물이 불어나서 방앗간 주인은 " * 20
    assert default_prompts([korean]) == [" ".join(korean.split()[:8])]
    burmese = "မြစ်ရေတက်လာသည်။ စက်ရှင်စောင့်သည်။" * 20
    assert default_prompts([burmese]) == ["မြစ်ရေတက်လာသည်။စက်"]


def test_no_test_document_is_an_empty_corpus(store: Store, base: Base) -> None:
    references = {"base": ModelRef("b", base.folder)}
    with pytest.raises(CorpusEmpty, match="no test document"):
        evaluate(store, *make_corpus(store, {}), references, SETTINGS, context_tokens=64, as_of="")
