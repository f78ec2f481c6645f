"""The decorator of all flows that make or look after a model: how they are named, stored and told of when they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun, State

from tasks.support import reporting

P = ParamSpec("P")
R = TypeVar("R")
Hook = Callable[[Flow[..., Any], FlowRun, State[Any]], None]


def reported_flow(
    name: str, *, cancelled: tuple[Hook, ...] = (), task_runner: Any = None
) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """A flow whose runs are named after their recipe and date, and whose every end completes its log in the store.

    `cancelled`: hooks that are called before that when it is cancelled.
    """
    ends: list[Hook] = [*cancelled, reporting.ended]
    return flow(
        name=name,
        flow_run_name=reporting.run_name,
        task_runner=task_runner,
        persist_result=True,
        result_serializer="json",
        on_completion=[reporting.ended],
        on_failure=[reporting.ended],
        on_crashed=[reporting.ended],
        on_cancellation=ends,  # type: ignore[arg-type]
    )
