"""Fine-tune in a child process that can be stopped; a run that was killed goes on from its last checkpoint."""

import signal
from typing import Any

from prefect import runtime, task

from prosemill import finetune
from prosemill.config.settings import Finetune
from prosemill.models import bases
from prosemill.runtime.subprocesses import ChildDied
from prosemill.storage.store import Store
from tasks.support import reporting
from tasks.support.caching import by_ids
from tasks.support.live import LiveProgress


def was_killed(_task: Any, _run: Any, state: Any) -> bool:
    """A retry condition: the training process was killed; it goes on from its last checkpoint. Other ends are final."""
    cause = getattr(state.result(raise_on_failure=False), "__cause__", None)
    return isinstance(cause, ChildDied) and not cause.timed_out and cause.returncode == -signal.SIGKILL


@task(
    name="finetune",
    task_run_name="finetune",
    cache_policy=by_ids("finetune"),
    retries=2,  # three kills in a row mean that the machine runs out of memory
    retry_delay_seconds=5,
    retry_condition_fn=was_killed,
    persist_result=True,
    result_serializer="json",
)
def finetune_model(store: str, chunk: str, base: str, base_digest: str, settings: Finetune, start: str) -> str:
    """The id of the challenger. `base_digest` is there for the cache: other weights can come to lie at a path."""
    run = str(runtime.flow_run.id or "")
    resolved = bases.resolve(base)
    with LiveProgress(store, reporting.recipe_name()) as live:
        live.snapshot = finetune.finetune(
            Store(store), chunk, resolved, settings, start=start, flow_run_id=run, listener=live
        )
    return live.snapshot
