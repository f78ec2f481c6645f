"""The task runner is chosen by one setting, when a run starts."""

import os
import sys

import pytest
from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.build_corpus import build_corpus
from flows.support.task_runners import runner
from prosemill.errors import RecipeError


@pytest.mark.parametrize(
    ("named", "kind"),
    [("", ThreadPoolTaskRunner), ("threads", ThreadPoolTaskRunner), ("processes", ProcessPoolTaskRunner)],
)
def test_a_flow_takes_the_runner_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, named: str, kind: type[TaskRunner]
) -> None:
    monkeypatch.setenv("PROSEMILL_TASK_RUNNER", named)
    assert type(build_corpus.task_runner.duplicate()) is kind


@pytest.mark.parametrize("named", ["threds", "threads:4", "spark"])
def test_an_unknown_runner_is_refused_with_what_there_is(named: str) -> None:
    with pytest.raises(RecipeError, match="threads, processes, dask, ray"):
        runner(named)


@pytest.mark.parametrize("named", ["dask", "dask:tcp://127.0.0.1:8786", "ray", "ray:ray://127.0.0.1:10001"])
def test_a_cluster_engine_is_taken_with_or_without_an_address(named: str) -> None:
    assert runner(named).name == named.partition(":")[0]


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_an_engine_that_is_not_installed_is_refused_with_its_extra(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setitem(sys.modules, f"prefect_{kind}", None)  # as if it were not there
    with pytest.raises(RecipeError, match=rf"pip install 'prosemill\[{kind}\]'"):
        runner(kind)


@task
def double(number: int) -> tuple[int, int]:
    return 2 * number, os.getpid()


@flow
def doubles() -> list[tuple[int, int]]:
    return [future.result() for future in double.map([1, 2, 3])]


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize(
    "named", ["threads", *(pytest.param(named, marks=pytest.mark.slow) for named in ("processes", "dask", "ray"))]
)
def test_tasks_run_on_each_of_them(named: str) -> None:
    done = doubles.with_options(task_runner=runner(named))()
    assert [number for number, _ in done] == [2, 4, 6]
    assert (named == "threads") == (os.getpid() in {pid for _, pid in done}), "in a process of its own or not"
