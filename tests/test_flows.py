"""The whole of `retrain` on a small real corpus: a folder of texts, a two-layer GPT-2, a real Prefect server."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from prosemill.config.recipe import parse_recipe
from prosemill.config.settings import Recipe
from prosemill.errors import RecipeError, SnapshotMissing
from prosemill.lineage.diff import diff
from prosemill.lineage.tracing import Tracer
from prosemill.registry.registry import Registry
from prosemill.storage import run_log, stages
from prosemill.storage.ancestry import ancestors
from prosemill.storage.corpus import documents_of
from prosemill.storage.manifest import stage_of
from prosemill.storage.store import Store
from tests.serving import ROOT
from tests.stories import write_corpus
from tests.tiny import make_base

pytestmark = [pytest.mark.usefixtures("prefect_api"), pytest.mark.timeout(600)]  # three runs for all of them


def recipe_for(folder: Path, **finetune: Any) -> Recipe:
    fields = {
        "name": "stories",
        "sources": [{"name": "texts", "kind": "folder", "path": "texts"}],
        "dedup": {"boilerplate_pages": 1000},
        "split": {"test_share": 0.2, "validation_share": 0.1},
        "chunk": {"chunk_tokens": 64},
        "finetune": {"base": "base", "epochs": 4, "learning_rate": 3e-3, "evals": 2, "precision": "fp32", **finetune},
        "evaluate": {"stride": 32, "sample_tokens": 8, "other_kilobytes": 2},
        "gate": {"known_margin": 0},
        "strip": {"languages": ["*"]},
    }  # fmt: skip
    return parse_recipe(fields, where="stories.toml", folder=folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stories")
    make_base(folder / "base")
    write_corpus(folder / "texts", range(40))
    return folder


def run(home: Path, as_of: str, recipe: Recipe | None = None) -> dict[str, Any]:
    from flows.retrain import retrain

    report: dict[str, Any] = retrain(recipe or recipe_for(home), as_of=as_of, store=str(home / "store"))
    return report


@dataclass(frozen=True)
class Life:
    """Three runs of `retrain`: with forty texts, with the same again, with twelve more; `home` as they left it."""

    home: Path
    first: dict[str, Any]
    again: dict[str, Any]
    second: dict[str, Any]
    first_snapshots: list[str]  # in the store after the second run
    first_champion: str

    @property
    def store(self) -> Store:
        return Store(str(self.home / "store"))


@pytest.fixture(scope="module")
def life(home: Path, prefect_api: str) -> Life:
    store = Store(str(home / "store"))
    first = run(home, "2026-01-05")
    champion = Registry.open(store.url).champion("stories")
    again = run(home, "2026-01-05")
    snapshots = store.snapshots()
    write_corpus(home / "texts", range(40, 52))
    second = run(home, "2026-01-12")
    return Life(home, first, again, second, snapshots, champion.snapshot if champion else "")


def test_three_weeks_of_a_models_life(life: Life) -> None:
    first, again, second, store = life.first, life.again, life.second, life.store
    assert first["decision"] == "promote", first["reason"]
    assert first["perplexity"]["challenger"] < 0.75 * first["perplexity"]["base"]
    assert first["perplexity"]["champion"] is None
    assert first["funnel"][0]["seen"] == 40
    assert set(first["snapshots"]) == {"scrape", "strip", "dedup", "split", "chunk", "finetune", "evaluate", "gate"}
    assert life.first_champion == first["snapshots"]["finetune"]

    assert again["decision"] == "nothing-new"
    assert "no new training document" in again["reason"]
    assert again["model"] == first["model"]
    assert again["perplexity"]["champion"] == first["perplexity"]["challenger"], "what was the challenger is in use now"
    assert again["perplexity"]["challenger"] is None
    assert set(life.first_snapshots) == _all_ids(store, first)

    assert second["decision"] in ("promote", "reject", "not-enough-evidence")
    assert second["perplexity"]["champion"] is not None
    assert second["funnel"][0]["seen"] == 52
    new = store.manifest(second["snapshots"]["chunk"])
    old = store.manifest(first["snapshots"]["chunk"])
    assert {shard.path for shard in old.shards_of("train")} < {shard.path for shard in new.shards_of("train")}
    json.dumps(second)


def test_snapshots_are_as_the_table_of_stages_has_them(life: Life) -> None:
    store = life.store
    seen = set[str]()
    for manifest in map(store.manifest, store.snapshots()):
        stage = stages.of(manifest.stage)
        assert manifest.stage_version == stage.version
        assert {stage_of(parent) for parent in manifest.parents} <= set(stage.parents)
        assert set(stage.figures) & manifest.totals.keys()
        for shard in manifest.shards:
            columns = stage.roles[shard.role]
            if isinstance(columns, pa.Schema):
                assert pq.read_schema(store.local(shard.path)).equals(columns), shard
        seen.add(stage.name)
    assert seen == {stage.name for stage in stages.STAGES.values() if stage.makes_snapshots}


def _all_ids(store: Store, report: dict[str, Any]) -> set[str]:
    """Every snapshot that a run's report leads to."""
    starts = [
        id for value in report["snapshots"].values() for id in (value.values() if isinstance(value, dict) else [value])
    ]
    return {manifest.id for manifest in ancestors(store, starts)}


