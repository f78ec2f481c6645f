"""The registry has a tracker: MLflow, or any other that does what `registry.tracker.Tracker` says."""

from pathlib import Path

import pytest

from prosemill.errors import RegistryError
from prosemill.registry.live_metrics import LiveCurves
from prosemill.registry.mlflow_tracker import MlflowTracker
from prosemill.registry.registry import Registry
from prosemill.registry.tracker import Metric, Tracker
from prosemill.storage.store import Store
from tests.json_tracker import JsonTracker
from tests.test_registry import snapshots_of

ROOT = Path(__file__).parent.parent
TRACKERS = {"mlflow": "", "json": "tests.json_tracker:JsonTracker"}


@pytest.fixture(params=TRACKERS)
def registry(request: pytest.FixtureRequest, store: Store, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("PROSEMILL_TRACKER", TRACKERS[request.param])
    return Registry.open(store)


def test_a_models_life_is_the_same_with_each(store: Store, registry: Registry) -> None:
    first, second = snapshots_of(store, 1), snapshots_of(store, 2)
    assert (registry.list_models(), registry.champion("house"), registry.resolve_or_none("house")) == ([], None, None)
    curves = LiveCurves(registry, "house", "house 2026-01-02 training", "flow-run-1")
    curves.log([(1000, {"step": 1, "loss": 4.5}), (2000, {"step": 2, "loss": 3.8})])
    curves.end(first[0])
    assert registry.record("house", *first) == 1
    assert registry.record("house", *first) == 1
    registry.promote("house", first[0])
    assert registry.record("house", *second) == 2
    registry.mark("house", second[0], {"approval": "approved by ada"})
    assert registry.promote("house", second[0])
    assert not registry.promote("house", second[0])
    facts = [
        (version.version, version.snapshot, version.aliases, version.approval)
        for version in registry.list_versions("house")
    ]
    assert facts == [(2, second[0], ("challenger", "champion"), "approved by ada"), (1, first[0], ("previous",), "")]
    assert registry.roll_back("house").version == 1
    assert registry.resolve("house") == registry.resolve("house/1") == first[0]
    assert Registry.open(store.url).champion("house") == registry.champion("house"), "as another process sees it"
    tracker = registry.tracker
    assert tracker.find_run("house", "snapshot", first[0]) == curves.run, "it goes on with the run of the training"
    assert tracker.steps(curves.run, ["loss"]) == {("loss", step) for step in range(1, 6)}


def test_runs_keep_points_and_files_with_each(registry: Registry) -> None:
    tracker = registry.tracker
    run = tracker.open_run("house", "a run", {"flow_run": "1"})
    assert tracker.find_run("house", "flow_run", "1") == run
    assert tracker.find_run("house", "flow_run", "2") == tracker.find_run("barn", "flow_run", "1") == ""
    assert tracker.steps(run, ["loss"]) == set()
    tracker.add_metrics(run, [Metric("loss", 1.0, 1000, 3), Metric("speed", 2.0, 1000, 3)])
    assert tracker.steps(run, ["loss"]) == {("loss", 3)}
    tracker.add_file(run, "README.md", "first")
    tracker.add_file(run, "README.md", "second")
    tracker.close_run(run, "FAILED", {"snapshot": "none"})
    assert tracker.find_run("house", "snapshot", "none") == run


def test_both_are_trackers(store: Store) -> None:
    kinds: list[type[MlflowTracker | JsonTracker]] = [MlflowTracker, JsonTracker]
    trackers: list[Tracker] = [kind(store) for kind in kinds]  # the type checker's word for it
    names = {name for name in vars(Tracker) if not name.startswith("_")}
    assert [names - set(dir(tracker)) for tracker in trackers] == [set(), set()]


def test_a_tracker_that_is_not_there_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROSEMILL_TRACKER", "tests.json_tracker:Nobody")
    with pytest.raises(RegistryError, match=r"PROSEMILL_TRACKER = 'tests\.json_tracker:Nobody': cannot be imported"):
        Registry.open(store)


def test_nothing_outside_the_tracker_imports_mlflow_for_the_registry() -> None:
    users = [
        path.name
        for path in (ROOT / "prosemill" / "registry").glob("*.py")
        if any(
            line.split()[:2] in (["from", "mlflow"], ["import", "mlflow"]) or "from mlflow." in line
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]
    assert sorted(users) == ["compat.py", "mlflow_database.py", "mlflow_tracker.py"]
