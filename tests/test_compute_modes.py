"""How a step is computed: every way gives the same loss and gradients, and no document sees its neighbour."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from prosemill.finetune import attention
from prosemill.finetune.attention import BLOCKS, MASKED, BlockAttention, boundaries_of, layout_of
from prosemill.finetune.autotune import (
    TIMED_CHUNKS,
    choose,
    faster,
    flops_per_token,
    is_faithful,
    keeps_apart,
    peak_flops,
)
from prosemill.finetune.batches import Steps, collate, num_scored, training_order
from prosemill.finetune.loss import IGNORED, LOGITS_BYTES, ChunkedLoss, exact_nats
from prosemill.finetune.loss_wrapper import CHUNKED, LINEAR, LOGITS, ComputeMode, SummedLoss
from prosemill.finetune.rates import HIGHEST, LOWEST, TRIALS, best_rate, find_rate
from prosemill.models import loading
from prosemill.models.bases import Base
from tests.tiny import make_base, pack, texts

PLAIN = ComputeMode("fp32", MASKED, LOGITS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("base"), vocabulary=470)  # not a multiple of 64


@pytest.fixture
def learner(base: Base) -> SummedLoss:
    torch.set_num_threads(1)
    return SummedLoss(loading.load_model(base.folder, dropout=0.0))


@pytest.fixture(scope="module")
def rows(base: Base) -> list[dict[str, object]]:
    table = pack(base, texts(30), 64)
    return [{name: table[name][row].values.to_numpy() for name in ("input_ids", "starts")} | {
        "num_tokens": table["num_tokens"][row].as_py()} for row in range(table.num_rows)]  # fmt: skip


@pytest.fixture
def batch(rows: list[dict[str, object]]) -> dict[str, torch.Tensor]:
    return collate(rows[:3])


def gradients(learner: SummedLoss, mode: ComputeMode, batch: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor]:
    learner.follow(mode)
    learner.zero_grad()
    loss = learner(**batch, scale=1 / num_scored(batch))
    loss.backward()
    return float(loss.detach()), torch.cat(
        [weight.grad.flatten() for weight in learner.parameters() if weight.grad is not None]
    )


@pytest.mark.parametrize("kind", [MASKED, BLOCKS])
@pytest.mark.parametrize("loss", [CHUNKED, LINEAR, LOGITS])
def test_every_way_gives_the_plain_loss_and_gradients(
    learner: SummedLoss, batch: dict[str, torch.Tensor], kind: str, loss: str
) -> None:
    expected, plain = gradients(learner, PLAIN, batch)
    actual, ours = gradients(learner, ComputeMode("fp32", kind, loss), batch)
    assert actual == pytest.approx(expected, rel=1e-6)
    assert float((ours - plain).norm() / plain.norm()) < 1e-5
    exact = float(learner.measure(**batch)) / num_scored(batch)
    assert exact == pytest.approx(expected, rel=1e-6)


def test_bf16_is_near(learner: SummedLoss, batch: dict[str, torch.Tensor]) -> None:
    expected, plain = gradients(learner, PLAIN, batch)
    actual, ours = gradients(learner, ComputeMode("bf16", BLOCKS, CHUNKED), batch)
    assert actual == pytest.approx(expected, rel=2e-3)
    assert 0 < float((ours - plain).norm() / plain.norm()) < 0.03


def test_a_model_with_rotary_positions_is_trained_in_bf16_blocks(batch: dict[str, torch.Tensor]) -> None:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 470}
    llama = SummedLoss(LlamaForCausalLM(LlamaConfig(max_position_embeddings=64, **sizes, **heads)))
    expected, plain = gradients(llama, PLAIN, batch)
    assert choose(llama, batch, precision="bf16", dropout=0.0).mode == ComputeMode("bf16", BLOCKS, CHUNKED)
    actual, ours = gradients(llama, ComputeMode("bf16", BLOCKS, CHUNKED), batch)
    assert actual == pytest.approx(expected, rel=2e-3)
    assert 0 < float((ours - plain).norm() / plain.norm()) < 0.05


def test_long_documents_run_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", 16)
    positions = torch.tensor([[*range(40), *range(5), *range(3), *range(2)], list(range(50))])
    layout = layout_of(positions)
    assert [span for span, _ in layout.spans] == [(0, 0, 40), (0, 40, 50), (1, 0, 50)]
    inputs = [torch.randn(2, 3, 50, 8, requires_grad=True) for _ in range(3)]
    ours = BlockAttention.apply(*inputs, 0.3, layout)
    start = torch.arange(50) - positions
    allowed = (start[:, :, None] == start[:, None, :]) & torch.ones(50, 50, dtype=torch.bool).tril()
    plain = functional.scaled_dot_product_attention(*inputs, attn_mask=allowed[:, None], scale=0.3)
    assert torch.allclose(ours, plain, atol=1e-6)
    push = torch.randn_like(plain)
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs, push), torch.autograd.grad(plain, inputs, push), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_a_leak_is_noticed(
    learner: SummedLoss, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    mode = ComputeMode("fp32", BLOCKS, CHUNKED)
    assert keeps_apart(learner, mode, batch)
    one = {name: tensor[:1].clone() for name, tensor in batch.items()}
    one["position_ids"] = torch.arange(64)[None]  # a single document: halves are made of it
    assert keeps_apart(learner, mode, one)
    monkeypatch.setattr(attention, "layout_of", lambda ids: layout_of(torch.arange(ids.shape[1]).expand_as(ids)))
    assert not keeps_apart(learner, mode, batch)


def test_the_chunked_loss_is_exact_and_leaves_out_what_is_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOGITS_BYTES, "cpu", 70 * 64 * 4)  # several runs of rows
    hidden, weight = torch.randn(200, 16, requires_grad=True), torch.randn(70, 16, requires_grad=True)
    targets = torch.randint(0, 70, (200,))
    targets[::3] = IGNORED
    ours = 2 * ChunkedLoss.apply(hidden, weight, targets, 0.25)
    plain = 0.5 * functional.cross_entropy(hidden @ weight.t(), targets, reduction="sum")
    assert float(ours) == pytest.approx(float(plain), rel=1e-6)
    assert float(exact_nats(hidden.detach(), weight.detach(), targets)) == pytest.approx(2 * float(plain), rel=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(ours, [hidden, weight]), torch.autograd.grad(plain, [hidden, weight]), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_a_way_that_computes_something_else_is_not_chosen(learner: SummedLoss, batch: dict[str, torch.Tensor]) -> None:
    expected, _ = gradients(learner, PLAIN, batch)
    assert is_faithful(learner, ComputeMode("fp32", BLOCKS, CHUNKED), batch, expected)
    learner.model.lm_head.bias = torch.nn.Parameter(torch.ones(len(learner.model.lm_head.weight)))
    assert not is_faithful(learner, ComputeMode("fp32", BLOCKS, CHUNKED), batch, expected)
    assert choose(learner, batch, precision="fp32", dropout=0.0).mode == ComputeMode("fp32", BLOCKS, LOGITS)


def test_a_named_precision_is_not_timed_against_another(learner: SummedLoss, batch: dict[str, torch.Tensor]) -> None:
    named = choose(learner, batch, precision="bf16", dropout=0.0)
    assert named.mode == ComputeMode("bf16", BLOCKS, CHUNKED)
    assert len(named.timings) == 1
    assert choose(learner, batch, precision="fp32", dropout=0.1).mode.attention == MASKED  # dropout needs the masks
    probe = choose(learner, batch, precision="auto", dropout=0.0)
    assert {name.split()[0] for name in probe.timings} == {"fp32", "bf16"}
    assert probe.mode in {replace(ComputeMode(), precision=p, attention=a, loss=loss)
        for p in ("fp32", "bf16") for a in (MASKED, BLOCKS) for loss in (CHUNKED, LINEAR, LOGITS)}  # fmt: skip
    assert probe.peak_flops > 1e8
    assert all(weight.grad is None for weight in learner.parameters())


def test_a_short_run_is_not_held_up_by_timing(learner: SummedLoss, batch: dict[str, torch.Tensor]) -> None:
    probe = choose(learner, batch, precision="auto", dropout=0.0, num_chunks=TIMED_CHUNKS - 1)
    assert (probe.timings, probe.seconds_per_chunk) == ({}, None)
    pays = peak_flops(torch.device("cpu"), "bf16") > peak_flops(torch.device("cpu"), "fp32")
    assert probe.mode in [
        ComputeMode(precision, BLOCKS, CHUNKED) for precision in (("fp32", "bf16") if pays else ("fp32",))
    ]
    assert choose(learner, batch, precision="auto", dropout=0.0, num_chunks=TIMED_CHUNKS).timings


def test_a_way_that_seems_faster_by_accident_is_not_taken() -> None:
    other = replace(PLAIN, loss=CHUNKED)
    timings = {PLAIN: iter([2.0, 1.0]), other: iter([1.1, 1.1])}  # whatever came first took twice its time
    best: dict[ComputeMode, float] = {}

    def seconds(mode: ComputeMode, again: bool = False) -> float:
        if again or mode not in best:
            best[mode] = min(next(timings[mode]), best.get(mode, 9.0))
        return best[mode]

    assert faster(PLAIN, [other], seconds) == PLAIN
    assert faster(other, [PLAIN], lambda mode, again=False: {PLAIN: 1.0, other: 1.2}[mode]) == PLAIN


def test_operations_are_counted_as_in_the_literature(learner: SummedLoss) -> None:
    weights = sum(weight.numel() for weight in learner.parameters()) - 64 * 32  # position embeddings
    assert flops_per_token(learner, 64) == 6 * weights + 12 * 2 * 32 * 64


def test_boundaries_have_one_size_whatever_the_documents() -> None:
    positions = torch.tensor([[0, 1, 0, 1], [0, 1, 2, 3]])
    assert boundaries_of(positions, 5).tolist() == [0, 2, 4, 8, 8, 8]
    with pytest.raises(ValueError, match="3 documents in a micro-batch, but room for 2"):
        boundaries_of(positions, 2)


# --- batches ---------------------------------------------------------------------------------------------------------


def test_processes_share_a_batch_evenly_and_the_last_one_is_made_up(rows: list[dict[str, object]]) -> None:
    whole = Steps(rows[:7], 4)
    parts = [Steps(rows[:7], 4, rank=rank, ranks=2) for rank in range(2)]
    assert len(whole) == 2
    for step in range(2):
        together = whole.batch(step)
        halves = [part.batch(step) for part in parts]
        assert all(half["scored"] == together["scored"] == num_scored(together) for half in halves)
        assert sum(num_scored(half) for half in halves) == together["scored"]
        assert {len(half["labels"]) for half in halves} == {2}
    assert [step["scored"] for step in whole] == [whole.batch(0)["scored"], whole.batch(1)["scored"]]
    assert len(list(Steps(rows[:7], 4, first=1))) == 1


def test_what_goes_wrong_while_reading_ahead_is_heard() -> None:
    class Broken(list):  # type: ignore[type-arg]
        def __getitem__(self, index: object) -> object:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        next(iter(Steps(Broken([1, 2]), 1)))


def test_replayed_chunks_are_spread_evenly() -> None:
    order = training_order(10, 40, 0, num_replayed=5, replay_share=0.25)
    is_replayed = order >= 10
    assert is_replayed.reshape(-1, 4).sum(axis=1).tolist() == [1] * 10
    assert set(order[is_replayed]) == {10, 11, 12, 13, 14}
    assert sorted(order[~is_replayed][:10]) == list(range(10))
    assert training_order(10, 40, 0).max() == 9


# --- the rate --------------------------------------------------------------------------------------------------------


def test_the_best_rate_is_below_the_one_where_the_loss_turns() -> None:
    growth = (HIGHEST / LOWEST) ** (1 / (TRIALS - 1))
    losses = [5 - 0.05 * trial if trial < 30 else 3.5 + 0.5 * (trial - 30) for trial in range(36)]
    turn = LOWEST * growth**30
    assert turn / 10 < best_rate(losses, growth) < turn
    assert best_rate([*losses, float("nan")], growth) == best_rate(losses, growth)


def test_the_search_leaves_the_weights_as_they_were(learner: SummedLoss, rows: list[dict[str, object]]) -> None:
    before = {name: weight.detach().clone() for name, weight in learner.named_parameters()}
    rate = find_rate(learner, Steps([*rows, *rows, *rows, *rows], 1), weight_decay=0.1)
    assert LOWEST < rate < HIGHEST
    assert all(torch.equal(weight, before[name]) for name, weight in learner.named_parameters())
    assert all(weight.grad is None for weight in learner.parameters())
