"""The task runner is chosen by one setting, when a run starts."""

import importlib.util

import pytest
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
def test_a_cluster_engine_is_taken_or_its_extra_is_named(named: str) -> None:
    kind = named.partition(":")[0]
    if importlib.util.find_spec(f"prefect_{kind}"):
        assert runner(named).name == kind
        return
    with pytest.raises(RecipeError, match=rf"pip install 'prosemill\[{kind}\]'"):
        runner(named)
