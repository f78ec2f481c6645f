"""Decide which documents are held out; a document keeps its split."""

from prefect import runtime, task

from prosemill.config.settings import Split
from prosemill.split import stage
from prosemill.storage.store import Store
from tasks.support.caching import by_ids


@task(
    name="split",
    task_run_name="split",
    cache_policy=by_ids("split"),
    persist_result=True,
    result_serializer="json",
)
def split_keepers(store: str, dedup: str, settings: Split, as_of: str, previous: str) -> str:
    """The id of the assignments."""
    run = str(runtime.flow_run.id or "")
    return stage.split(Store(store), dedup, settings, as_of=as_of, previous=previous, flow_run_id=run)
