"""Fine-tune in a child process that can be stopped; a run that was killed goes on from its last checkpoint."""

from prefect import runtime, task

from prosemill import bases, finetune
from prosemill.settings import Finetune
from prosemill.storage import Store
from tasks.caching import by_ids


@task(
    name="finetune",
    task_run_name="finetune",
    cache_policy=by_ids("finetune", finetune.STAGE_VERSION),
    persist_result=True,
    result_serializer="json",
)
def finetune_model(store: str, chunk: str, base: str, base_digest: str, settings: Finetune, start: str) -> str:
    """The id of the challenger. `base_digest` is there for the cache: other weights can come to lie at a path."""
    run = str(runtime.flow_run.id or "")
    return finetune.finetune(Store(store), chunk, bases.resolve(base), settings, start=start, flow_run_id=run)
