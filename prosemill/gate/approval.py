"""Approval of a challenger by a person: one question for each decision of the gate, and at most one answer.

    <store>/approvals/<model>/<gate snapshot>/asked.json     which challenger, by which run, and until when
    <store>/approvals/<model>/<gate snapshot>/answer.json    yes or no, who, when, why

Each is written once and never changed: of two answers the first one counts. A time-out is not written, it follows from
`until`; so no answer in time means no, also when nothing runs at that moment. An approval is void (`superseded`) once a
newer challenger was decided on, or another champion is in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prosemill.errors import ApprovalError
from prosemill.gate.rule import PROMOTE
from prosemill.registry.registry import CHALLENGER, ModelVersion, Registry
from prosemill.storage import write_once
from prosemill.storage.decision_record import read_decision
from prosemill.storage.store import Store
from prosemill.storage.times import moment

ASKED, APPROVED, REFUSED, EXPIRED, SUPERSEDED = "asked", "approved", "refused", "expired", "superseded"
AWAITING, NOT_APPROVED = "awaiting-approval", "not-approved"  # decisions of a run, beside those of the gate


@dataclass(frozen=True)
class ApprovalState:
    """How a question stands. Times are ISO 8601, UTC, to the second."""

    state: str  # asked | approved | refused | expired | superseded
    name: str
    model: str  # "name/version" of the challenger
    challenger: str  # its finetune snapshot
    gate: str  # the gate snapshot that asks
    asked_at: str
    until: str
    run: str  # id of the flow run that asked
    who: str = ""
    at: str = ""
    comment: str = ""

    @property
    def decision(self) -> str:
        return {ASKED: AWAITING, APPROVED: PROMOTE}.get(self.state, NOT_APPROVED)

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        why = f": {self.comment}" if self.comment else ""
        return {
            ASKED: f"{self.model} waits until {self.until} for somebody to approve it",
            APPROVED: f"{self.model} was approved by {self.who} at {self.at}{why}",
            REFUSED: f"{self.model} was refused by {self.who} at {self.at}{why}",
            EXPIRED: f"nobody answered for {self.model} until {self.until}, which means no",
            SUPERSEDED: f"{self.model} is no longer the challenger of the champion it was compared with",
        }[self.state]

    @property
    def summary(self) -> str:
        """ "approved by ada at …": for a list of models."""
        if self.state in (APPROVED, REFUSED):
            return f"{self.state} by {self.who} at {self.at}"
        return f"{self.state}, until {self.until}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def ask(store: Store, name: str, *, model: str, challenger: str, gate: str, hours: float, run: str) -> ApprovalState:
    """Ask; if it was asked before, the state of that question: a repeated run asks only once."""
    now = datetime.now(UTC)
    question = {
        "model": model, "challenger": challenger, "run": run,
        "asked_at": moment(now), "until": moment(now + timedelta(hours=hours)),
    }  # fmt: skip
    write_once.write(store, _path(name, gate, "asked"), question)
    state = read_state(store, name, gate)
    assert state is not None  # just written
    return state


def read_state(store: Store, name: str, gate: str, now: str = "") -> ApprovalState | None:
    """How the question about a decision stands, but for being superseded (see `current`); None if it was never put."""
    question = write_once.read(store, _path(name, gate, "asked"))
    if question is None:
        return None
    answer = write_once.read(store, _path(name, gate, "answer")) or {}
    state = ASKED if question["until"] >= (now or moment()) else EXPIRED
    if answer:
        state = APPROVED if answer["approved"] else REFUSED
    answer_fields = {key: answer[key] for key in ("who", "at", "comment") if key in answer}
    return ApprovalState(state=state, name=name, gate=gate, **question, **answer_fields)


def open_question(store: Store, registry: Registry, name: str) -> ApprovalState:
    """The question about the newest challenger of `name`; ApprovalError where there is none to answer."""
    newest = _newest(registry, name)
    question = read_state(store, name, newest.gate) if newest else None
    if question is None:
        raise ApprovalError(
            f"no challenger of {name} waits for approval; `prosemill models {name}` lists what there is"
        )
    return question


def answer(
    store: Store,
    registry: Registry,
    question: ApprovalState,
    *,
    approve: bool,
    who: str,
    comment: str = "",
    at: str = "",
) -> ApprovalState:
    """Record the answer and carry it out in the registry. ApprovalError if answered, expired or superseded.

    `at` is when the person answered, where that was before now: a form lies on the server until a worker is free.
    """
    before = read_state(store, question.name, question.gate, at)
    assert before is not None  # `question` was read from there
    if before.state in (APPROVED, REFUSED):
        raise ApprovalError(f"{before.sentence}; it is decided once")
    if before.state == EXPIRED:
        raise ApprovalError(f"too late: {before.sentence}; a run with a new date asks again")
    if is_superseded(store, registry, before):
        before = replace(before, state=SUPERSEDED)
        raise ApprovalError(f"{before.sentence}; `prosemill models {before.name}` shows the newest")
    record = {"approved": approve, "who": who, "comment": comment, "at": at or moment()}
    stands, ours = write_once.write(store, _path(before.name, before.gate, "answer"), record)
    after = read_state(store, before.name, before.gate)
    assert after is not None
    if not ours and stands["approved"] != approve:
        raise ApprovalError(f"{after.sentence}; it is decided once")
    enact(store, registry, after)
    return after


def current(store: Store, registry: Registry, question: ApprovalState) -> ApprovalState:
    """How the question stands now; superseded where an answer would no longer count."""
    stored = read_state(store, question.name, question.gate) or question
    if stored.state == ASKED and is_superseded(store, registry, stored):
        return replace(stored, state=SUPERSEDED)
    return stored


def enact(store: Store, registry: Registry, question: ApprovalState) -> ApprovalState:
    """Carry out an approval: promote, once, unless it was superseded. The state afterwards.

    Safe to repeat: a promotion that was rolled back since is not made again by a run that is.
    """
    version = registry.version_of(question.name, question.challenger)
    tags = {"approval": question.summary, "approval_by": question.who, "approval_comment": question.comment}
    if question.state == APPROVED and version.promoted_by != question.gate:
        if is_superseded(store, registry, question):
            return replace(question, state=SUPERSEDED)
        registry.promote(question.name, question.challenger)
        tags["promoted_by"] = question.gate
    registry.mark(question.name, question.challenger, {key: value for key, value in tags.items() if value})
    return question


def is_superseded(store: Store, registry: Registry, question: ApprovalState) -> bool:
    """Whether a newer challenger was decided on, or another champion is in use than the one it was compared with."""
    newest, champion = _newest(registry, question.name), registry.champion(question.name)
    in_use = champion.snapshot if champion else ""
    compared_with = read_decision(store, question.gate)["champion"]
    is_newest = newest is not None and newest.snapshot == question.challenger
    return not is_newest or in_use not in (compared_with, question.challenger)


def _newest(registry: Registry, name: str) -> ModelVersion | None:
    versions: Mapping[str, Any] = {
        alias: version for version in registry.list_versions(name) for alias in version.aliases
    }
    return versions.get(CHALLENGER)


def _path(name: str, gate: str, what: str) -> str:
    return f"approvals/{name}/{gate}/{what}.json"
