"""Approval by a person: the run with a new challenger is suspended until the answer; no process or worker waits."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateName
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput, read_flow_run_input
from pydantic import Field

from flows.support.compat import response_key
from prosemill.errors import ApprovalError
from prosemill.gate import approval
from prosemill.gate.approval import ApprovalState
from prosemill.registry.registry import Registry
from prosemill.reporting.approval_request import question_markdown
from prosemill.reporting.summary import TrainingRecord
from prosemill.storage.store import Store
from prosemill.storage.times import moment, parse
from tasks.support import events, reporting

_PAUSE_KEY = "approval"
_RESPONSE = response_key(_PAUSE_KEY)

log = logging.getLogger("prosemill.approving")


class Approval(RunInput):
    """May the challenger take over?"""

    approve: Literal["yes", "no"] = Field(
        title="Take over?", description="yes: it becomes the champion. no: it does not."
    )
    who: str = Field(min_length=1, max_length=80, title="Your name", description="Recorded with the model.")
    comment: str = Field(default="", max_length=500, title="Why", description="Recorded as well; may be empty.")


def resolve_approval(store: Store, name: str, trained: TrainingRecord) -> ApprovalState | None:
    """How the challenger's approval stands, after waiting for it where that is possible; None if none was asked for.

    A run of a deployment is suspended: its process ends, and Prefect starts it anew, from the top, with the answer or
    not at all. Any other run goes on with the question open, for `prosemill approve`.
    """
    question = approval.read_state(store, name, trained["gate"])
    if question is None:
        return None
    registry = Registry.open(store.url)
    if question.state == approval.ASKED and not approval.is_superseded(store, registry, question):
        response = _response()
        if response is not None:
            return _answer(store, registry, question, response)
        if _can_suspend():
            _suspend(store, question, trained["evaluate"])
    return approval.enact(store, registry, approval.current(store, registry, question))


def send_event(question: ApprovalState) -> None:
    """The event of an answer."""
    send = events.promoted if question.state == approval.APPROVED else events.refused
    send(question.name, model=question.model, reason=question.sentence, run=question.run)


def resume_waiting(name: str, *, approve: bool, who: str, comment: str) -> list[str]:
    """Resume all runs that wait for an answer about `name`; their names. The answer itself is in the store already."""
    waiting = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Suspended"])))
    answer = {"approve": "yes" if approve else "no", "who": who, "comment": comment}
    resumed = []
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=waiting):
            if _recipe_name(run.parameters) == name:
                client.resume_flow_run(run.id, run_input=answer)
                resumed.append(run.name)
    return resumed


def _recipe_name(parameters: dict[str, Any]) -> str:
    recipe = parameters.get("recipe")
    return str(recipe.get("name", "")) if isinstance(recipe, dict) else ""


def _answer(store: Store, registry: Registry, question: ApprovalState, response: Approval) -> ApprovalState:
    try:
        answered = approval.answer(
            store, registry, question, approve=response.approve == "yes", who=response.who, comment=response.comment,
            at=_resumed_at(),
        )  # fmt: skip
    except ApprovalError as error:  # answered already, or too late
        log.warning("the answer of %s does not count: %s", response.who, error)
        return approval.enact(store, registry, approval.current(store, registry, question))
    send_event(answered)
    return answered


def _can_suspend() -> bool:
    """Prefect suspends only what it can start anew: runs of deployments that no other run waits for."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return run is not None and run.deployment_id is not None and run.parent_task_run_id is None


def _suspend(store: Store, question: ApprovalState, evaluation: str) -> None:
    left = (parse(question.until) - datetime.now(UTC)).total_seconds()
    text = question_markdown(store, question, evaluation)
    reporting.show_question(store, question.name, question.decision, question.model, question.sentence, text)
    form = Approval.with_initial_data(description=text)
    try:
        suspend_flow_run(wait_for_input=form, timeout=max(1, int(left)), key=_PAUSE_KEY)
    except Pause:  # raised when the run was suspended; this process ends
        events.suspended(str(runtime.flow_run.id))
        raise


def _response() -> Approval | None:
    """What the form said, also if this run has crashed since: Prefect forgets then that it was ever suspended."""
    fields = read_flow_run_input(_RESPONSE)
    return Approval.model_validate(fields) if fields else None


def _resumed_at() -> str:
    """When the form was sent. A worker may have been free only much later."""
    with get_client(sync_client=True) as client:
        return moment(max(_resumptions(client), default=None))


def _resumptions(client: SyncPrefectClient) -> list[datetime]:
    states = client.read_flow_run_states(UUID(str(runtime.flow_run.id)))
    return [state.timestamp for state in states if state.name == "Resuming"]
