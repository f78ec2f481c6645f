"""Training handed to another work pool: a run of its deployment, which this run waits for without holding a GPU."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelling

from prosemill.errors import TrainingError
from prosemill.gate import retrain_policy
from prosemill.registry.registry import Registry
from prosemill.reporting.summary import NOT_TRAINED, TrainingRecord
from prosemill.storage import write_once
from prosemill.storage.store import Store
from tasks.support.compat import FAILED_PREFIX
from tasks.support.restarts import is_cancelled

POLL_SECONDS = 5.0
# So long a crashed run is left to those who restart it (deployments.crash_safety, after 30 s) before it is given up.
CRASH_SECONDS = 90.0
# Prefect's worker (3.8.8, with --limit) fails on a run that starts again before it has removed the dead process.
AFTER_CRASH = timedelta(seconds=30)

log = logging.getLogger("prosemill.handover")


def train_elsewhere(deployment: str, parameters: dict[str, Any], store: Store, name: str, as_of: str) -> TrainingRecord:
    """Have the deployment train, and come back with what it recorded in the store.

    A run that is repeated or restarted finds the child that it started before. When this run is cancelled, or stopped
    with Ctrl-C, so is the child; when this process is merely ended, its successor finds the child at work.
    """
    started = time.monotonic()
    child = _attach(deployment, parameters)
    try:
        _wait_for(child, deployment)
    except BaseException as reason:
        if isinstance(reason, KeyboardInterrupt) or _this_run_is_cancelled():
            cancel_child(str(runtime.flow_run.id))
        raise
    choice = write_once.read(store, retrain_policy.choice_path(str(child)))
    if choice and not choice.get("worth_training", True):
        return TrainingRecord(**{**NOT_TRAINED, "reason": choice["reason"]})
    record = store.runs(name)[as_of]
    version = Registry.open(store.url).version_of(name, record["finetune"])
    seconds = {"train": round(time.monotonic() - started, 2)}
    return TrainingRecord(
        finetune=record["finetune"],
        evaluate=record["evaluate"],
        gate=record["gate"],
        model=f"{name}/{version.version}",
        seconds=seconds,
        reason="",
    )


def cancel_with_child(flow: Any, flow_run: FlowRun, state: State) -> None:
    """For on_cancellation: the worker runs it when the process of the parent is gone, kill -9 included."""
    cancel_child(str(flow_run.id))


def cancel_child(parent: str) -> None:
    """Cancel the run that `parent` handed its training to, if it is not over yet: queued, starting or at work."""
    wanted = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[_key(parent)]))
    with get_client(sync_client=True) as client:
        for child in client.read_flow_runs(flow_run_filter=wanted):
            if child.state is None or not (child.state.is_final() or is_cancelled(child.state)):
                log.info("cancelling the training, run %s", child.name)
                client.set_flow_run_state(child.id, Cancelling(message="The run that asked for it was cancelled."))


def _key(parent: str) -> str:
    return f"{parent}-train"


def _attach(deployment: str, parameters: dict[str, Any]) -> UUID:
    """The child of this run, started now or before. One that ended badly before goes on from its last checkpoint."""
    try:
        child = run_deployment(
            deployment, parameters=parameters, idempotency_key=_key(str(runtime.flow_run.id)), timeout=0
        )
    except ObjectNotFound:
        raise TrainingError(
            f"train_on = {deployment!r}: there is no such deployment on this server; `prosemill deploy RECIPE` makes it"
        ) from None
    assert isinstance(child, FlowRun)  # and no coroutine: this is not an async function
    if child.state is not None and child.state.is_final() and not child.state.is_completed():
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(child.id, AwaitingRetry(scheduled_time=datetime.now(UTC) + AFTER_CRASH))
    return child.id


def _wait_for(child: UUID, deployment: str) -> None:
    """Return when the child has completed; TrainingError, in one line, when it ended otherwise."""
    crashed = 0.0
    while True:
        with get_client(sync_client=True) as client:
            run = client.read_flow_run(child)
        state = run.state
        if state is not None and state.is_completed():
            return
        crashed = (crashed or time.monotonic()) if state is not None and state.is_crashed() else 0.0
        given_up = crashed and time.monotonic() - crashed > CRASH_SECONDS
        if state is not None and (given_up or (state.is_final() and not crashed)):
            why = " ".join((state.message or "").removeprefix(FAILED_PREFIX).split())
            raise TrainingError(f"the training ({deployment}, run {run.name}) was {_ended(state)}: {why}")
        time.sleep(POLL_SECONDS)


def _ended(state: State) -> str:
    return "cancelled" if state.is_cancelled() else f"not completed ({(state.name or state.type.value).lower()})"


def _this_run_is_cancelled() -> bool:
    with get_client(sync_client=True) as client:
        return is_cancelled(_state_of(client))


def _state_of(client: SyncPrefectClient) -> State | None:
    return client.read_flow_run(UUID(str(runtime.flow_run.id))).state
