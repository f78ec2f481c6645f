"""Score base, champion and challenger on the same held-out documents."""

from prefect import runtime, task

from prosemill.config.settings import Evaluate
from prosemill.evaluation.scorer import ModelRef
from prosemill.evaluation.stage import evaluate
from prosemill.models import bases
from prosemill.storage.store import Store
from tasks.support.caching import by_ids


@task(
    name="evaluate",
    task_run_name="evaluate",
    cache_policy=by_ids("evaluate"),
    persist_result=True,
    result_serializer="json",
)
def evaluate_models(
    store: str, dedup: str, split: str, base: str, models: dict[str, str], settings: Evaluate,
    context_tokens: int, as_of: str, previous: str,
) -> str:  # fmt: skip
    """The id of the scores. `models`: base → digest of its weights; champion, challenger → finetune snapshots."""
    opened = Store(store)
    references = {
        label: ModelRef(model, bases.resolve(base).folder if label == "base" else opened.local(f"{model}/model"))
        for label, model in models.items()
    }
    return evaluate(
        opened, dedup, split, references, settings, context_tokens=context_tokens, as_of=as_of, previous=previous,
        flow_run_id=str(runtime.flow_run.id or ""),
    )  # fmt: skip
