"""Fixtures that several test files share: a store, and one Prefect server for each worker of pytest."""

import functools
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
from tests.serving import running, stack  # noqa: F401  # a fixture; whoever does not ask for it does not start it

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


# Files with one of these in their text, in the order in which they are begun: what takes longest comes first. All files
# of the first kind share `prosemill up`, so one worker of pytest has them all; others go where there is room.
_KINDS = ("stack: Stack", "prefect_api", "make_base", "subprocess", "")


@functools.cache
def _kind(file: Path) -> int:
    text = file.read_text(encoding="utf-8")
    return next(place for place, sign in enumerate(_KINDS) if sign in text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _kind(item.path))


class Shares(LoadScopeScheduling):
    """What `pytest -n` keeps together: the tests of a file, and of all files that share one `prosemill up`."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if _kind(self.config.rootpath / file) else _KINDS[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares:
    return Shares(config, log)


@pytest.hookimpl(trylast=True)  # after the fixtures of the last file
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """`prosemill up` ends with the last test that may ask for it: no worker has it and the server of `prefect_api`."""
    if _kind(item.path) == 0 and nextitem is not None and _kind(nextitem.path) != 0:
        running.close()


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
    """The URL of a Prefect server; starting one takes ten seconds, so there is one for each worker of pytest."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        url = str(PREFECT_API_URL.value())
        environment.use_server(url)  # for `prosemill` in this process and in child processes
        yield url
    environment.use_server("")
