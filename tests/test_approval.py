"""A person in the loop: one question, at most one answer, and a model that takes over only by it."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from prosemill.config.settings import Gate
from prosemill.errors import EXIT_REFUSED, ApprovalError
from prosemill.gate import approval
from prosemill.gate.approval import ApprovalState
from prosemill.registry.registry import Registry
from prosemill.storage import write_once
from prosemill.storage.store import Store
from tests.test_registry import snapshots_of


def decided(store: Store, registry: Registry, number: int, *, against: int = 0, hours: float = 24) -> ApprovalState:
    """Version `number` is recorded as the challenger of version `against` (0: of the base), and somebody is asked."""
    finetune, evaluation, decision = snapshots_of(store, number)
    champion = f"finetune-{against:016x}" if against else ""
    at = store.local(decision) / "decision.json"
    at.write_text(json.dumps({**json.loads(at.read_text()), "champion": champion}))
    version = registry.record("house", finetune, evaluation, decision)
    question = approval.ask(
        store, "house", model=f"house/{version}", challenger=finetune, gate=decision, hours=hours, run="run"
    )
    return approval.enact(store, registry, question)


def champion_of(registry: Registry) -> str:
    champion = registry.champion("house")
    return champion.snapshot if champion else ""


def answer(store: Store, question: ApprovalState, approve: bool = True, **more: Any) -> ApprovalState:
    return approval.answer(store, Registry.open(store.url), question, approve=approve, who="ada", **more)


def test_a_challenger_takes_over_when_somebody_says_so(store: Store) -> None:
    registry = Registry.open(store.url)
    question = decided(store, registry, 1)
    assert (question.state, question.decision) == ("asked", "awaiting-approval")
    assert champion_of(registry) == ""
    assert approval.open_question(store, registry, "house") == question

    answered = answer(store, question, comment="reads well")

    assert (answered.state, answered.decision, answered.who) == ("approved", "promote", "ada")
    assert champion_of(registry) == question.challenger
    (row,) = registry.describe("house")
    assert row["approval"] == f"approved by ada at {answered.at}"
    assert answered.sentence == f"house/1 was approved by ada at {answered.at}: reads well"


def test_a_refusal_is_as_final(store: Store) -> None:
    registry = Registry.open(store.url)
    question = decided(store, registry, 1)
    refused = answer(store, question, approve=False)
    assert (refused.state, refused.decision) == ("refused", "not-approved")
    assert champion_of(registry) == ""
    for approve in (True, False):
        with pytest.raises(ApprovalError, match=r"house/1 was refused by ada at .*; it is decided once"):
            answer(store, question, approve)
    assert champion_of(registry) == ""
    assert registry.describe("house")[0]["approval"].startswith("refused by ada")


def test_no_answer_means_no_although_nothing_runs(store: Store) -> None:
    registry = Registry.open(store.url)
    question = decided(store, registry, 1, hours=1 / 3_600_000)
    late = "2099-01-01T00:00:00Z"
    expired = approval.read_state(store, "house", question.gate, now=late)
    assert expired is not None
    assert (expired.state, expired.decision) == ("expired", "not-approved")
    with pytest.raises(ApprovalError, match=r"too late: nobody answered for house/1 until .*; a run with a new date"):
        answer(store, question, at=late)
    assert champion_of(registry) == ""


def test_an_answer_counts_from_when_it_was_given(store: Store) -> None:
    """A form that was sent in time lies on the server until a worker is free, which may be after the deadline."""
    registry = Registry.open(store.url)
    question = decided(store, registry, 1)
    path = Path(store.root, "approvals", "house", question.gate, "asked.json")
    record = {**json.loads(path.read_text()), "asked_at": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    path.write_text(json.dumps(record))  # it was asked long ago
    with pytest.raises(ApprovalError, match="too late"):
        answer(store, question)
    assert answer(store, question, at="2026-01-01T12:00:00Z").state == "approved"
    assert champion_of(registry) == question.challenger


def test_yesterdays_challenger_cannot_be_approved(store: Store) -> None:
    registry = Registry.open(store.url)
    first = decided(store, registry, 1)
    second = decided(store, registry, 2)
    with pytest.raises(ApprovalError, match=r"house/1 is no longer the challenger .*; `prosemill models house`"):
        answer(store, first)
    assert answer(store, second).state == "approved"
    third = decided(store, registry, 3, against=2)
    registry.promote("house", first.challenger)  # somebody rolled back, or another run was faster
    with pytest.raises(ApprovalError, match="house/3 is no longer the challenger of the champion"):
        answer(store, third)
    assert champion_of(registry) == first.challenger


def test_an_approval_is_made_true_once(store: Store) -> None:
    """A run that is repeated after its promotion was rolled back does not promote again."""
    registry = Registry.open(store.url)
    first = answer(store, decided(store, registry, 1))
    second = answer(store, decided(store, registry, 2, against=1))
    assert champion_of(registry) == second.challenger
    registry.roll_back("house")
    assert approval.enact(store, registry, second).state == "approved"
    assert champion_of(registry) == first.challenger


def test_an_answer_that_was_not_made_true_is_made_so_later(store: Store) -> None:
    """Killed between the answer and the promotion."""
    registry = Registry.open(store.url)
    question = decided(store, registry, 1)
    path = f"approvals/house/{question.gate}/answer.json"
    write_once.write(store, path, {"approved": True, "who": "ada", "at": "2026-01-01T12:00:00Z", "comment": ""})
    state = approval.read_state(store, "house", question.gate)
    assert state is not None
    approval.enact(store, registry, state)
    assert champion_of(registry) == question.challenger


def test_of_many_answers_at_once_one_stands(store: Store) -> None:
    question = decided(store, Registry.open(store.url), 1)
    replies: list[str] = []

    def say(number: int) -> None:
        try:
            replies.append(answer(store, question, approve=bool(number % 2), comment=str(number)).state)
        except ApprovalError as error:
            replies.append(str(error).partition(" at ")[0])

    people = [threading.Thread(target=say, args=(number,)) for number in range(8)]
    for thread in people:
        thread.start()
    for thread in people:
        thread.join()
    stands = approval.read_state(store, "house", question.gate)
    assert stands is not None
    assert {reply for reply in replies if reply in ("approved", "refused")} == {stands.state}
    assert (champion_of(Registry.open(store.url)) != "") == (stands.state == "approved")
    assert len(replies) == 8


def test_a_question_is_put_once(store: Store) -> None:
    registry = Registry.open(store.url)
    first = decided(store, registry, 1)
    again = decided(store, registry, 1, hours=9)
    assert again == first


def test_who_may_not_answer_is_told_in_one_line(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.cli import run

    registry = Registry.open(store.url)
    registry.record("house", *snapshots_of(store, 1))
    for name, message in (
        ("house", "prosemill: no challenger of house waits for approval; `prosemill models house` lists what there is"),
        ("hut", "prosemill: no challenger of hut waits for approval; `prosemill models hut` lists what there is"),
    ):
        assert run(["approve", name, "--store", store.url]) == EXIT_REFUSED
        assert capsys.readouterr().err.strip() == message


def test_approval_does_not_change_the_decision() -> None:
    from prosemill.gate.stage import WITHOUT_EFFECT

    with_approval, without = Gate(approval=True, approval_hours=3), Gate()
    assert with_approval.model_dump(exclude=WITHOUT_EFFECT) == without.model_dump(exclude=WITHOUT_EFFECT)


def test_a_run_of_a_terminal_goes_on_with_the_question_open(store: Store, prefect_api: str) -> None:
    """It cannot be suspended: Prefect starts only runs of deployments anew."""
    from prefect import flow

    from flows import approval as approval_flow
    from prosemill.reporting.summary import TrainingRecord

    question = decided(store, Registry.open(store.url), 1)

    @flow
    def ask() -> str:
        trained = TrainingRecord(
            finetune=question.challenger, evaluate="", gate=question.gate, model="", seconds={}, reason=""
        )
        state = approval_flow.resolve_approval(store, "house", trained)
        return state.decision if state else "never asked"

    assert ask() == "awaiting-approval"
    answer(store, question)
    assert ask() == "promote"
