"""A store that an older version of prosemill left is read, traced, added to and rolled back by this one.

`fixtures/old_store.tar.xz` (made by `make_old_store`): two runs of a folder of pages, two models, both promoted.
"""

import contextlib
import hashlib
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run
from prosemill.config.recipe import load_recipe
from prosemill.lineage.explain import explain
from prosemill.lineage.page_history import why
from prosemill.lineage.tracing import Tracer
from prosemill.registry.registry import Registry
from prosemill.storage.corpus import documents_of
from prosemill.storage.store import Store

FIXTURE = Path(__file__).with_name("fixtures") / "old_store.tar.xz"
PLACE = "/srv/prosemill"  # where the store stood when it was made
FIRST, SECOND, THIRD = "2026-01-05", "2026-01-12", "2026-01-19"
CHANGED, GONE = "folder://texts/page-001.txt", "folder://texts/page-002.txt"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe, its pages, its base and the store as if the older version had made them in this place."""
    home = tmp_path_factory.mktemp("old")
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(home, filter="data")
    with contextlib.closing(sqlite3.connect(home / "store" / "mlflow.db")) as database, database:
        places = {"experiments": ["artifact_location"], "runs": ["artifact_uri"]}
        places["model_versions"] = ["source", "storage_location"]
        for table, columns in places.items():
            for column in columns:
                database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (PLACE, str(home)))
    for manifest in home.glob("store/snapshots/finetune-*/manifest.json"):  # of the settings, the folder of the base
        manifest.write_text(manifest.read_text("utf-8").replace(f'"{PLACE}/', f'"{home}/'), "utf-8")
    return home


@pytest.fixture(scope="module")
def store(home: Path) -> Iterator[Store]:
    """The store; in the end every file of every old snapshot and record of a run is what it was."""
    before = digests(home / "store")
    assert sum(path.endswith("manifest.json") for path in before) == 18
    yield Store(str(home / "store"))
    after = digests(home / "store")
    assert {path for path, digest in before.items() if after.get(path) != digest} == set()


def digests(store: Path) -> dict[str, str]:
    folders = [store / name for name in ("snapshots", "runs", "openlineage")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def retrain(home: Path, as_of: str) -> dict[str, Any]:
    from flows.retrain import retrain

    report: dict[str, Any] = retrain(load_recipe(home / "stories.toml"), as_of=as_of, store=str(home / "store"))
    return report


def test_its_models_and_their_texts_are_read(store: Store) -> None:
    models = Registry.open(store.url)
    assert [version.version for version in models.list_versions("stories")] == [2, 1]
    champion, previous = models.champion("stories"), models.previous("stories")
    assert champion is not None
    assert previous is not None
    records = store.runs("stories")
    assert (previous.snapshot, champion.snapshot) == (records[FIRST]["finetune"], records[SECOND]["finetune"])
    assert sorted(records) == [FIRST, SECOND]
    for as_of in records:
        read = [
            document["url"]
            for part in ("train", "validation", "test")
            for document in documents_of(store, records[as_of]["dedup"], records[as_of]["split"], part)
        ]
        assert len(read) == {FIRST: 36, SECOND: 46}[as_of]
        assert GONE in read, "a page that is gone is kept"


def test_its_pages_and_models_are_traced(store: Store) -> None:
    tracer, record = Tracer(store), store.runs("stories")[SECOND]
    document = next(iter(documents_of(store, record["dedup"], record["split"], "train")))
    (page,) = tracer.trace(document["url"])
    assert document["id"] in {step.name for step in page.leads_to}
    (sentence, *_) = tracer.trace(document["text"].split(".")[0])
    assert sentence.facts["closest"] == document["url"]
    (model,) = tracer.trace(record["finetune"])
    stages = []
    while model.leads_to:
        model = model.leads_to[0]
        stages.append(model.name.rsplit("-", 1)[0])
    assert stages[:4] == ["chunk", "dedup", "strip", "scrape"]


def test_its_runs_are_explained(store: Store) -> None:
    explanation = explain(store, f"stories {SECOND}").as_dict()
    stages = {stage["stage"] for stage in explanation["stages"]}
    assert {"scrape texts", "strip", "dedup", "split", "chunk", "finetune", "evaluate", "gate"} <= stages


def test_its_pages_have_a_history(store: Store) -> None:
    (history,) = why(store, CHANGED)
    assert [step.stage for step in history.steps][:3] == ["scrape", "strip", "dedup"]
    (history,) = why(store, GONE)
    assert "gone" in str(history.as_dict()["steps"])


def test_the_commands_show_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:

    for command in (
        ["models", "stories"],
        ["decision", "stories"],
        ["card", "stories"],
        ["trace", CHANGED],
        ["why", CHANGED],
        ["explain", "stories", SECOND],
        ["diff", *(store.runs("stories")[as_of]["dedup"] for as_of in (FIRST, SECOND))],
        ["write", "stories", "The miller", "--max-new-tokens", "4"],
    ):
        assert run([*command, "--store", store.url]) == 0, (command, capsys.readouterr().err)
        assert capsys.readouterr().out.strip()


def test_its_runs_go_on(home: Path, store: Store, prefect_api: str) -> None:
    """The same date has nothing new; a later one with new pages trains, is judged, and can be rolled back."""
    old = store.runs("stories")[SECOND]
    again = retrain(home, SECOND)
    assert again["decision"] == "nothing-new", again["reason"]
    assert store.runs("stories")[SECOND]["scrape"] == old["scrape"]
    assert [version.version for version in Registry.open(store.url).list_versions("stories")] == [2, 1]

    shutil.copytree(home / "later", home / "texts", dirs_exist_ok=True)
    later = retrain(home, THIRD)
    assert later["decision"] in ("promote", "reject", "not-enough-evidence"), later["reason"]
    assert later["perplexity"]["champion"] is not None
    assert later["funnel"][0]["seen"] == 57
    manifest = store.manifest(store.runs("stories")[THIRD]["chunk"])
    assert manifest.as_of == THIRD
    models = Registry.open(store.url)
    assert [version.version for version in models.list_versions("stories")] == [3, 2, 1]

    previous = models.previous("stories")
    assert previous is not None
    assert run(["roll-back", "stories", "--store", store.url]) == 0
    back = Registry.open(store.url).champion("stories")
    assert back is not None
    assert back.snapshot == previous.snapshot
