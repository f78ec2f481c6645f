"""Writing: the same seed writes the same, whatever else goes on; settings do what they say; long texts fit."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    DynamicCache,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from prosemill.config.settings import Write
from prosemill.errors import BaseModelError
from prosemill.models.bases import Base, end_of_text_id
from prosemill.models.generation import Writer, choose, generate
from prosemill.models.kv_cache import RoomyLayer, with_room
from prosemill.models.loading import load_model
from tests.tiny import make_base, sentences

PROMPT = "The miller waits"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def writer(base: Base) -> Writer:
    torch.set_num_threads(1)
    return Writer(base.folder)


def test_the_same_seed_writes_the_same_and_leaves_the_random_state_alone(base: Base, writer: Writer) -> None:
    settings = Write(max_new_tokens=12)
    state = torch.get_rng_state()
    first = writer.write(PROMPT, settings, seed=1, num_samples=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert generate(base.folder, PROMPT, settings, seed=1, num_samples=3) == first
    assert writer.write(PROMPT, settings, seed=2, num_samples=3) != first
    assert len(set(first)) == 3
    assert all(text.startswith(PROMPT) and len(text) > len(PROMPT) for text in first)


def test_temperature_0_takes_the_likeliest_token_whatever_the_seed(writer: Writer) -> None:
    settings = Write(temperature=0, repetition_penalty=1, max_new_tokens=8)
    texts = writer.write(PROMPT, settings, seed=1, num_samples=4)
    assert len(set(texts)) == 1
    assert writer.write(PROMPT, settings, seed=2) == texts[:1]
    ids = [writer.end_of_text, *writer.encode([PROMPT])[0]]
    with torch.inference_mode():
        for _ in range(8):  # without cache or batch
            ids.append(int(writer.model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert texts[0] == writer.tokenizer.decode(ids, skip_special_tokens=True)


def test_top_k_and_top_p_leave_only_the_likeliest() -> None:
    nothing_yet = torch.empty((400, 0), dtype=torch.int64)
    logits = torch.log(torch.tensor([[0.05, 0.5, 0.15, 0.3]])).repeat(400, 1)

    def drawn(**settings: float) -> set[int]:
        generator = torch.Generator().manual_seed(0)
        return set(
            choose(logits, nothing_yet, Write(temperature=1, repetition_penalty=1, **settings), generator).tolist()
        )

    assert drawn(top_k=0, top_p=1.0) == {0, 1, 2, 3}
    assert drawn(top_k=2, top_p=1.0) == {1, 3}
    assert drawn(top_k=0, top_p=0.7) == {1, 3}
    assert drawn(top_k=0, top_p=0.4) == {1}
    assert drawn(top_k=100, top_p=0.85) == {1, 2, 3}


def test_the_repetition_penalty_makes_what_was_written_less_likely() -> None:
    logits, text = torch.tensor([[2.0, -2.0, 1.5]]), torch.tensor([[0, 1, 0]])
    for penalty, likeliest in ((1.0, 0), (1.2, 0), (2.0, 2)):
        settings = Write(temperature=0, repetition_penalty=penalty)
        assert choose(logits, text, settings, torch.Generator()).tolist() == [likeliest]


def test_the_same_ids_are_left_to_choose_from_as_in_transformers() -> None:
    """Its own warpers, over the whole vocabulary, in the order in which `generate` applies them."""
    settings = Write(temperature=0.8, top_k=20, top_p=0.9, repetition_penalty=1.3)
    torch.manual_seed(0)
    logits, text = torch.randn(1, 200).mul(3).repeat(4000, 1), torch.randint(0, 200, (1, 30)).repeat(4000, 1)
    scores = logits
    for processor in (
        RepetitionPenaltyLogitsProcessor(settings.repetition_penalty),
        TemperatureLogitsWarper(settings.temperature),
        TopKLogitsWarper(settings.top_k),
        TopPLogitsWarper(settings.top_p),
    ):
        scores = processor(text, scores)
    drawn = choose(logits, text, settings, torch.Generator().manual_seed(0))
    expected = scores[0].softmax(dim=-1)
    assert set(drawn.tolist()) == set(expected.nonzero()[:, 0].tolist())
    shares = torch.bincount(drawn, minlength=200) / len(drawn)
    assert (shares - expected).abs().max() < 0.04, "five standard deviations of 4,000 draws"


def test_an_end_of_text_ends_a_sample_and_not_the_others(base: Base, tmp_path: Path) -> None:
    model = load_model(base.folder)
    with torch.no_grad():  # make the end likely
        model.transformer.wte.weight[end_of_text_id(base.folder)] *= 8
    shutil.copytree(base.folder, tmp_path, dirs_exist_ok=True)
    model.save_pretrained(tmp_path)
    writer = Writer(tmp_path)
    texts = writer.write("", Write(temperature=5.0, top_k=0, top_p=1.0, max_new_tokens=30), seed=3, num_samples=8)
    lengths = {len(writer.encode([text])[0]) for text in texts}
    assert len(lengths) > 2
    assert not any("endoftext" in text for text in texts)


def test_an_empty_prompt_starts_at_end_of_text(writer: Writer) -> None:
    (text,) = writer.write("", Write(max_new_tokens=6), seed=0)
    assert text


def test_a_prompt_longer_than_the_context_is_cut_on_the_left_with_a_warning(
    writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = " ".join(sentences(20))
    with caplog.at_level(logging.WARNING, logger="prosemill.models.generation"):
        (text,) = writer.write(prompt, Write(max_new_tokens=5), seed=0)
    assert "only its end is used" in caplog.text
    assert text.startswith(prompt)


def test_a_text_may_grow_beyond_the_context(writer: Writer) -> None:
    settings = Write(temperature=1.0, max_new_tokens=150)  # the model reads 64
    (text,) = writer.write(PROMPT, settings, seed=5)
    assert len(writer.encode([text])[0]) > writer.context_tokens
    assert writer.write(PROMPT, settings, seed=5) == [text]


def test_batched_greedy_text_is_that_of_one_by_one(writer: Writer) -> None:
    settings = Write(temperature=0, max_new_tokens=80)
    assert writer.write(PROMPT, settings, seed=0, num_samples=16) == writer.write(PROMPT, settings, seed=0) * 16


def test_a_cache_with_room_holds_what_a_plain_one_holds() -> None:
    plain, roomy = DynamicCache(), DynamicCache()
    for size in (5, *[1] * 200, 30):
        states = torch.randn(2, 3, size, 4), torch.randn(2, 3, size, 4)
        for cache in (plain, roomy):
            updated = cache.update(*states, 0)
        roomy = with_room(roomy)
        assert all(torch.equal(one, other) for one, other in zip(updated, plain.update(*_nothing(), 0), strict=True))
    assert isinstance(roomy.layers[0], RoomyLayer)
    assert roomy.get_seq_length() == plain.get_seq_length() == 235
    assert roomy.layers[0].rooms[0].shape[-2] > 235
    assert with_room(None) is None


def _nothing() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(2, 3, 0, 4), torch.zeros(2, 3, 0, 4)


def test_a_folder_without_a_model_is_one_line(tmp_path: object) -> None:
    with pytest.raises(BaseModelError) as raised:
        generate(tmp_path, "x", Write(), seed=0)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)
