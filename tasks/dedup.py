"""Remove duplicates among the new documents and against everything kept before."""

from prefect import runtime, task

from prosemill import dedup
from prosemill.config.settings import Dedup
from prosemill.storage.store import Store
from tasks.support.caching import by_ids


@task(
    name="dedup",
    task_run_name="dedup",
    cache_policy=by_ids("dedup"),
    persist_result=True,
    result_serializer="json",
)
def remove_duplicates(store: str, strip: str, settings: Dedup, as_of: str, previous: str, undone: list[str]) -> str:
    """The id of the keepers. `undone`: documents that stay because a person took their removal back."""
    run = str(runtime.flow_run.id or "")
    return dedup.dedup(Store(store), strip, settings, as_of=as_of, previous=previous, undone=undone, flow_run_id=run)
