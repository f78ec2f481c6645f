"""Cut the training and validation documents into chunks of the base's own tokens."""

from prefect import runtime, task

from prosemill import chunk
from prosemill.config.settings import Chunk
from prosemill.models import bases
from prosemill.storage.store import Store
from tasks.support.caching import by_ids


@task(
    name="chunk",
    task_run_name="chunk",
    cache_policy=by_ids("chunk"),
    persist_result=True,
    result_serializer="json",
)
def chunk_documents(
    store: str, dedup: str, split: str, base: str, tokenizer_digest: str, settings: Chunk, as_of: str, previous: str
) -> str:
    """The id of the chunks. `tokenizer_digest` is there for the cache: a name can come to mean another tokenizer."""
    run = str(runtime.flow_run.id or "")
    resolved = bases.resolve(base, need_weights=False)
    return chunk.chunk(Store(store), dedup, split, resolved, settings, as_of=as_of, previous=previous, flow_run_id=run)
