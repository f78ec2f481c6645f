"""The whole way on a real server that evaluates triggers: an event starts a retraining, an alert reaches a person."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from uuid import UUID

import pytest
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import Event, Resource
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments import automations
from prosemill.config.recipe import load_recipe
from prosemill.config.settings import Deploy
from tasks.support import events
from tests.serving import ROOT, Stack
from tests.stories import recipe_text, write_corpus

NAME = "watched"
AS_OF = "2026-02-02"
PATIENCE_SECONDS = 600
T = TypeVar("T")


class Pager:
    """A real HTTP server that alerts are posted to."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        pager = self

        class AlertHandler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                pager.texts.append(str(json.loads(body)["text"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), AlertHandler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/alerts"

    def wait_for(self, what: str) -> str:
        return until(lambda: next((text for text in self.texts if what in text), None), f"no alert says {what!r}")


def until(look: Callable[[], T | None], otherwise: str) -> T:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := look()):
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.3)
    return value


@pytest.fixture(scope="module")
def pager() -> Iterator[Pager]:
    pager = Pager()
    threading.Thread(target=pager.server.serve_forever, daemon=True).start()
    yield pager
    pager.server.shutdown()
    pager.server.server_close()


@dataclass(frozen=True)
class WatchedRecipe:
    """The shared stack with one more recipe. `client` tries again where the database is busy; plain HTTP does not."""

    stack: Stack
    client: SyncPrefectClient

    def start(self, deployment: str, **parameters: Any) -> UUID:
        deployed = self.client.read_deployment_by_name(f"{deployment}/{NAME}")
        return self.client.create_flow_run_from_deployment(deployed.id, parameters=parameters).id

    def ended(self, run: UUID) -> State[Any]:
        def look() -> State[Any] | None:
            state = self.client.read_flow_run(run).state
            return state if state and state.is_final() else None

        return until(look, f"run {run} never ended")

    def retrainings(self) -> list[FlowRun]:
        deployed = self.client.read_deployment_by_name(f"retrain/{NAME}")
        return self.client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployed.id])))

    def updates(self) -> list[Event]:
        """What the server heard of the corpus, oldest first."""
        wanted = EventFilter(
            event=EventNameFilter(name=[events.CORPUS_UPDATED]),
            resource=EventResourceFilter(id=[events.corpus_resource(NAME)]),
        )
        return sorted(self.client.read_events(wanted, limit=50).events, key=lambda event: event.occurred)

    def ask_for_approval(self, reason: str) -> None:
        """As `events.approval_asked` does it, to this server and not to that of the test session."""
        resource = Resource({"prefect.resource.id": events.model_resource(NAME)})
        payload = {"model": f"{NAME}/1", "reason": reason, "run": ""}
        event = Event(event=events.APPROVAL_ASKED, resource=resource, payload=payload)
        self.stack.emit(event.model_dump(mode="json"))


@pytest.fixture(scope="module")
def watched(stack: Stack, pager: Pager) -> Iterator[WatchedRecipe]:
    """Deployed as an operator does it: retrained on new data, alerts by a webhook."""
    write_corpus(stack.home / "watched-texts", range(40))
    sources = '[[sources]]\nname = "texts"\nkind = "folder"\npath = "watched-texts"\n'
    text = recipe_text(sources, more='[deploy]\nretrain_on = ["new-data"]\n').replace('"stories"', f'"{NAME}"')
    path = stack.home / f"{NAME}.toml"
    path.write_text(text, encoding="utf-8")
    login = ":".join(stack.login)
    settings = {PREFECT_API_URL: stack.api, PREFECT_API_AUTH_STRING: login}
    with temporary_settings(settings), SyncPrefectClient(stack.api, auth_string=login) as client:
        Webhook(url=pager.url).save("pager", overwrite=True)
        deploy(stack, str(path), alert_block="webhook/pager")
        try:
            yield WatchedRecipe(stack, client)
        finally:
            automations.apply(client, [(load_recipe(path), Deploy())])


def deploy(stack: Stack, *arguments: str, alert_block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "deploy", *arguments],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=PATIENCE_SECONDS,
        env=stack.environment | {"PROSEMILL_ALERT_BLOCK": alert_block},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"prosemill {NAME}: retrain on new-data" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_new_data_starts_one_retraining_and_that_starts_none(watched: WatchedRecipe, pager: Pager) -> None:
    assert watched.ended(watched.start("build-corpus", as_of=AS_OF)).is_completed()

    run = until(lambda: next(iter(watched.retrainings()), None), "no retraining was started")
    assert run.created_by is not None
    assert run.created_by.type == "AUTOMATION"
    assert run.parameters["as_of"] == AS_OF, "so that it finds the corpus made"
    assert watched.ended(run.id).is_completed()

    by_itself, within = until(lambda: updates if len(updates := watched.updates()) == 2 else None, "two were to come")
    labels = [
        (event.resource[events.WORTH_TRAINING], event.resource[events.BY_ITSELF]) for event in (by_itself, within)
    ]
    assert labels == [("yes", "yes"), ("yes", "no")]
    # Triggers take events in turn: when this later one has had its effect, the one before it has had none.
    watched.ask_for_approval("better by a fifth")
    assert f"{NAME}/1 waits for approval: better by a fifth" in pager.wait_for("waits for approval")
    assert [run.id for run in watched.retrainings()] == [run.id]


@pytest.mark.timeout(900)
def test_a_failed_run_alerts_somebody_and_says_why(watched: WatchedRecipe, pager: Pager) -> None:
    run = watched.start("build-corpus", as_of="2026-13-45")
    assert watched.ended(run).is_failed()
    alert = pager.wait_for("'2026-13-45': is not a date")
    assert alert.startswith(f"build-corpus {NAME} ")
    assert " is Failed: " in alert
    assert str(run) in alert, "the address of the run's page"
