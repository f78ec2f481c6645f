"""Fixtures that several test files share: a store, and one Prefect server for the whole session."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.logging import LogCaptureHandler
from xdist.scheduler import LoadScopeScheduling

from prosemill.config import environment
from prosemill.storage.store import Store
from tests.serving import stack  # noqa: F401  # a fixture; whoever does not ask for it does not start it

_home = Path(tempfile.mkdtemp(prefix="prosemill-tests-"))


def pytest_configure() -> None:
    """Prefect reads its settings when it is first imported: nothing of a test session may land in a person's own."""
    environment.prepare(str(_home))
    os.environ.setdefault("PROSEMILL_CACHE", str(_home / "cache"))
    os.environ.setdefault("PROSEMILL_RETRY_SECONDS", "0.1")
    # Two threads that wait for each other over a model of two layers: several times the work, and the more so the
    # busier the machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    environment.prefect_home()


class Shares(LoadScopeScheduling):
    """What `pytest -n` keeps together: the tests of a file, and of all files that share a Prefect server.

    So each server is started once, and what waits for it leaves its core to the others.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        texts = {file.name: file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py")}
        self.shares = {name: "harness" for name, text in texts.items() if "prefect_api" in text}
        self.shares |= {name: "stack" for name, text in texts.items() if "stack: Stack" in text}

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0]).name
        return self.shares.get(file, file)


def pytest_xdist_make_scheduler(config: Any, log: Any) -> Shares:
    return Shares(config, log)


def pytest_runtest_setup() -> None:
    """Prefect copies its logger's handlers to ours, pytest's among them: `caplog` would see every line twice."""
    ours = logging.getLogger("prosemill")
    for handler in ours.handlers[:]:
        if isinstance(handler, LogCaptureHandler):
            ours.removeHandler(handler)


def pytest_unconfigure() -> None:
    shutil.rmtree(_home, ignore_errors=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"))
    store.check_writable()
    return store


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """The URL of a Prefect server; starting one takes ten seconds, so there is one a session."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        url = str(PREFECT_API_URL.value())
        environment.use_server(url)  # for `prosemill` in this process and in child processes
        yield url
    environment.use_server("")
