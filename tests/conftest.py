"""Fixtures that several test files share: a store, and one Prefect server for the whole session."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from prosemill import environment
from prosemill.storage import Store
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
