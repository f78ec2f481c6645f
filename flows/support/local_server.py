"""Prefect servers and workers as child processes that never outlive whoever started them, kill -9 included."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from flows.support.compat import EPHEMERAL_VARIABLE
from prosemill.config import environment
from prosemill.errors import ProsemillError
from prosemill.runtime import subprocesses

START_SECONDS = 180  # a first start migrates the database: 10 s, and several times that on a busy machine
GRACE_SECONDS = 10.0
_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
# The API alone, without the UI, as Prefect's own temporary server: that one is left behind when its client is killed.
_TEMPORARY = {
    "PREFECT_UI_ENABLED": "0",
    EPHEMERAL_VARIABLE: "1",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
}


def start_if_none_is_named() -> None:
    """Use the server that the environment names; where it names none, start one that lives as long as this process.

    To be called before Prefect is imported: it sends its last log lines when the process exits, and what is registered
    first is ended last.
    """
    if environment.api_url():
        return
    port, log = free_port(), environment.prefect_home() / "server.log"
    server = start(_server(port), log, more=environment.of_server(port) | _TEMPORARY)
    atexit.register(subprocesses.end_group, server, GRACE_SECONDS)
    wait_until_healthy(server, port, log)
    environment.use_own_server(port)


@contextlib.contextmanager
def full_server(port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server with UI and services on loopback, answering when the block begins and gone when it ends."""
    with running(_server(port), log, more=environment.of_server(port)) as server:
        wait_until_healthy(server, port, log)
        yield server


@contextlib.contextmanager
def worker(pool: str, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = ["prefect", "worker", "start", "--pool", pool, "--name", f"{pool}-worker", *arguments]
    with running(command, log) as process:
        yield process


@contextlib.contextmanager
def running(command: list[str], log: Path, more: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m command…` for as long as the block lasts."""
    process = start(command, log, more)
    try:
        yield process
    finally:
        subprocesses.end_group(process, GRACE_SECONDS)


def start(command: list[str], log: Path, more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """`python -m command…` in a process group of its own, which dies with this process.

    Its current folder is Prefect's own: when the server makes its database, Alembic puts the current folder first on
    `sys.path`, as Prefect's alembic.ini asks.
    """
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "prosemill.runtime.subprocesses", str(os.getpid()), *command],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, cwd=environment.prefect_home(),
            env=_environment() | dict(more or {}),
        )  # fmt: skip


def _environment() -> dict[str, str]:
    """On the screen of a command Prefect's lines are noise; in these programs' own logs an operator looks for them."""
    variables = environment.of_child()
    if variables.get(_LEVEL) == environment.SILENT:  # our default: what a person has set stays
        variables[_LEVEL] = "WARNING"
    return variables


def wait_until_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not environment.answers(f"http://127.0.0.1:{port}/api"):
        if server.poll() is not None or time.monotonic() > deadline:
            raise ProsemillError(
                f"the Prefect server did not start on port {port}: {subprocesses.last_line(log)} (see {log})"
            )
        time.sleep(0.2)


def _server(port: int) -> list[str]:
    return ["flows.support.server_app", "--port", str(port)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
