"""Flows end their own process when their run was cancelled, and are restarted a limited number of times.

Prefect cancels a run through the worker that started its process. A worker that was killed, or has been restarted
since, does not know that process any more; a cancellation in the second in which a process is started finds none. So a
run that belongs to a deployment, or talks to a server that others use, checks its own state every ten seconds.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort
from prefect.states import Cancelled, Running

from prosemill.errors import EXIT_STOPPED, ProsemillError
from prosemill.runtime import subprocesses

MOST_RESTARTS = 3  # after crashes; a run that crashed four times is given up
WATCH_SECONDS = 10.0

_log = logging.getLogger("prosemill.restarts")
_watching = threading.Event()


def begin() -> None:
    """To be called first in a flow: refuse a restart that is not wanted, and watch for a cancellation."""
    run = str(runtime.flow_run.id or "")
    if run and (runtime.flow_run.run_count or 0) > 1:
        _check_restart(UUID(run))
    if not run or not runtime.deployment.id or _watching.is_set():  # a flow within a flow: the outer one watches
        return
    _watching.set()
    watched = [run, str(runtime.flow_run.parent_flow_run_id or "")]
    threading.Thread(target=_watch, args=watched, daemon=True, name="watch for cancellation").start()


def is_cancelled(state: State | None) -> bool:
    """Cancelled, or about to be."""
    return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)


def _check_restart(run: UUID) -> None:
    with get_client(sync_client=True) as client:
        history = sorted(client.read_flow_run_states(run), key=lambda state: state.timestamp)
        types = [state.type for state in history]
        while over := {StateType.CANCELLED, StateType.FAILED}.intersection(types):  # a person may retry it
            types = types[types.index(over.pop()) + 1 :]
        if StateType.CANCELLING in types:
            message = "it was cancelled, and its process died before it could say so"
            client.set_flow_run_state(run, Cancelled(message=message), force=True)
            raise Abort(message)
    lives = [kind for kind in types if kind in (StateType.RUNNING, StateType.CRASHED)]
    # one crash is reported once or twice: by the process, by its worker
    crashes = sum(pair == (StateType.RUNNING, StateType.CRASHED) for pair in itertools.pairwise(lives))
    if crashes > MOST_RESTARTS:
        raise ProsemillError(
            f"this run crashed {crashes} times and is not tried again; its log, or the worker's, says why"
        )


def _watch(run: str, parent: str) -> None:
    """End this process when its run, or the run that started it, is cancelled and nobody else has ended it.

    Ends like a kill, which every stage survives: a later run goes on from what is complete. If the server marked the
    run as crashed because heartbeats were lost in an outage, it is set to running again.
    """
    wait, before = threading.Event(), ""
    while not wait.wait(WATCH_SECONDS):
        try:
            with get_client(sync_client=True) as client:
                need = _needs(client, run, parent)
                if need and need == before:  # for ten seconds: the worker, or this process itself, is not about to act
                    _act(client, UUID(run), need)
                before = need
        except Exception as error:  # noqa: BLE001 - a server that is away for a while is not a reason to stop watching
            _log.debug("cannot see how %s stands: %s", run, error)


def _needs(client: SyncPrefectClient, run: str, parent: str) -> str:
    """What is to be done about this run: "cancel", "revive" or nothing, ""."""
    state = client.read_flow_run(UUID(run)).state
    if is_cancelled(state) or (parent and is_cancelled(client.read_flow_run(UUID(parent)).state)):
        return "cancel"
    return "revive" if state is not None and state.is_crashed() else ""


def _act(client: SyncPrefectClient, run: UUID, what: str) -> None:
    if what == "revive":
        client.set_flow_run_state(run, Running(message="Heartbeat missed; the run is still active."), force=True)
        return
    _log.warning("cancelled: this process ends itself, since no worker did")
    subprocesses.stop_all()
    client.set_flow_run_state(run, Cancelled(message="Cancelled; the run ended itself."), force=True)
    os._exit(EXIT_STOPPED)
