"""Strip the pages of a batch of WARC files; then merge what is live."""

from prefect import runtime, task

from prosemill import strip
from prosemill.config.settings import Strip
from prosemill.storage.store import Store
from tasks.support.caching import by_ids


@task(
    name="strip",
    task_run_name=lambda: _name(len(runtime.task_run.parameters["warcs"])),
    cache_policy=by_ids("strip-shard"),
    persist_result=True,
    result_serializer="json",
)
def strip_shards(store: str, warcs: list[str], settings: Strip, language: str) -> list[str]:
    """Ids of the stripped shards, one for each WARC file of the batch."""
    run = str(runtime.flow_run.id or "")
    opened = Store(store)
    return [strip.strip_shard(opened, warc, settings, language=language, flow_run_id=run) for warc in warcs]


def _name(num_files: int) -> str:
    return f"strip {num_files} file{'s' if num_files > 1 else ''}"


@task(
    name="merge",
    task_run_name="merge",
    cache_policy=by_ids("strip"),
    persist_result=True,
    result_serializer="json",
)
def merge_shards(
    store: str, scrapes: list[str], shards: list[list[str]], settings: Strip, language: str, as_of: str, previous: str
) -> str:
    """The id of all live documents; `previous` is that of the run before."""
    run = str(runtime.flow_run.id or "")
    flat = [shard for batch in shards for shard in batch]
    return strip.merge_shards(
        Store(store), scrapes, flat, settings, language=language, as_of=as_of, previous=previous, flow_run_id=run
    )
