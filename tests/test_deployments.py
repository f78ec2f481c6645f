"""What runs where: deployments that can be imported, and `prosemill up`, which serves them on one machine."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.apply import check_entrypoints, deployments
from prosemill.errors import ProsemillError
from prosemill.registry import Registry
from tests.stories import recipe_text, write_corpus
from tests.test_flows import recipe_for
from tests.tiny import make_base

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("up")
    make_base(home / "base")
    write_corpus(home / "texts", range(40))
    (home / "stories.toml").write_text(recipe_text())
    return home


def test_every_deployment_can_be_imported_and_knows_its_parameters(home: Path) -> None:
    content = deployments([recipe_for(home)], "store")
    check_entrypoints(content)
    names = {f"{each['entrypoint'].split('.')[-1]}/{each['name']}" for each in content["deployments"]}
    assert names == {"build_corpus/cpu", "train_model/gpu", "retrain/cpu", "retrain/stories"}
    pools = {each["entrypoint"].split(".")[-1]: each["work_pool"]["name"] for each in content["deployments"]}
    assert pools == {"build_corpus": "cpu", "train_model": "gpu", "retrain": "cpu"}


def test_a_parameter_that_no_flow_has_is_refused(home: Path) -> None:
    content = deployments([recipe_for(home)], "store")
    content["deployments"][0]["parameters"]["shop"] = "store"
    with pytest.raises(ProsemillError, match=r"flows\.build_corpus\.build_corpus has no parameter shop"):
        check_entrypoints(content)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_line(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"`prosemill up` ended with {process.wait()} before it said {pattern!r}")


def post(url: str, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{url}/api{path}", json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_up_runs_a_recipe_from_the_api_and_trains_on_the_gpu_pool(home: Path) -> None:
    port, store = free_port(), home / "store"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PROSEMILL_"))}
    command = [sys.executable, "-c", "from flows.cli import main; main()", "up", str(home / "stories.toml")]
    arguments = ["--port", str(port), "--store", str(store)]
    up = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        wait_for_line(up, f"http://127.0.0.1:{port}")
        url = f"http://127.0.0.1:{port}"
        deployment = httpx.get(f"{url}/api/deployments/name/retrain/stories", timeout=30).json()
        assert deployment["parameters"]["train_on"] == "gpu pool"
        run = post(url, f"/deployments/{deployment['id']}/create_flow_run", parameters={"as_of": "2026-01-05"})

        deadline = time.monotonic() + 300
        state: dict[str, Any] = {}
        while state.get("type") not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            assert time.monotonic() < deadline, f"the run is still {state}"
            time.sleep(2)
            state = httpx.get(f"{url}/api/flow_runs/{run['id']}", timeout=30).json()["state"]

        assert state["type"] == "COMPLETED", state["message"]
        runs = post(url, "/flow_runs/filter", flow_runs={}, sort="START_TIME_ASC")
        pools = {each["work_pool_name"] for each in runs if each["deployment_id"]}
        assert pools == {"cpu", "gpu"}
        champion = Registry(str(store)).champion("stories")
        assert champion is not None
        assert champion.as_of == "2026-01-05"
    finally:
        os.kill(up.pid, signal.SIGTERM)  # not SIGINT: what a shell starts in the background ignores that
        up.communicate(timeout=60)
    assert not (store / "prefect" / "server.json").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=2)
