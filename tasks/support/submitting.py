"""Submit a task with futures for arguments: they become the edges of the run's graph."""

from collections.abc import Iterable
from typing import Any, TypeVar

from prefect import Task
from prefect.futures import PrefectFuture

R = TypeVar("R")


def submit(task: Task[..., R], *arguments: Any, wait_for: Iterable[PrefectFuture[Any]] = ()) -> PrefectFuture[R]:
    """`task.submit`, which is typed for values alone although it takes futures of them."""
    return task.submit(*arguments, wait_for=list(wait_for))
