"""A Prefect server, its pools, two workers and the deployments on this machine, in one command.

    python -m deployments.up --store URL [--port 4200] [RECIPE ...]      (what `prosemill up` runs)

All processes stop together: on Ctrl-C, on SIGTERM, or when one of them ends.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from flows.support.local_server import full_server, worker
from flows.support.own_origin import LOGIN_PATH
from prosemill.config import environment
from prosemill.errors import ProsemillError
from prosemill.runtime import subprocesses

if TYPE_CHECKING:
    from deployments.plan import DeploymentPlan


def run(store: str, recipes: list[Path], port: int) -> None:
    """Serve until somebody stops it, or one of the processes dies."""
    if environment.answers(f"http://127.0.0.1:{port}/api"):
        raise ProsemillError(f"port {port}: a Prefect server answers there already; stop it, or choose --port")
    environment.use_own_server(port)  # the children below inherit it; Prefect reads it on import
    from deployments.checks import check
    from deployments.plan import plan

    planned = plan(recipes, store)
    check(planned)
    logs = environment.prefect_home()
    with (
        full_server(port, logs / "server.log") as server,
        _announced(store, port),
        _applied(planned),
        worker("cpu", logs / "cpu-worker.log") as cpu,
        worker("gpu", logs / "gpu-worker.log", "--limit", "1") as gpu,  # all queues of the pool, one job a card
    ):
        names = ", ".join(deployment.full_name for deployment in planned.deployments)
        link = f"http://127.0.0.1:{port}{LOGIN_PATH}#{quote(environment.server_login())}"
        print(f"Prefect: {link}   deployments: {names}   Ctrl-C stops everything.", flush=True)
        try:
            _wait_for_any({"server": server, "cpu worker": cpu, "gpu worker": gpu}, logs)
        finally:
            subprocesses.ask_to_end(gpu)
            subprocesses.ask_to_end(cpu)


@contextlib.contextmanager
def _announced(store: str, port: int) -> Iterator[None]:
    note = environment.announce_server(store, f"http://127.0.0.1:{port}/api")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


@contextlib.contextmanager
def _applied(planned: DeploymentPlan) -> Iterator[None]:
    from deployments.applying import apply

    for _ in apply(planned):
        pass
    yield


def _wait_for_any(processes: dict[str, subprocess.Popen[bytes]], logs: Path) -> None:
    while True:
        for name, process in processes.items():
            if process.poll() is not None:
                raise ProsemillError(f"the {name} stopped (exit code {process.returncode}); see the logs in {logs}")
        time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Prefect server, pools, workers and deployments on this machine.")
    parser.add_argument("recipes", nargs="*", type=Path, metavar="RECIPE")
    parser.add_argument("--store", default="")
    parser.add_argument("--port", type=int, default=4200)
    arguments = parser.parse_args()
    store = environment.store_url(arguments.store)
    environment.prepare(store)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        run(store, arguments.recipes, arguments.port)
    except KeyboardInterrupt:
        sys.exit(0)
    except ProsemillError as error:
        sys.exit(f"prosemill: {error}")


if __name__ == "__main__":
    main()
