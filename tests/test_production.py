"""A production on loopback: one whole retrain through the API, everything saved, wiped, and brought back."""

from __future__ import annotations

import json
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from prosemill.errors import EXIT_REFUSED
from tests.production import Production, production
from tests.stories import recipe_text, write_corpus
from tests.tiny import make_base

AS_OF = "2026-01-05"


@pytest.fixture(scope="module")
def servers() -> Iterator[Production]:
    with production() as servers:
        make_base(servers.folder / "base")
        write_corpus(servers.folder / "texts", range(40))
        (servers.folder / "stories.toml").write_text(recipe_text())
        servers.start_all(fresh=True)
        yield servers


def trusting(servers: Production) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(servers.folder / "ca.crt"))


class Api:
    """The Prefect API as an operator reaches it: through the proxy, with TLS and a login."""

    def __init__(self, servers: Production) -> None:
        user, _, password = servers.environment["PREFECT_API_AUTH_STRING"].partition(":")
        self.client = httpx.Client(
            base_url=servers.environment["PREFECT_API_URL"], auth=(user, password), timeout=60,
            verify=trusting(servers),
        )  # fmt: skip

    def __call__(self, path: str, **body: Any) -> Any:
        answer = self.client.post(path, json=body) if body else self.client.get(path)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()

    def wait(self, what: str, look: Callable[[], Any], servers: Production) -> Any:
        """What `found` finds, as soon as that is anything."""
        deadline = time.monotonic() + 900
        while not (value := look()):
            assert time.monotonic() < deadline, f"{what}: nothing yet\n{servers.logs()}"
            time.sleep(0.5)
        return value

    def ended(self, run: str) -> str:
        """The type of the state that a run ended in, or ""."""
        state = self(f"/flow_runs/{run}")["state"]["type"]
        return state if state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else ""

    def told_of(self, run: str) -> bool:
        """Whether the event of its end went through Redis and the services into the database."""
        events = self("/events/filter", filter={"event": {"prefix": ["prefect.flow-run.Completed"]}})["events"]
        return f"prefect.flow-run.{run}" in {event["resource"]["prefect.resource.id"] for event in events}


def lineage(servers: Production) -> list[Any]:
    """What the models are, and where a sentence of the corpus comes from."""
    sentence = (servers.folder / "texts" / "story-003.txt").read_text().split(".")[0]
    printed = servers.prosemill("models", "--json", "then", "trace", sentence, "--json")
    return [json.loads(line) for line in printed.splitlines()]


@pytest.mark.timeout(600)
def test_an_api_on_postgresql_behind_nginx_answers_its_operator_alone() -> None:
    with production() as servers:
        (servers.folder / "prefect").mkdir()
        servers.start_postgres()
        servers.start_redis()
        servers.make_databases()
        servers.start_nginx()
        servers.start_prefect(fresh=True)
        api = Api(servers)
        stranger = httpx.post(f"{api.client.base_url}flows/", json={"name": "stranger"}, verify=trusting(servers))
        assert stranger.status_code == 401
        api("/flows/", name="operator")
        assert servers.sql("SELECT name FROM flow", "prefect").split() == ["operator"]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_retrain_on_all_servers_survives_their_loss(servers: Production) -> None:
    api, ports = Api(servers), servers.ports
    for url in (f"https://localhost:{ports['https']}/api/flows/x", f"https://127.0.0.1:{ports['https']}/"):
        assert httpx.get(url, verify=trusting(servers)).status_code == 401, "a stranger"

    complaint = servers.prosemill("models", status=EXIT_REFUSED, more={"MLFLOW_TRACKING_PASSWORD": "guessed"})
    assert "wants a login; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in complaint

    servers.prosemill("deploy", str(servers.folder / "stories.toml"))
    servers.start_workers()
    deployment = api("/deployments/name/retrain/stories")
    run = api(f"/deployments/{deployment['id']}/create_flow_run", parameters={"as_of": AS_OF})["id"]
    assert api.wait("the run", lambda: api.ended(run), servers) == "COMPLETED", servers.logs()

    runs = api("/flow_runs/filter", flow_runs={})
    assert {run["work_pool_name"] for run in runs if run["deployment_id"]} == {"cpu", "gpu"}
    before = models, traced = lineage(servers)
    assert [(row["model"], row["as_of"], "champion" in row["aliases"]) for row in models] == [
        ("stories/1", AS_OF, True)
    ]
    assert traced[0]["leads_to"], "a sentence leads to its page"
    api.wait("the event of its end", lambda: api.told_of(run), servers)

    backup = str(servers.folder / "backup")
    printed = servers.prosemill("backup", backup, "--json", "then", "backup", backup, "--verify", "--json")
    saved, verified = (json.loads(document) for document in printed.replace("}\n{", "}\0{").split("\0"))
    assert saved["databases"] == ["mlflow", "prefect"]
    assert saved["missing"] == []
    assert verified["verified"] > saved["snapshots"]
    complaint = servers.prosemill("restore", backup, status=EXIT_REFUSED)
    assert (
        "the store s3://prosemill/store and the database of mlflow and the database of prefect: not empty" in complaint
    )

    servers.stop()
    for name in ("pg", "cache", "prefect"):
        shutil.rmtree(servers.folder / name)
    servers.start_data(fresh=True)
    servers.prosemill("restore", backup)
    servers.start_all()

    assert lineage(servers) == before
    assert api.ended(run) == "COMPLETED"
    assert api("/deployments/name/retrain/stories")["id"] == deployment["id"]
    assert servers.prosemill("write", "stories", "The miller", "--max-new-tokens", "4", "--temperature", "0").strip()
