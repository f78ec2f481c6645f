"""The check of health: what it sees, what it calls for, and when it fails the run so that an alert goes out."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from prosemill.errors import ModelUnhealthy, RegistryError
from prosemill.operations import health
from prosemill.registry.registry import ModelVersion, Registry
from prosemill.registry.tracker import tracker_of
from prosemill.scrape.ledger import LEDGER_FILE, LedgerRow, write_ledger
from prosemill.storage.manifest import snapshot_id
from prosemill.storage.store import Store
from tests.champions import make_model, register
from tests.test_events import client, heard  # noqa: F401  # a fixture
from tests.test_flows import recipe_for

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)


class RegistryWithChampion(Registry):
    """A registry that says what it is told: the store's MLflow is the business of other tests."""

    def __init__(self, store: Store, champion: ModelVersion | None) -> None:
        super().__init__(store, tracker_of(store))
        self._champion = champion

    def champion(self, name: str) -> ModelVersion | None:
        return self._champion


def make_champion(store: Store) -> ModelVersion:
    return ModelVersion("mill", 1, make_model(store, 1), "", "", "2026-01-05", "promote", {}, ("champion",))


def make_run(
    store: Store, as_of: str, documents: dict[str, int], rows: list[LedgerRow] | None = None, partial: bool = False
) -> None:
    """The record of a run whose sources gave so many documents."""
    scrapes = {}
    for source in documents:
        scrapes[source] = snapshot_id("scrape", 1, inputs=[source], settings={}, as_of=as_of)
        with store.write(scrapes[source], stage="scrape", version=1, parents=[], settings={}) as writer:
            write_ledger(writer.path(LEDGER_FILE), rows or [])
            writer.add(LEDGER_FILE, "ledger", len(rows or []))
            writer.partial = partial
    strip = snapshot_id("strip", 1, inputs=[], settings={}, as_of=as_of)
    with store.write(strip, stage="strip", version=1, parents=list(scrapes.values()), settings={}) as writer:
        writer.totals = {"sources": documents}
    store.record_run("mill", as_of, {"scrape": scrapes, "strip": strip})


def examined(
    store: Store, champion: ModelVersion | None = None, *, days: float = 0, now: datetime = NOW
) -> dict[tuple[str, str], str]:
    findings = health.examine(store, RegistryWithChampion(store, champion), "mill", max_age_days=days, now=now)
    return {(finding.what, finding.state): finding.detail for finding in findings}


def test_a_new_corpus_is_well(store: Store) -> None:
    findings = examined(store)
    assert {state for _, state in findings} == {"well", "note"}
    assert findings["runs", "note"] == "there has been no run yet"
    assert findings["registry", "note"] == "mill has no champion yet"


def test_all_is_well(store: Store) -> None:
    make_run(store, "2026-01-12", {"site": 40})
    make_run(store, "2026-01-19", {"site": 35})
    findings = examined(store, make_champion(store))
    assert {state for _, state in findings} == {"well"}
    assert findings["runs", "well"] == "the newest is of 2026-01-19, 1.5 days ago"
    assert {"store", "room", "sources", "registry", "champion"} <= {what for what, _ in findings}


def test_a_champion_grows_old(store: Store) -> None:
    champion = make_champion(store)
    later = datetime.now(UTC) + timedelta(days=10)
    assert ("champion", "retrain") not in examined(store, champion, days=0, now=later)
    assert ("champion", "retrain") not in examined(store, champion, days=11, now=later)
    assert "mill/1 was trained 10.0 days ago, the limit is 9" in examined(store, champion, days=9, now=later).values()


@pytest.mark.parametrize("harm", ["changed", "cut", "missing file", "missing snapshot"])
def test_a_damaged_champion_calls_for_a_person(store: Store, harm: str) -> None:
    champion = make_champion(store)
    weights = store.local(f"{champion.snapshot}/model/model.safetensors")
    content = weights.read_bytes()
    if harm == "changed":
        weights.write_bytes(content[:500] + b"?" + content[501:])
    elif harm == "cut":
        weights.write_bytes(content[:-1])
    elif harm == "missing file":
        weights.unlink()
    else:
        shutil.rmtree(store.local(champion.snapshot))
    detail = examined(store, champion)["champion", "act"]
    assert detail.startswith(f"mill/1: {champion.snapshot}")
    assert detail.endswith("restore it from a backup, or go back with `prosemill roll-back mill`")


