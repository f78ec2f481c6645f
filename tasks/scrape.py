"""Scrape one source; network errors are retried, refusals are not."""

from prefect import Task, runtime, task
from prefect.tasks import exponential_backoff

from prosemill import scrape
from prosemill.config import environment
from prosemill.config.settings import Scrape, Source
from prosemill.errors import SourceUnreachable
from prosemill.storage.store import Store
from tasks.support.caching import by_ids, only_on


@task(
    name="scrape",
    task_run_name="scrape {source.name}",
    cache_policy=by_ids("scrape"),
    retries=2,
    retry_jitter_factor=1,
    retry_condition_fn=only_on(SourceUnreachable),
    persist_result=True,
    result_serializer="json",
)
def scrape_source(store: str, source: Source, settings: Scrape, as_of: str, previous: str, fingerprint: str) -> str:
    """The id of the scrape of `source` on `as_of`. `fingerprint` names the content of a local source, for the cache."""
    run = str(runtime.flow_run.id or "")
    return scrape.scrape_source(Store(store), source, settings, as_of=as_of, previous=previous, flow_run_id=run)


def patient() -> Task[[str, Source, Scrape, str, str, str], str]:
    """The task with the pauses between its tries that PROSEMILL_RETRY_SECONDS asks for."""
    return scrape_source.with_options(retry_delay_seconds=exponential_backoff(environment.retry_seconds()))
