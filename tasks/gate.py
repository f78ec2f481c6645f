"""Judge the challenger, and make the decision true in the registry."""

from prefect import runtime, task

from prosemill import gate
from prosemill.registry import Registry
from prosemill.settings import Gate
from prosemill.storage import Store
from tasks.caching import by_ids


@task(
    name="gate",
    task_run_name="gate",
    cache_policy=by_ids("gate", gate.STAGE_VERSION),
    persist_result=True,
    result_serializer="json",
)
def judge(store: str, evaluation: str, settings: Gate, as_of: str) -> str:
    """The id of the decision."""
    run = str(runtime.flow_run.id or "")
    return gate.judge(Store(store), evaluation, settings, as_of=as_of, flow_run_id=run)


@task(name="register", task_run_name="register", retries=2, retry_delay_seconds=5)
def register(store: str, tracking_uri: str, model: str, finetune: str, evaluation: str, decision: str) -> str:
    """Record the challenger and its decision; promote it when that is the decision. Never cached: it can be repeated.

    The name of the model version, "name/number".
    """
    registry = Registry(store, tracking_uri)
    version = registry.record(model, finetune, evaluation, decision)
    if gate.read_decision(Store(store), decision)["verdict"] == "promote":
        registry.promote(model, finetune)
    return f"{model}/{version}"