def test_a_source_whose_yield_collapsed_calls_for_a_person(store: Store) -> None:
    make_run(store, "2026-01-12", {"small": 9, "steady": 40, "ill": 40, "left-out": 40})
    make_run(store, "2026-01-19", {"small": 1, "steady": 20, "ill": 19})
    findings = examined(store)
    assert [what for what, state in findings if state == "act"] == ["source ill"]
    assert findings["source ill", "act"].startswith("gave 19 documents, 40 the time before; look at")


def test_a_source_that_was_not_read_to_its_end_is_noted(store: Store) -> None:
    rows = [LedgerRow(f"https://mill.example/{n}", "site", "failed", "timeout") for n in range(3)]
    rows += [
        LedgerRow("https://mill.example/old", "site", "unchanged", "host_down"),
        LedgerRow("https://mill.example/", "site"),
    ]
    make_run(store, "2026-01-19", {"site": 5}, rows, partial=True)
    assert examined(store)["source site", "note"] == "was not read to its end: 3 timeout, 1 host_down"


def test_a_store_that_cannot_be_written_hides_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = Store(str(tmp_path / "file"))
    findings = examined(store)
    assert "cannot write to the store" in findings["store", "act"]
    assert ("registry", "note") in findings


def test_a_registry_that_does_not_answer_calls_for_a_person(store: Store) -> None:
    class Silent(Registry):
        def champion(self, name: str) -> ModelVersion | None:
            raise RegistryError("http://127.0.0.1:9: MLflow says: connection refused")

    findings = health.examine(store, Silent(store, tracker_of(store)), "mill", max_age_days=0, now=NOW)
    (finding,) = [candidate for candidate in findings if candidate.state == "act"]
    assert (finding.what, finding.detail) == ("registry", "http://127.0.0.1:9: MLflow says: connection refused")


def test_too_little_room_for_one_more_model_calls_for_a_person(store: Store) -> None:
    champion = make_champion(store)
    manifest = store.local(f"{champion.snapshot}/manifest.json")
    size = store.local(f"{champion.snapshot}/model/model.safetensors").stat().st_size
    text = manifest.read_text()
    assert f'"size_bytes": {size}' in text
    manifest.write_text(text.replace(f'"size_bytes": {size}', f'"size_bytes": {10**18}'))  # no disk is so large
    assert "free some space" in examined(store, champion)["room", "act"]


# --- the flow --------------------------------------------------------------------------------------------------------


def test_the_flow_shows_a_table_tells_of_age_and_fails_on_damage(
    store: Store,
    client: Any,  # noqa: F811
) -> None:
    from flows.check_health import check_health
    from tasks.support import events

    recipe = recipe_for(Path(store.root)).model_copy(update={"name": f"well-{uuid4().hex[:8]}"})
    resource = f"prosemill.model.{recipe.name}"
    champion = register(store, recipe.name, make_model(store, 1))

    rows = check_health(recipe, store=store.url)
    assert {row["what"] for row in rows if row["state"] == "well"} == {"store", "registry", "champion", "room"}
    assert {row["what"] for row in rows if row["state"] != "well"} == {"runs"}
    assert f"{recipe.name}-health" in {artifact.key for artifact in client.read_artifacts(limit=200)}

    check_health(recipe, max_age_days=1e-6, store=store.url)
    (unwell,) = heard(client, events.MODEL_UNWELL, resource, 1)
    assert unwell.payload["reason"].startswith(f"{recipe.name}/{champion.version} was trained 0.0 days ago")

    with open(store.local(f"{champion.snapshot}/model/model.safetensors"), "r+b") as weights:
        weights.write(b"broken")
    with pytest.raises(
        ModelUnhealthy, match=rf"{recipe.name}: champion: .*model.safetensors is not as it was written; restore"
    ):
        check_health(recipe, store=store.url)
    assert len(heard(client, events.MODEL_UNWELL, resource, 2)) == 2
