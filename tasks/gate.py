"""Decide on the challenger, and carry the decision out in the registry."""

from prefect import runtime, task

from prosemill.config.settings import Gate
from prosemill.errors import RegistryError
from prosemill.gate import approval, stage
from prosemill.registry.registry import Registry
from prosemill.storage.decision_record import read_decision
from prosemill.storage.stage_run import observed
from prosemill.storage.store import Store
from tasks.support import events
from tasks.support.caching import by_ids


@task(
    name="gate",
    task_run_name="gate",
    cache_policy=by_ids("gate"),
    persist_result=True,
    result_serializer="json",
)
def run_gate(store: str, evaluation: str, settings: Gate, as_of: str) -> str:
    """The id of the gate snapshot."""
    run = str(runtime.flow_run.id or "")
    return stage.run_gate(Store(store), evaluation, settings, as_of=as_of, flow_run_id=run)


@task(name="register", task_run_name="register", retries=2, retry_delay_seconds=5)
def register(store: str, model: str, finetune: str, evaluation: str, gate: str, settings: Gate, run: str) -> str:
    """Record the challenger; promote it, or ask for approval, when that is the decision. Never cached: can be repeated.

    `run` is the flow run that waits for the approval. The name of the model version, "name/number".
    """
    opened = Store(store)
    registry = Registry.open(opened)
    decided = read_decision(opened, gate)
    wins, champion = decided["decision"] == stage.PROMOTE, registry.champion(model)
    if wins and champion and champion.snapshot not in (decided["champion"], finetune):
        raise RegistryError(
            f"{champion.name}/{champion.version} is in use, and {finetune} was compared with another "
            "champion; start a new run, which compares it with this one"
        )
    parents = [finetune, evaluation, gate]
    run_of_stage = opened.stage_run("register", parents=parents, flow_run_id=str(runtime.flow_run.id or ""))
    with observed(run_of_stage):
        number = registry.record(model, finetune, evaluation, gate)
        run_of_stage.model = (model, number)
    version = f"{model}/{number}"
    about = {"model": version, "reason": decided["reason"], "run": run}
    if not wins:
        events.refused(model, **about)
    elif not settings.approval:
        if registry.promote(model, finetune):
            events.promoted(model, **about)
    else:
        question = approval.ask(
            opened, model, model=version, challenger=finetune, gate=gate, hours=settings.approval_hours, run=run
        )
        approval.enact(opened, registry, question)
        if question.run == run and question.state == approval.ASKED:
            events.approval_asked(model, **about)
    return version
