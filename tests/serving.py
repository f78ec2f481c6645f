"""One running Prefect for all tests that need a whole one: server with UI and services, pools, workers.

It is what `prosemill up` starts, on a corpus of forty stories and a two-layer GPT-2, with loops turned faster. Whoever
kills servers or workers, or needs another database, starts a stack of their own: this one is shared.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from tests.stories import recipe_text, write_corpus
from tests.tiny import make_base

ROOT = Path(__file__).parent.parent
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
# The defaults suit a server that lives for months; a test waits for every one of these loops.
_FASTER = {
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "2",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
    "PREFECT_SERVER_LOG_RETRYABLE_ERRORS": "true",
}


@dataclass(frozen=True)
class Stack:
    """A served recipe named `stories`: `home` holds stories.toml, texts/ and base/."""

    ui: str  # for example http://127.0.0.1:4300
    store: Path
    home: Path
    link: str  # what `prosemill up` printed for the browser: the UI with the login

    @property
    def api(self) -> str:
        return f"{self.ui}/api"

    @property
    def recipe(self) -> Path:
        return self.home / "stories.toml"

    @property
    def login(self) -> tuple[str, str]:
        """User and password of the API."""
        user, _, password = unquote(self.link.partition("#")[2]).partition(":")
        return user, password

    @property
    def environment(self) -> dict[str, str]:
        """For `prosemill` in a child process that shall work with this server and store; it finds the login itself."""
        return clean_environment() | _FASTER | {"PREFECT_API_URL": self.api, "PROSEMILL_STORE": str(self.store)}

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def post(self, path: str, **body: Any) -> Any:
        return self._ask("POST", path, json=body)

    def patch(self, path: str, **body: Any) -> Any:
        return self._ask("PATCH", path, json=body)

    def emit(self, event: dict[str, Any]) -> None:
        self._ask("POST", "/events", json=[event])

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        answer = httpx.request(method, f"{self.api}{path}", timeout=120, auth=self.login, **more)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text[:1000]}"
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        """The deployment "flow/name" as the API shows it."""
        answer: dict[str, Any] = self.get(f"/deployments/name/{name}")
        return answer

    def run(self, deployment: str, **parameters: Any) -> str:
        """Start a run of "flow/name" as the UI does; its id."""
        answer = self.deployment(deployment)
        run = self.post(f"/deployments/{answer['id']}/create_flow_run", parameters=parameters)
        return str(run["id"])

    def flow_run(self, run: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.get(f"/flow_runs/{run}")
        return answer

    def wait(self, run: str, states: Sequence[str] = ENDED, timeout: float = 300) -> dict[str, Any]:
        """The run as soon as its state is of one of these types, or bears one of these names; it must get there."""
        deadline = time.monotonic() + timeout
        while True:
            flow_run = self.flow_run(run)
            state = flow_run["state"] or {}
            if state.get("type") in states or state.get("name") in states:
                return flow_run
            assert state.get("type") not in ENDED, f"run {run} ended as {state}"
            assert time.monotonic() < deadline, f"after {timeout} s run {run} is still {state}"
            time.sleep(0.3)

    def children(self, run: str) -> list[dict[str, Any]]:
        """The flow runs that `run` started, oldest first: here, or as runs of a deployment."""
        tasks = self.post("/task_runs/filter", flow_runs={"id": {"any_": [run]}})
        ids = [task["state"]["state_details"]["child_flow_run_id"] for task in tasks if task["state"]]
        parents = {"parent_task_run_id": {"any_": [task["id"] for task in tasks]}}
        children: list[dict[str, Any]] = self.post("/flow_runs/filter", flow_runs=parents, sort="START_TIME_ASC")
        known = {child["id"] for child in children}
        return children + [self.flow_run(id) for id in ids if id and id not in known]

    def prosemill(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command, working with this server and store."""
        return subprocess.run(
            [sys.executable, "-c", "from flows.cli import main; main()", *arguments],
            capture_output=True, text=True, cwd=ROOT, env=self.environment, check=False, timeout=300,
        )  # fmt: skip

    def log(self, name: str) -> str:
        """What "server", "cpu-worker" or "gpu-worker" printed."""
        return (self.store / "prefect" / f"{name}.log").read_text(encoding="utf-8", errors="replace")


def clean_environment() -> dict[str, str]:
    """This process's environment without what points at a Prefect, MLflow or store of the test session's own."""
    own = ("PREFECT_", "PROSEMILL_", "MLFLOW_TRACKING_URI")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


running = contextlib.ExitStack()  # the `prosemill up` of this session, while there is one


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`prosemill up stories.toml` for all tests that ask for it, since starting takes half a minute."""
    home = tmp_path_factory.mktemp("stack")
    make_base(home / "base")
    write_corpus(home / "texts", range(40))
    (home / "stories.toml").write_text(recipe_text(), encoding="utf-8")
    prosemill = [sys.executable, "-c", "from flows.cli import main; main()"]
    with running:
        yield running.enter_context(served(home, prosemill, ROOT, clean_environment()))


@contextlib.contextmanager
def served(home: Path, prosemill: Sequence[str | Path], cwd: Path, environment: Mapping[str, str]) -> Iterator[Stack]:
    """`prosemill up` of the recipe in `home`, until the block ends."""
    port = free_port()
    ui, store = f"http://127.0.0.1:{port}", home / "store"
    arguments = ["up", home / "stories.toml", "--port", str(port), "--store", store]
    with (home / "up.err").open("w") as errors:
        up = subprocess.Popen(
            [*prosemill, *arguments], stdout=subprocess.PIPE, stderr=errors, text=True, cwd=cwd,
            env={**environment, **_FASTER}, start_new_session=True,
        )  # fmt: skip
    try:
        link = _wait_for_line(up, rf"{re.escape(ui)}\S*#\S+", home / "up.err")
        stack = Stack(ui, store, home, link)
        yield stack
    finally:
        up.send_signal(signal.SIGTERM)  # not SIGINT: what a shell starts in the background ignores that
        up.communicate(timeout=120)
    assert not (stack.store / "prefect" / "server.json").exists()
    assert "database is locked" not in stack.log("server"), "something was refused instead of waiting for its turn"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{stack.api}/health", timeout=2)


def _wait_for_line(process: subprocess.Popen[str], pattern: str, errors: Path) -> str:
    """What matches the pattern in a line that the process prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(pattern, line):
            return match[0]
    raise AssertionError(f"`prosemill up` ended with {process.wait()} before it was up: {errors.read_text()}")
