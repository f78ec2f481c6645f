"""Where the tasks of a flow run: threads of this process, processes, Dask or Ray; chosen when the run starts."""

from __future__ import annotations

import os
from typing import Any

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from prosemill.config import environment
from prosemill.errors import RecipeError

THREADS = 4  # sources wait for the network


class ChosenTaskRunner(ThreadPoolTaskRunner[Any]):
    """What PROSEMILL_TASK_RUNNER names: `threads`, `processes`, `dask`, `ray`, or `dask:ADDRESS`, `ray:ADDRESS`.

    Prefect asks a flow's runner for a duplicate when a run starts; a flow is imported before that is known.
    """

    def duplicate(self) -> TaskRunner[Any]:  # type: ignore[override]
        return runner(environment.task_runner())


def runner(named: str) -> TaskRunner[Any]:
    """The task runner of that name; RecipeError where there is none, or where its package is not installed.

    Without an address, Dask and Ray start a cluster on this machine that ends with the run, a worker a processor.
    """
    kind, _, address = named.partition(":")
    num_workers = len(os.sched_getaffinity(0))
    match kind, bool(address):
        case "threads", False:
            return ThreadPoolTaskRunner(max_workers=THREADS)
        case "processes", False:
            return ProcessPoolTaskRunner(max_workers=num_workers)
        case "dask", _:
            return _dask(address, num_workers)
        case "ray", _:
            return _ray(address, num_workers)
    raise RecipeError(
        f"PROSEMILL_TASK_RUNNER = {named!r}: no such task runner; threads, processes, dask, ray, dask:tcp://HOST:8786 "
        "or ray:ray://HOST:10001"
    )


def _dask(address: str, num_workers: int) -> TaskRunner[Any]:
    try:
        import dask
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise RecipeError(f"PROSEMILL_TASK_RUNNER = dask: {error}; pip install 'prosemill[dask]'") from None
    dask.config.set({"distributed.worker.daemon": False})  # daemons may not start processes, as strip does
    local = {"n_workers": num_workers, "threads_per_worker": 1, "dashboard_address": None}
    task_runner: TaskRunner[Any] = DaskTaskRunner(address=address) if address else DaskTaskRunner(cluster_kwargs=local)
    return task_runner


def _ray(address: str, num_workers: int) -> TaskRunner[Any]:
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise RecipeError(f"PROSEMILL_TASK_RUNNER = ray: {error}; pip install 'prosemill[ray]'") from None
    # Whatever Python was told, Ray's workers look for modules in the current folder first: they get one of their own.
    working_dir = environment.cache_folder() / "empty"
    working_dir.mkdir(parents=True, exist_ok=True)
    runtime: dict[str, Any] = {"working_dir": str(working_dir)}
    local = {"num_cpus": num_workers, "include_dashboard": False, "runtime_env": runtime}
    task_runner: TaskRunner[Any] = RayTaskRunner(address=address) if address else RayTaskRunner(init_kwargs=local)
    return task_runner