LOOKS = """
import atexit, os, sys
@atexit.register
def tell():
    heavy = sorted({"torch", "transformers"} & sys.modules.keys())
    with open(os.path.join(os.environ["LOOK_INTO"], str(os.getpid())), "w") as file:
        file.write(" ".join([*sys.argv[:1], *heavy]))
"""
BUILD = """
import sys
from pathlib import Path
from prosemill.config import environment
environment.prepare(sys.argv[1])
from flows.build_corpus import build_corpus
from prosemill.config.settings import Recipe
build_corpus(Recipe.model_validate_json(Path(sys.argv[2]).read_text()), as_of="2026-01-13", store=sys.argv[1])
"""


def test_the_corpus_half_runs_no_model(life: Life, tmp_path: Path) -> None:
    """With a champion and new documents, of which it could ask whether the champion knows them."""
    store = tmp_path / "store"
    shutil.copytree(life.home / "store", store)
    texts = tmp_path / "texts"
    shutil.copytree(life.home / "texts", texts)
    write_corpus(texts, range(60, 72))
    asking = recipe_for(life.home)
    asking = asking.model_copy(update={"sources": [asking.sources[0].model_copy(update={"path": str(texts)})]})
    asking = asking.model_copy(update={"gate": asking.gate.model_copy(update={"known_margin": 0.05})})
    (tmp_path / "recipe.json").write_text(asking.model_dump_json())
    (tmp_path / "sitecustomize.py").write_text(LOOKS)
    looks = tmp_path / "looks"
    looks.mkdir()
    subprocess.run(
        [sys.executable, "-c", BUILD, str(store), str(tmp_path / "recipe.json")], check=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "LOOK_INTO": str(looks)},
    )  # fmt: skip
    lines = [path.read_text() for path in looks.iterdir()]
    assert [line for line in lines if "torch" in line or "transformers" in line] == []
    assert any(line.split()[0] == "-c" for line in lines), "the process of the flow told, too"
    run = Store(str(store)).runs("stories")["2026-01-13"]
    assert run["chunk"] != Store(str(store)).runs("stories")["2026-01-12"]["chunk"], "there was something new"


def test_the_runs_page_has_its_artifacts(life: Life) -> None:
    kinds = ("funnel", "ledger", "lineage", "report", "scores", "samples", "decision")
    wanted = {f"stories-{kind}" for kind in kinds}
    runs = [UUID(log.id) for log in run_log.read_all(life.store)]
    of_these = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=runs))  # the server has other tests' too
    with get_client(sync_client=True) as client:
        keys = {artifact.key for artifact in client.read_artifacts(artifact_filter=of_these, limit=200)}
    assert wanted <= keys


def training_document(life: Life) -> dict[str, Any]:
    record = life.store.runs("stories")["2026-01-12"]
    return next(documents_of(life.store, record["dedup"], record["split"], "train"))


def test_a_sentence_leads_to_its_page_and_the_models_that_saw_it(life: Life) -> None:
    document = training_document(life)
    sentence = document["text"].split(".")[0]

    (first, *_) = Tracer(life.store).trace(sentence)

    assert first.facts["closest"] == document["url"]
    (page,) = first.leads_to
    assert page.facts["shared_runs"] == 1.0
    (document_step,) = page.leads_to
    assert document_step.name == document["id"]
    champion = Registry.open(life.store.url).champion("stories")
    assert champion is not None
    assert champion.snapshot in document_step.leads_to[0].facts["models"]


def test_a_page_leads_to_all_that_came_of_it(life: Life) -> None:
    tracer, document = Tracer(life.store), training_document(life)

    (page,) = tracer.trace(document["url"])
    (document_step,) = page.leads_to
    chunk = document_step.leads_to[0].name

    assert page.facts["state"] in ("fetched", "unchanged")
    assert (document_step.name, document_step.facts["split"]) == (document["id"], "train")
    (traced,) = tracer.trace(chunk)
    assert document["id"] in {step.name for step in traced.leads_to}
    (by_id,) = tracer.trace(document["id"])
    assert by_id.as_dict() == document_step.as_dict()


def test_a_model_leads_back_to_the_scrape(life: Life) -> None:
    (model,) = Tracer(life.store).trace(life.second["snapshots"]["finetune"])
    stages = []
    step = model
    while step.leads_to:
        step = step.leads_to[0]
        stages.append(step.name.rsplit("-", 1)[0])
    assert stages[:4] == ["chunk", "dedup", "strip", "scrape"]


def test_what_is_nowhere_is_refused_in_one_line(life: Life) -> None:
    with pytest.raises(RecipeError, match=r"nothing in .* answers to it"):
        Tracer(life.store).trace("https://nowhere.example/")


def test_a_diff_names_what_came(life: Life) -> None:
    store = life.store
    runs = store.runs("stories")
    assert set(runs) == {"2026-01-05", "2026-01-12"}
    changes = diff(store, runs["2026-01-05"]["dedup"], runs["2026-01-12"]["dedup"])
    assert changes["added"]["number"] == 12
    assert changes["removed"]["number"] == 0
    assert changes["settings"] == {}
    assert diff(store, runs["2026-01-05"]["dedup"], runs["2026-01-05"]["dedup"])["added"]["number"] == 0
    with pytest.raises(RecipeError, match="compare two of one stage"):
        diff(store, runs["2026-01-05"]["dedup"], runs["2026-01-05"]["split"])


def test_a_deleted_snapshot_behind_a_cached_result_is_named(life: Life) -> None:
    split = life.second["snapshots"]["split"]
    run(life.home, "2026-01-12")
    shutil.rmtree(life.store.local(split))  # of the last test that looks at it

    with pytest.raises(SnapshotMissing, match=f"{split}; rebuild it with `prosemill retrain"):
        run(life.home, "2026-01-12")
