"""Automations for runs whose process, worker or machine died.

Prefect counts missing heartbeats only where an automation does, and never restarts a run that crashed. Every stage of
ours survives a kill and is found again by the run that is started again, so it is safe to do so.

    Running   → no heartbeat for 90 s             → Crashed
    Crashed   → nothing else for 30 s             → AwaitingRetry: the same run, started again
    Crashed   → eight such events in an hour      → Failed: no restart helps (`restarts` counts, too)
    Pending   → no process for ten minutes        → AwaitingRetry: its worker died before it started a process
    Cancelling → nobody confirms for two minutes  → Cancelled: its worker is gone

A run that is alive although its heartbeats were lost (the server was away) says so before it is restarted.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from tasks.support.restarts import MOST_RESTARTS

PREFIX = "prosemill: crash safety, "
HEARTBEATS_SECONDS = 90  # three of them, at the shortest interval that Prefect allows
RESTART_SECONDS = 30  # a run that is alive reports itself within this time: it checks every ten seconds
PENDING_SECONDS = 600  # an image of several GB is pulled meanwhile
REPORTS = 2  # of one crash, at most: a worker says that the process ended, and that its infrastructure did
CANCEL_SECONDS = 120  # a worker gives a process 30 s to end

_OURS: dict[str, str | list[str]] = {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.prosemill"}
_ENDED = ("Completed", "Failed", "TimedOut", "Cancelled")
_OVER = (*_ENDED, "Crashed")
_WAITING = ("Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Resuming", "Paused", "Suspended")
_STARTED = ("Running", "Retrying")


def automations(
    *,
    heartbeats_seconds: int = HEARTBEATS_SECONDS,
    restart_seconds: int = RESTART_SECONDS,
    pending_seconds: int = PENDING_SECONDS,
    cancel_seconds: int = CANCEL_SECONDS,
) -> list[AutomationCore]:
    """For all runs of deployments that bear the tag `prosemill`."""
    return [
        _when_missing(
            "mark zombie runs as crashed", heartbeats_seconds, after=("heartbeat",),
            expect=("heartbeat", *_OVER, *_WAITING),
            action=_to(StateType.CRASHED, "no sign of life: its process, worker or machine died"),
        ),
        _when_missing(
            "restart crashed runs", restart_seconds, after=("Crashed",),
            expect=(*_ENDED, *_WAITING, *_STARTED, "Pending", "Cancelling"),
            action=_to(StateType.SCHEDULED, "started again after a crash; it finds what it had done", "AwaitingRetry"),
        ),
        _after_too_many("fail runs that crash again and again"),
        _when_missing(
            "restart stuck pending runs", pending_seconds, after=("Pending", "Submitting", "InfrastructurePending"),
            expect=(*_OVER, *_WAITING, *_STARTED, "Cancelling"),
            action=_to(StateType.SCHEDULED, "started again: its worker died before it began", "AwaitingRetry"),
        ),
        _when_missing(
            "finish cancellations", cancel_seconds, after=("Cancelling",), expect=_OVER,
            action=_to(StateType.CANCELLED, "cancelled; its worker died before it could say so", force=True),
        ),
    ]  # fmt: skip


def _when_missing(
    name: str, seconds: int, *, after: tuple[str, ...], expect: tuple[str, ...], action: ChangeFlowRunState
) -> AutomationCore:
    """Act when, after one of these events, none of those comes in time."""
    trigger = EventTrigger(
        after=_events(after),
        expect=_events(expect),
        for_each={"prefect.resource.id"},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related=_OURS,
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=seconds),
    )
    return AutomationCore(name=PREFIX + name, description=action.message or "", trigger=trigger, actions=[action])


def _after_too_many(name: str) -> AutomationCore:
    action = _to(StateType.FAILED, "crashed again and again for an hour and is not tried again", force=True)
    trigger = EventTrigger(
        expect=_events(("Crashed",)),
        for_each={"prefect.resource.id"},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related=_OURS,
        posture=Posture.Reactive,
        threshold=REPORTS * (MOST_RESTARTS + 1),
        within=timedelta(hours=1),
    )
    return AutomationCore(name=PREFIX + name, description=action.message or "", trigger=trigger, actions=[action])


def _events(states: tuple[str, ...]) -> set[str]:
    return {f"prefect.flow-run.{state}" for state in states}


def _to(state: StateType, message: str, name: str | None = None, force: bool = False) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=state, name=name, message=message, force=force)
