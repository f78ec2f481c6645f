"""A Prefect server, its pools, two workers and the deployments on this machine, in one command.

    python -m deployments.up --store URL [--port 4200] [RECIPE ...]      (what `prosemill up` runs)

Everything stops together: on Ctrl-C, on SIGTERM, or when one of them dies.
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

from deployments.apply import apply, check_entrypoints, deployments
from flows.server import full_server, worker
from prosemill import environment
from prosemill.errors import ProsemillError
from prosemill.recipe import load_recipe


def run(store: str, recipes: list[Path], port: int) -> None:
    """Serve until somebody stops it, or one of the processes dies."""
    if environment.answers(f"http://127.0.0.1:{port}/api"):
        raise ProsemillError(f"port {port}: a Prefect server answers there already; stop it, or choose --port")
    content = deployments([load_recipe(path) for path in recipes], store)
    check_entrypoints(content)
    environment.use_server(f"http://127.0.0.1:{port}/api")  # the children below inherit it
    logs = environment.prefect_home()
    with (
        full_server(port, logs / "server.log") as server,
        _announced(store, port),
        _applied(content),
        worker("cpu", logs / "cpu-worker.log") as cpu,
        worker("gpu", logs / "gpu-worker.log", "--work-queue", "train", "--limit", "1") as gpu,
    ):
        names = ", ".join(f"{each['entrypoint'].split('.')[-1]}/{each['name']}" for each in content["deployments"])
        print(f"Prefect: http://127.0.0.1:{port}   deployments: {names}   Ctrl-C stops everything.", flush=True)
        _wait_for_any({"server": server, "cpu worker": cpu, "gpu worker": gpu}, logs)


@contextlib.contextmanager
def _announced(store: str, port: int) -> Iterator[None]:
    note = environment.announce_server(store, f"http://127.0.0.1:{port}/api")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


@contextlib.contextmanager
def _applied(content: dict[str, object]) -> Iterator[None]:
    apply(content)
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
