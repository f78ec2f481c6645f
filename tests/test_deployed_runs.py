"""Runs of deployments on a whole Prefect: started from the API as the UI does, scheduled, handed from pool to pool."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prosemill.registry.registry import Registry
from tests.serving import Stack
from tests.stories import recipe_text, write_corpus

pytestmark = pytest.mark.timeout(900)


def recipe(stack: Stack, name: str, deploy: str = "") -> Path:
    """A recipe beside the stack's own, with texts of its own."""
    path = stack.home / f"{name}.toml"
    write_corpus(stack.home / f"texts-{name}", range(40, 80))
    text = recipe_text(more=deploy).replace('name = "stories"', f'name = "{name}"')
    path.write_text(text.replace('path = "texts"', f'path = "texts-{name}"'), encoding="utf-8")
    return path


def training_of(stack: Stack, run: str) -> dict[str, Any]:
    """The one child of a run that a deployment's worker carried out."""
    (child,) = [child_run for child_run in stack.children(run) if child_run["deployment_id"]]
    return child


def interval(run: dict[str, Any]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(run["start_time"]), datetime.fromisoformat(run["end_time"])


@pytest.mark.slow
def test_two_retrainings_hand_over_to_the_gpu_pool_which_trains_one_after_the_other(stack: Stack) -> None:
    deployed = stack.prosemill("deploy", str(recipe(stack, "tales")))
    assert deployed.returncode == 0, deployed.stderr
    assert stack.deployment("retrain/stories")["parameters"]["train_on"] == "train-model/stories"

    runs = [stack.run(f"retrain/{name}", as_of="2026-01-05") for name in ("stories", "tales")]
    ended = [stack.wait(run, timeout=600) for run in runs]
    assert [run["state"]["type"] for run in ended] == ["COMPLETED", "COMPLETED"], [run["state"] for run in ended]
    assert {run["work_pool_name"] for run in ended} == {"cpu"}

    children = [training_of(stack, run) for run in runs]
    for child, name in zip(children, ("stories", "tales"), strict=True):
        assert (child["work_pool_name"], child["work_queue_name"]) == ("gpu", "train")
        assert child["deployment_id"] == stack.deployment(f"train-model/{name}")["id"]
        champion = Registry.open(str(stack.store)).champion(name)
        assert champion is not None
        assert champion.as_of == "2026-01-05"
    first, second = sorted(interval(child) for child in children)
    assert first[1] <= second[0], "two trainings held the gpu pool at once"


def test_a_schedule_gets_scheduled_runs_and_none_when_it_goes(stack: Stack) -> None:
    """With sqlalchemy 2.1 Prefect's scheduler fails on every loop and no scheduled run is ever created."""
    due = (datetime.now(UTC) + timedelta(hours=12)).hour  # never while the tests run
    path = recipe(stack, "scheduled", f'[deploy]\ncron = "30 {due} * * *"\n')
    assert "deployment retrain/scheduled: created" in stack.prosemill("deploy", str(path)).stdout

    runs = wait_for_scheduled(stack, "retrain/scheduled", some=True)
    times = [datetime.fromisoformat(run["expected_start_time"]) for run in runs]
    assert all(run["auto_scheduled"] and run["work_pool_name"] == "cpu" for run in runs)
    assert {(moment.hour, moment.minute) for moment in times} == {(due, 30)}

    recipe(stack, "scheduled")
    assert "deployment retrain/scheduled: changed (schedule)" in stack.prosemill("deploy", str(path)).stdout
    assert wait_for_scheduled(stack, "retrain/scheduled", some=False) == []


def wait_for_scheduled(stack: Stack, deployment: str, *, some: bool) -> list[dict[str, Any]]:
    """The runs that the scheduler has planned, as soon as there are some, or none."""
    wanted = {"id": {"any_": [stack.deployment(deployment)["id"]]}}
    deadline = time.monotonic() + 120
    while True:
        runs: list[dict[str, Any]] = stack.post(
            "/flow_runs/filter", deployments=wanted, flow_runs={"state": {"type": {"any_": ["SCHEDULED"]}}}
        )
        if bool(runs) == some:
            return runs
        assert time.monotonic() < deadline, f"{deployment}: {len(runs)} scheduled runs; {stack.log('server')[-2000:]}"
        time.sleep(0.5)
