"""The one caching policy: a stage's result is an id, and the key is what the id is made of.

Prefect's own policies do not fit: the default key holds the run id (nothing is reused next week), INPUTS is blind to a
stage's version and equal for two tasks with equal inputs, TASK_SOURCE sees only the wrapper's text.
"""

from collections.abc import Callable, Mapping
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from pydantic import BaseModel

from prosemill.storage import stages
from prosemill.storage.manifest import digest


def by_ids(stage: str) -> CachePolicy:
    """Key: stage, its version, and the task's parameters, which are ids, settings and the store."""

    def key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
        return stage_key(stage, stages.of(stage).version, parameters)

    return CachePolicy.from_cache_key_fn(key)


def stage_key(stage: str, version: int, parameters: Mapping[str, Any]) -> str:
    return f"{stage}-{digest({'version': version, 'parameters': _plain(parameters)})}"


def _plain(value: Any) -> Any:
    """As JSON; settings models by their fields, so that the same recipe gives the same key in any process."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def in_batches(items: list[str], most: int = 8) -> list[list[str]]:
    """At most `most` batches of neighbours: about eight tasks a stage are legible in the run's graph, 200 are not."""
    size = -(-len(items) // most) if items else 1
    return [items[start : start + size] for start in range(0, len(items), size)]


def only_on(*causes: type[Exception]) -> Callable[..., bool]:
    """A retry condition: try again only when one of these was the cause."""

    def condition(_task: Any, _run: Any, state: Any) -> bool:
        return isinstance(state.result(raise_on_failure=False), causes)

    return condition
