"""Events and the automations that act on them: what a server gets to hear, and that nothing can go round for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pyarrow.parquet as pq
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.events.schemas.automations import Automation

from deployments import automations, crash_safety
from prosemill.config.recipe import parse_recipe
from prosemill.config.settings import Deploy, Recipe
from prosemill.errors import ProsemillError
from prosemill.gate import retrain_policy
from prosemill.storage.corpus import training_tokens_of, withdrawn_of
from prosemill.storage.store import Store
from tasks.support import events
from tests.champions import make_model, register
from tests.stories import write_corpus
from tests.test_flows import recipe_for
from tests.test_scrape_site import Site, serve
from tests.tiny import make_base, texts

WANTS_ALL = Deploy(retrain_on=["new-data", "unwell", "opt-out"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    make_base(folder / "base")
    write_corpus(folder / "texts", range(40))
    return folder


@pytest.fixture
def client(prefect_api: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def heard(client: SyncPrefectClient, name: str, resource: str, number: int) -> list[Any]:
    """Events of that name about that resource, oldest first, as soon as there are `number` of them."""
    wanted = EventFilter(event=EventNameFilter(name=[name]), resource=EventResourceFilter(id=[resource]))
    deadline = time.monotonic() + 120
    while len(received := client.read_events(wanted, limit=50).events) < number:
        assert time.monotonic() < deadline, f"{number} of {name} were emitted, {len(received)} arrived"
        time.sleep(0.3)
    return sorted(received, key=lambda event: event.occurred)


# --- emitting --------------------------------------------------------------------------------------------------------


def test_every_event_arrives_with_its_labels(client: SyncPrefectClient) -> None:
    name = f"told-{uuid4().hex[:8]}"
    details = {"model": f"{name}/3", "reason": "better", "run": "a-run"}
    urls = [f"https://example.org/{number}" for number in range(25)]
    assert events.corpus_updated(
        name, as_of="2026-01-05", new_documents=3, new_tokens=99, chunk="chunk-1", worth_training=True, reason="3 new",
        by_itself=True,
    )  # fmt: skip
    assert events.corpus_opted_out(name, as_of="2026-01-05", urls=urls, models=["finetune-1"], by_itself=False)
    assert events.corpus_partial(name, source="site", reason="3 timeout", by_itself=True)
    assert events.model_unwell(name, reason="too old")
    assert events.promoted(name, **details)
    assert events.refused(name, **details)
    assert events.approval_asked(name, **details)

    corpus, model = f"prosemill.corpus.{name}", f"prosemill.model.{name}"
    (updated,) = heard(client, events.CORPUS_UPDATED, corpus, 1)
    assert {key: updated.resource[key] for key in (events.WORTH_TRAINING, events.BY_ITSELF)} == {
        "prosemill.worth-training": "yes",
        "prosemill.by-itself": "yes",
    }
    assert updated.payload == {
        "as_of": "2026-01-05", "new_documents": 3, "new_tokens": 99, "chunk": "chunk-1", "reason": "3 new",
    }  # fmt: skip
    (opted_out,) = heard(client, events.CORPUS_OPTED_OUT, corpus, 1)
    assert (opted_out.resource[events.LEARNED], opted_out.resource[events.BY_ITSELF]) == ("yes", "no")
    assert (opted_out.payload["number"], opted_out.payload["urls"]) == (25, urls[:20])
    (partial,) = heard(client, events.CORPUS_PARTIAL, corpus, 1)
    assert partial.payload == {"source": "site", "reason": "3 timeout"}
    (unwell,) = heard(client, events.MODEL_UNWELL, model, 1)
    assert unwell.payload == {"reason": "too old"}
    for event in (events.MODEL_PROMOTED, events.MODEL_REFUSED, events.APPROVAL_ASKED):
        assert heard(client, event, model, 1)[0].payload == details


def test_what_cannot_be_sent_is_one_line_and_no_failure(
    client: SyncPrefectClient, caplog: pytest.LogCaptureFixture
) -> None:
    huge = "x" * 2_000_000  # more than a server takes in one event

    @flow
    def tell() -> bool:
        return events.model_unwell("huge", reason=huge)

    assert tell() is False
    lines = {record.getMessage() for record in caplog.records if record.name == "prosemill.events"}
    assert [line.partition(": ")[2][:15] for line in lines] == ["EventTooLarge: "]


def test_a_run_without_a_server_that_takes_events_goes_on(tmp_path: Path) -> None:
    """In a process of its own: a server that is down, while the event is on its way."""
    import os
    import subprocess
    import sys

    program = (
        "from tasks.support import events; events.model_unwell('lonely', reason='nobody is there'); print('went on')"
    )
    env = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=240, check=False,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "went on"), done.stderr


# --- what a build of the corpus tells --------------------------------------------------------------------------------


def test_a_build_says_what_is_new_and_whether_it_ran_by_itself(home: Path, client: SyncPrefectClient) -> None:
    from flows.build_corpus import build_corpus

    recipe = recipe_for(home).model_copy(update={"name": f"news-{uuid4().hex[:8]}"})
    store, corpus = Store(str(home / "store")), f"prosemill.corpus.{recipe.name}"

    @flow(name="a-parent-such-as-retrain")
    def parent() -> None:
        build_corpus(recipe, as_of="2026-01-05", store=store.url)

    built = build_corpus(recipe, as_of="2026-01-05", store=store.url)
    parent()
    register(store, recipe.name, make_model(store, 1, [built["chunk"]], retrain_policy.training_settings(recipe)))
    build_corpus(recipe, as_of="2026-01-05", store=store.url)

    first, within, after = heard(client, events.CORPUS_UPDATED, corpus, 3)
    labels = [
        (event.resource[events.WORTH_TRAINING], event.resource[events.BY_ITSELF]) for event in (first, within, after)
    ]
    assert labels == [("yes", "yes"), ("yes", "no"), ("no", "yes")]
    assert first.payload["chunk"] == built["chunk"]
    assert first.payload["new_documents"] > 20
    assert after.payload["new_documents"] == 0
    assert "no new training document" in after.payload["reason"]

    # What a retraining tells starts none: its events match no trigger; what was told by itself does.
    triggers = [automation.trigger for automation in automations.automations(recipe, WANTS_ALL, uuid4())]
    started = {
        event.id: [trigger for trigger in triggers if is_fired(trigger, event)] for event in (first, within, after)
    }
    assert [len(started[event.id]) for event in (first, within, after)] == [1, 0, 0]


def site_of(pages: list[str]) -> Site:
    links = "".join(f'<a href="/{number}">{number}</a>' for number in range(len(pages)))
    front = f"<title>Mill</title>{links}".encode()
    return Site({"/": front} | {f"/{number}": page_of(text) for number, text in enumerate(pages)})


def page_of(text: str, head: str = "") -> bytes:
    paragraphs = "".join(f"<p>{part}</p>" for part in text.split("\n\n"))
    return f"<html><head><title>Mill</title>{head}</head><body><article>{paragraphs}</article></body></html>".encode()


@pytest.mark.slow
def test_a_page_that_opts_out_later_is_told_with_the_models_that_learned_from_it(
    home: Path, client: SyncPrefectClient, tmp_path: Path
) -> None:
    from flows.build_corpus import build_corpus

    pages = texts(32, seed=5, words=8)[7::8] + texts(96, seed=6, words=6)[5::6]  # the long ones
    store = Store(str(tmp_path / "store"))
    with serve(site_of(pages)) as site:
        fields = recipe_for(home).model_dump(mode="json") | {
            "name": f"site-{uuid4().hex[:8]}",
            "sources": [{"name": "mill", "kind": "site", "urls": [f"{site.url}/"]}],
            "scrape": {"delay_seconds": 0, "allow_private_addresses": True},
        }
        recipe = parse_recipe(fields, where="site.toml", folder=home)
        first = build_corpus(recipe, as_of="2026-01-05", store=store.url)
        learned = {
            row["url"]: row["document"]
            for shard in store.manifest(first["chunk"]).shards_of("map")
            for row in pq.read_table(store.local(shard.path)).to_pylist()
            if row["split"] == "train"
        }
        url = min(learned)
        champion = make_model(store, 1, [first["chunk"]], retrain_policy.training_settings(recipe))
        register(store, recipe.name, champion)

        number = int(url.rpartition("/")[2])
        site.pages[f"/{number}"] = page_of(pages[number], head='<meta name="robots" content="noai">')
        second = build_corpus(recipe, as_of="2026-01-12", store=store.url)

    (opted_out,) = heard(client, events.CORPUS_OPTED_OUT, f"prosemill.corpus.{recipe.name}", 1)
    assert opted_out.payload == {"as_of": "2026-01-12", "number": 1, "urls": [url], "models": [champion]}
    assert (opted_out.resource[events.LEARNED], opted_out.resource[events.BY_ITSELF]) == ("yes", "yes")
    updated = heard(client, events.CORPUS_UPDATED, f"prosemill.corpus.{recipe.name}", 2)[-1]
    assert updated.resource[events.WORTH_TRAINING] == "yes"
    assert updated.payload["reason"] == "1 document that the champion learned from was withdrawn"
    assert set(withdrawn_of(store, second["dedup"])) == {learned[url]}
    assert learned[url] not in training_tokens_of(store, second["chunk"])
    named = ArtifactFilter(key=ArtifactFilterKey(any_=[f"{recipe.name}-withdrawn"]))  # the server has other tests' too
    assert client.read_artifacts(artifact_filter=named)


def is_fired(trigger: Any, event: Any) -> bool:
    """As the server decides it, by its own class."""
    from prefect.server.events.schemas.automations import EventTrigger
    from prefect.server.events.schemas.events import ReceivedEvent

    served = EventTrigger.model_validate(trigger.model_dump(mode="json"))
    return served.covers(ReceivedEvent.model_validate(event.model_dump(mode="json")))


# --- automations as code ---------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(home: Path, client: SyncPrefectClient) -> Recipe:
    """A recipe of which `retrain/<name>` is deployed."""
    recipe = recipe_for(home).model_copy(update={"name": f"run-{uuid4().hex[:8]}"})
    flow = client.create_flow_from_name("retrain")
    client.create_deployment(flow, recipe.name)
    return recipe


def ours(client: SyncPrefectClient, name: str) -> dict[str, Automation]:
    prefix = automations.prefix_of(name)
    existing = client.read_automations(limit=200)
    return {
        automation.name.removeprefix(prefix): automation
        for automation in existing
        if automation.name.startswith(prefix)
    }


def kinds(done: dict[str, automations.ChangeKind], name: str) -> dict[str, str]:
    prefix = automations.prefix_of(name)
    return {key.removeprefix(prefix): kind for key, kind in done.items() if key.startswith(prefix)}


def test_applying_twice_changes_nothing_and_less_removes(recipe: Recipe, client: SyncPrefectClient) -> None:
    def apply(deploy: Deploy, **options: Any) -> dict[str, str]:
        return kinds(automations.apply(client, [(recipe, deploy)], **options), recipe.name)

    every = ("retrain on new-data", "retrain on opt-out", "retrain on unwell")
    assert apply(WANTS_ALL, dry_run=True) == dict.fromkeys(every, "created")
    assert ours(client, recipe.name) == {}
    assert apply(WANTS_ALL) == dict.fromkeys(every, "created")
    assert apply(WANTS_ALL) == dict.fromkeys(every, "unchanged")
    action = ours(client, recipe.name)["retrain on new-data"].actions[0]
    assert action.deployment_id == client.read_deployment_by_name(f"retrain/{recipe.name}").id
    assert apply(Deploy(retrain_on=["opt-out"])) == {
        "retrain on new-data": "removed", "retrain on opt-out": "unchanged", "retrain on unwell": "removed",
    }  # fmt: skip
    assert set(ours(client, recipe.name)) == {"retrain on opt-out"}
    assert apply(Deploy()) == {"retrain on opt-out": "removed"}


def test_what_somebody_changed_is_corrected_and_what_is_switched_off_stays_off(
    recipe: Recipe, client: SyncPrefectClient
) -> None:
    deploy = Deploy(retrain_on=["new-data"])
    automations.apply(client, [(recipe, deploy)])
    automation = ours(client, recipe.name)["retrain on new-data"]
    client.pause_automation(automation.id)
    assert kinds(automations.apply(client, [(recipe, deploy)]), recipe.name) == {"retrain on new-data": "unchanged"}

    other = automation.model_copy(update={"enabled": False, "description": "mine"})
    client.update_automation(automation.id, automations._whole(other))
    assert kinds(automations.apply(client, [(recipe, deploy)]), recipe.name) == {"retrain on new-data": "changed"}
    now = ours(client, recipe.name)["retrain on new-data"]
    assert (now.enabled, now.description) == (False, f"Starts retrain/{recipe.name} after prosemill.corpus.updated.")


def test_other_recipes_are_left_alone(recipe: Recipe, client: SyncPrefectClient) -> None:
    automations.apply(client, [(recipe, WANTS_ALL)])
    automations.apply(client, [(recipe.model_copy(update={"name": "another"}), Deploy())])
    assert len(ours(client, recipe.name)) == 3


def test_what_becomes_of_the_dead_is_applied_too(client: SyncPrefectClient) -> None:
    automations.apply(client, [])
    names = [automation.name for automation in crash_safety.automations()]
    assert all(name.startswith(automations.SHARED) for name in names), "or it would never be removed"
    done = automations.apply(client, [])
    assert {name: done[name] for name in names} == dict.fromkeys(names, "unchanged")


def test_alerts_need_a_block_and_come_and_go_with_it(client: SyncPrefectClient) -> None:
    from prefect.blocks.webhook import Webhook

    Webhook(url="http://127.0.0.1:9/").save("pager", overwrite=True)
    every = [f"{automations.SHARED}alert on a failed run", f"{automations.SHARED}alert on an approval"]

    def alerts(block: str) -> dict[str, str]:
        done = automations.apply(client, [], alert_block=block)
        return {name: kind for name, kind in done.items() if name in every}

    assert alerts("webhook/pager") == dict.fromkeys(every, "created")
    assert alerts("webhook/pager") == dict.fromkeys(every, "unchanged")
    assert alerts("") == dict.fromkeys(every, "removed")
    for wrong in ("webhook/nobody", "pager"):
        with pytest.raises(ProsemillError, match=r"PROSEMILL_ALERT_BLOCK = .* no such block .* under Blocks"):
            alerts(wrong)


def test_a_recipe_that_is_not_deployed_is_told(home: Path, client: SyncPrefectClient) -> None:
    nowhere = recipe_for(home).model_copy(update={"name": "nowhere"})
    with pytest.raises(ProsemillError, match=r"retrain/nowhere: no such deployment .* deploy the recipe first"):
        automations.apply(client, [(nowhere, WANTS_ALL)])
    assert automations._deployment(client, "retrain/nowhere", dry_run=True) == UUID(int=0)
