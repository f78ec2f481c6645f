"""Runs of `retrain` on a served Prefect: cancelled, killed, waiting for a person. Nothing is half, nothing is twice."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prosemill.config.recipe import load_recipe
from prosemill.errors import EXIT_REFUSED
from prosemill.registry.registry import Registry
from prosemill.storage.store import Store
from tests import served_processes
from tests.serving import Stack

pytestmark = pytest.mark.timeout(900)


def recipe(stack: Stack, name: str, **sections: dict[str, Any]) -> dict[str, Any]:
    """The served recipe under another name, so that these runs meet no others; some sections changed."""
    fields: dict[str, Any] = load_recipe(stack.recipe).model_dump(mode="json")
    for section, changes in sections.items():
        fields[section] = {**fields[section], **changes}
    return {**fields, "name": name}


def wait_for(what: str, look: Callable[[], Any], timeout: float = 300) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := look()):
        assert time.monotonic() < deadline, f"never seen: {what}"
        time.sleep(0.2)
    return value


def training_of(stack: Stack, run: str) -> dict[str, Any] | None:
    """The run of train-model that `run` started on the gpu pool."""
    wanted = {"idempotency_key": {"any_": [f"{run}-train"]}}
    runs = stack.post("/flow_runs/filter", flow_runs=wanted)
    assert len(runs) <= 1
    return runs[0] if runs else None


def is_in(stack: Stack, run: str, *names: str) -> bool:
    return stack.flow_run(run)["state"]["name"] in names


def cancel(stack: Stack, run: str) -> None:
    """As the button in the UI does."""
    stack.post(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"})


def pause(stack: Stack, paused: bool) -> None:
    """The gpu pool."""
    stack.patch("/work_pools/gpu", is_paused=paused)


@pytest.mark.slow
def test_cancelling_a_run_frees_the_gpu_and_changes_no_champion(stack: Stack) -> None:
    slow = recipe(stack, "slow", finetune={"epochs": 1000, "evals": 500, "patience": 1000})
    run = stack.run("retrain/stories", recipe=slow, as_of="2026-01-05")
    training = wait_for("the training", lambda: training_of(stack, run))["id"]
    process = wait_for("its process", lambda: served_processes.flow_processes().get(training))
    (trainer,) = wait_for("the trainer", lambda: served_processes.trainers(process))
    wait_for("a checkpoint", lambda: list(stack.store.glob("unfinished/finetune-*/checkpoints/*")))

    cancel(stack, run)

    wait_for("the end of the trainer", lambda: not served_processes.is_alive(trainer), timeout=120)
    for run_id in (training, run):
        wait_for("Cancelled", lambda run_id=run_id: is_in(stack, run_id, "Cancelled"))  # type: ignore[misc]
    assert not served_processes.is_alive(process)
    assert Registry.open(str(stack.store)).list_versions("slow") == []
    assert not any(stack.store.glob("tmp/*.lock"))
    assert any(stack.store.glob("unfinished/finetune-*/checkpoints/*")), "a later run goes on from here"


@pytest.mark.slow
def test_a_training_that_is_only_queued_is_cancelled_with_its_parent(stack: Stack) -> None:
    pause(stack, True)
    try:
        run = stack.run("retrain/stories", recipe=recipe(stack, "queued"), as_of="2026-01-05")
        training = wait_for("the training", lambda: training_of(stack, run))
        assert training["state"]["type"] == "SCHEDULED"
        cancel(stack, run)
        for run_id in (training["id"], run):
            wait_for("Cancelled", lambda run_id=run_id: is_in(stack, run_id, "Cancelled"))  # type: ignore[misc]
    finally:
        pause(stack, False)


def test_a_person_lets_a_challenger_take_over(stack: Stack) -> None:
    asks = recipe(stack, "asks", gate={"approval": True, "approval_hours": 1})
    run = stack.run("retrain/stories", recipe=asks, as_of="2026-01-05")
    stack.wait(run, ["Suspended"])

    registry = Registry.open(str(stack.store))
    (version,) = registry.list_versions("asks")
    assert version.aliases == ("challenger",)
    assert version.approval.startswith("asked, until ")
    wait_for("a free worker", lambda: run not in served_processes.flow_processes())  # the wait holds nothing
    form = stack.get(f"/flow_runs/{run}/input/suspended-approval-description")
    for words in ("May asks/1 take over?", "| challenger |", "The same prompts and seed before and after"):
        assert words in form

    refused = stack.post(f"/flow_runs/{run}/resume", run_input={"approve": "perhaps", "who": "ada"})
    assert (refused["status"], refused["state"]["name"]) == ("REJECT", "Suspended")
    assert stack.prosemill("models", "asks").returncode == 0
    assert registry.champion("asks") is None

    done = stack.prosemill("approve", "asks", "--who", "ada", "--comment", "reads well")
    assert done.returncode == 0, done.stderr
    assert "asks/1 was approved by ada at " in done.stdout
    assert "The run asks 2026-01-05 goes on." in done.stdout
    assert stack.wait(run)["state"]["type"] == "COMPLETED"

    champion = registry.champion("asks")
    assert champion is not None
    assert champion.approval.startswith("approved by ada at ")
    again = stack.prosemill("approve", "asks", "--refuse")
    assert again.returncode == EXIT_REFUSED
    assert "asks/1 was approved by ada at" in again.stderr
    assert "it is decided once" in again.stderr
    assert training_of(stack, run) is not None, "the resumed run went back to the training it had started"
    report = stack.get("/artifacts/asks-report/latest")["data"]
    assert "promote" in report
    assert "approved by ada" in report


def is_back(stack: Stack, run: str) -> bool:
    """Whether a run that was killed is at work again, or has ended: the automations of `prosemill up` see to that."""
    known = stack.flow_run(run)
    return bool(known["run_count"] > 1 and known["state"]["name"] in ("Running", "Completed"))


@pytest.mark.slow
def test_kills_change_nothing(stack: Stack) -> None:
    """Trainer, training run, parent: each gone with kill -9, each brought back by the automations."""
    killed = recipe(stack, "killed", finetune={"epochs": 12, "evals": 6, "patience": 100})
    run = stack.run("retrain/stories", recipe=killed, as_of="2026-01-05")
    training = wait_for("the training", lambda: training_of(stack, run))["id"]
    process = wait_for("its process", lambda: served_processes.flow_processes().get(training))
    (trainer,) = wait_for("the trainer", lambda: served_processes.trainers(process))

    os.kill(trainer, signal.SIGKILL)  # the task goes on by itself
    wait_for("another trainer", lambda: [other for other in served_processes.trainers(process) if other != trainer])
    for run_id, victim in (
        (training, process),
        (run, wait_for("parent", lambda: served_processes.flow_processes().get(run))),
    ):
        os.kill(victim, signal.SIGKILL)
        wait_for("its return", lambda run_id=run_id: is_back(stack, run_id))  # type: ignore[misc]

    wait_for("the end", lambda: is_in(stack, run, "Completed", "Failed", "Cancelled"))
    ended = stack.flow_run(run)["state"]
    assert ended["type"] == "COMPLETED", ended["message"]

    store, registry = Store(str(stack.store)), Registry.open(str(stack.store))
    (version,) = registry.list_versions("killed")
    assert version.aliases == ("challenger", "champion")
    record = store.runs("killed")["2026-01-05"]
    assert version.snapshot == record["finetune"]
    decisions = [snapshot for snapshot in store.snapshots() if snapshot.startswith("gate-")]
    about = [decision for decision in decisions if store.manifest(decision).parents == [record["evaluate"]]]
    assert about == [record["gate"]]
    assert not Path(store.root, "unfinished", record["finetune"]).exists()
