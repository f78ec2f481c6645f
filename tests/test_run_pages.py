"""What a run leaves to be seen: name, log, artifacts with plots and links, the page of its corpus, a small graph."""

import base64
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.states import Cancelling, Crashed

from prosemill import scrape
from prosemill.errors import SourceError, TrainingError
from prosemill.registry.mlflow_tracker import MlflowTracker
from prosemill.registry.registry import Registry
from prosemill.reporting import overview, plots
from prosemill.reporting.pages import plain
from prosemill.storage import run_log
from prosemill.storage.run_log import RunLog
from prosemill.storage.store import Store
from tasks.support.live import described
from tests.shards import shatter
from tests.stories import write_corpus
from tests.test_flows import recipe_for, run
from tests.tiny import make_base, sentences

pytestmark = pytest.mark.usefixtures("prefect_api")

MOST_CHARACTERS = 100_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one whole run of `retrain` in it."""
    folder = tmp_path_factory.mktemp("seeing")
    make_base(folder / "base")
    write_corpus(folder / "texts", range(40))
    logging.getLogger("prosemill").handlers.clear()  # as in a process whose worker was not told of our loggers
    run(folder, "2026-01-05", recipe_for(folder).model_copy(update={"name": "seen", "description": "*Stories* <b>"}))
    return folder


def logs_of(home: Path) -> dict[str, RunLog]:
    """The newest run of each flow."""
    return {log.flow: log for log in reversed(run_log.read_all(Store(str(home / "store"))))}


def artifacts_of(id: str) -> dict[str, str]:
    """Text of the artifacts of a run, by key."""
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[id]))
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(artifact_filter=wanted, limit=200)
    return {artifact.key: str(artifact.data) for artifact in artifacts if artifact.key}


def test_names_and_logs_say_what_ran(home: Path) -> None:
    logs = logs_of(home)
    names = {flow: log.name for flow, log in logs.items()}
    assert names == {
        "retrain": "seen 2026-01-05",
        "build-corpus": "seen 2026-01-05 corpus",
        "train-model": "seen 2026-01-05 training",
    }
    whole = logs["retrain"]
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(whole.id).name == "seen 2026-01-05"
    assert (whole.state, whole.decision, whole.model) == ("COMPLETED", "promote", "seen/1")
    assert whole.started < whole.ended
    assert set(whole.children) == {logs["build-corpus"].id, logs["train-model"].id}
    stages = ["scrape", "strip", "dedup", "split", "chunk", "finetune", "evaluate", "gate"]
    assert [(stage.stage, stage.cache) for stage in whole.stages] == [(stage, "miss") for stage in stages]


def test_every_run_has_its_artifacts_and_they_are_small(home: Path) -> None:
    logs = logs_of(home)
    keys = {flow: set(artifacts_of(log.id)) for flow, log in logs.items()}
    assert {"seen-funnel", "seen-ledger", "seen-lineage"} <= keys["build-corpus"]
    assert {"seen-scores", "seen-plots", "seen-samples", "seen-decision", "seen-lineage"} <= keys["train-model"]
    assert {"seen", "seen-report", "seen-lineage"} <= keys["retrain"]
    assert "seen" not in keys["build-corpus"] | keys["train-model"], "the run that started them writes the page"
    for log in logs.values():
        for key, text in artifacts_of(log.id).items():
            assert len(text) < MOST_CHARACTERS, f"{key} holds {len(text):,} characters"


def test_a_training_is_followed_while_it_goes_on(home: Path) -> None:
    log = logs_of(home)["train-model"]
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[log.id]))
    with get_client(sync_client=True) as client:
        (artifact,) = [
            candidate for candidate in client.read_artifacts(artifact_filter=wanted) if candidate.key == "seen-training"
        ]
    assert (artifact.type, artifact.data) == ("progress", 100)
    assert artifact.task_run_id is not None
    assert re.fullmatch(
        r"step (\d+) of \1 · loss .+ · validation loss .+ tokens/s · MFU \d+% · over", artifact.description
    )

    registry = Registry.open(Store(str(home / "store")).url)
    champion = registry.champion("seen")
    assert champion is not None
    tracker = registry.tracker
    assert isinstance(tracker, MlflowTracker)
    client = tracker.client()
    run = client.get_run(client.get_model_version("seen", "1").run_id)
    assert run.info.status == "FINISHED"
    assert tracker.find_run("seen", "snapshot", champion.snapshot) == run.info.run_id
    assert len(client.search_runs([run.info.experiment_id])) == 1, "the run that followed the training"
    for curve in ("loss", "learning_rate", "tokens_per_second"):
        points = client.get_metric_history(run.info.run_id, curve)
        assert len({point.step for point in points}) == len(points) > 3
        assert all(point.timestamp for point in points), "put there when it happened, not afterwards"
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(run.data.metrics)


def test_the_end_of_a_training_is_foretold() -> None:
    now = datetime(2026, 1, 5, 22, 50, tzinfo=UTC)
    progress = {"step": 1200, "steps": 4800, "loss": 3.21, "tokens_per_second": 8123.4, "utilisation": 0.137}
    assert described({**progress, "seconds_left": 900.4}, now, is_over=False) == (
        "step 1,200 of 4,800 · loss 3.210 · 8,123 tokens/s · MFU 14% · ends about 23:05 UTC, in 0:15:00"
    )


def test_plots_are_pictures_inside_the_page(home: Path) -> None:
    logs = logs_of(home)
    train, whole = artifacts_of(logs["train-model"].id), artifacts_of(logs["retrain"].id)
    drawn = [svg for text in (train["seen-plots"], train["seen-decision"], whole["seen"]) for svg in pictures(text)]
    assert len(drawn) == 5
    for svg in drawn:
        assert svg.startswith("<?xml")
        assert "<text" in svg, "letters stay letters"
    assert ">validation<" in pictures(train["seen-plots"])[0]
    assert ">challenger<" in pictures(train["seen-plots"])[1]


def pictures(text: str) -> list[str]:
    pictures = re.findall(r"!\[[^\]]+\]\(data:image/svg\+xml;base64,([^)]+)\)", text)
    return [base64.b64decode(picture).decode() for picture in pictures]


def test_the_page_of_a_corpus_leads_everywhere(home: Path) -> None:
    whole = logs_of(home)["retrain"]
    text = artifacts_of(whole.id)["seen"]
    assert f"[retrain seen 2026\\-01\\-05](/v2/runs/flow-run/{whole.id})" in text
    for kind in ("report", "funnel", "ledger", "scores", "plots", "samples", "decision", "lineage"):
        assert f"[{kind}](/v2/artifacts/key/seen-{kind})" in text
    assert "**seen/1**" in text
    assert "challenger, champion" in text
    assert "`prosemill write seen" in text, "the next step"
    assert "| 40 | 40 |" in text, "documents, new ones"
    assert r"\*Stories\* \<b\>" in text, "what a recipe says of itself is not Markdown"


def test_lineage_has_links_to_the_runs_that_made_it(home: Path) -> None:
    logs = logs_of(home)
    text = artifacts_of(logs["retrain"].id)["seen-lineage"]
    for stage in logs["retrain"].stages:
        assert f"`{stage.snapshot}`" in text
    for flow in ("build-corpus", "train-model"):
        assert f'click n0 "/v2/runs/flow-run/{logs["train-model"].id}"' in text
        assert f"](/v2/runs/flow-run/{logs[flow].id})" in text
    assert "folder texts" in text


def test_the_cores_log_reaches_the_runs_page_whatever_the_worker_was_told(home: Path) -> None:
    logs = logs_of(home)
    stages = "\n".join(lines_of(logs["build-corpus"].id, lambda lines: any("chunk:" in line for line in lines)))
    for stage in ("scrape texts: 40 of 40 kept", "strip: 40 of 40 kept", "chunk: 32 of 40 kept (8 test), made in"):
        assert stage in stages
    training = lines_of(logs["train-model"].id, lambda lines: any("gate:" in line for line in lines))
    assert any(re.match(r"finetune: step \d+/\d+ loss \d", line) for line in training), "what a stage itself says"


def lines_of(id: str, enough: Callable[[list[str]], bool]) -> list[str]:
    """The lines on a run's page; they are sent every two seconds or so."""
    deadline = time.monotonic() + 60
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[id]))
    while True:
        with get_client(sync_client=True) as client:
            lines = [entry.message for entry in client.read_logs(wanted, limit=200)]
        if enough(lines) or time.monotonic() > deadline:
            return lines
        time.sleep(1)


def test_a_run_that_fails_shows_what_it_reached(home: Path) -> None:
    from flows.build_corpus import build_corpus

    recipe = recipe_for(home).model_copy(update={"name": "broken"})
    lost = recipe.sources[0].model_copy(update={"path": str(home / "nowhere")})
    with pytest.raises(SourceError, match="no such file or folder"):
        build_corpus(recipe.model_copy(update={"sources": [lost]}), as_of="2026-01-05", store=str(home / "store"))

    (failed,) = run_log.read_all(Store(str(home / "store")), "broken")
    assert (failed.state, failed.stages) == ("FAILED", ())
    assert failed.reason.startswith("source texts: ")
    artifacts = artifacts_of(failed.id)
    assert "## failed" in artifacts["broken-report"]
    assert plain(failed.reason) in artifacts["broken-report"]
    assert "No stage was complete." in artifacts["broken-report"]
    assert "start it again" in artifacts["broken"], "the page of the corpus says what to do"


def test_a_run_that_was_killed_is_told_of_by_its_worker(home: Path) -> None:
    from flows.build_corpus import build_corpus
    from tasks.support import reporting

    recipe = recipe_for(home).model_copy(update={"name": "killed"})
    build_corpus(recipe, as_of="2026-01-05", store=str(home / "store"))
    store = Store(str(home / "store"))
    (whole,) = run_log.read_all(store, "killed")
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(whole.id)

    reporting.ended(build_corpus, run, Crashed(message="Process exited due to a SIGKILL signal."))  # outside of any run

    (log,) = run_log.read_all(store, "killed")
    assert (log.state, log.stages) == ("CRASHED", whole.stages)
    artifacts = artifacts_of(log.id)
    assert "## crashed" in artifacts["killed-report"]
    assert "| scrape texts | 40 | 40 |" in artifacts["killed-report"]
    assert f"(/v2/runs/flow-run/{log.id})" in artifacts["killed"]

    reporting.ended(build_corpus, run, Cancelling())
    assert run_log.read_all(store, "killed")[0].state == "CANCELLED"


def test_a_run_that_fails_in_training_shows_its_corpus(home: Path) -> None:
    from flows.retrain import retrain

    recipe = recipe_for(home, max_steps=1, max_hours=1e-9).model_copy(update={"name": "halfway"})
    with pytest.raises(TrainingError, match="max_hours"):
        retrain(recipe, as_of="2026-01-05", store=str(home / "store"))

    failed = next(log for log in run_log.read_all(Store(str(home / "store")), "halfway") if log.flow == "retrain")
    assert failed.state == "FAILED"
    assert [stage.stage for stage in failed.stages] == ["scrape", "strip", "dedup", "split", "chunk"]
    report = artifacts_of(failed.id)["halfway-report"]
    assert "max\\_hours" in report
    assert "| scrape texts | 40 | 40 |" in report
    assert "(/v2/artifacts/key/halfway)" in report


@pytest.mark.slow
def test_the_graph_of_two_hundred_shards_can_be_read(home: Path, tmp_path: Path) -> None:
    from flows.build_corpus import build_corpus

    (home / "many").mkdir()
    source = sentences(1000, seed=7)
    for number in range(200):
        (home / "many" / f"{number:03}.txt").write_text(" ".join(source[number * 5 : number * 5 + 5]))
    recipe = recipe_for(home)
    many = recipe.sources[0].model_copy(update={"path": str(home / "many")})
    recipe = recipe.model_copy(update={"name": "many", "sources": [many]})
    store = Store(str(home / "store"))
    shatter(store, scrape.scrape_source(store, many, recipe.scrape, as_of="2026-01-05"), tmp_path)

    corpus: dict[str, Any] = build_corpus(recipe, as_of="2026-01-05", store=store.url)

    (log,) = run_log.read_all(store, "many")
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[log.id])))
    assert len([parent for parent in store.manifest(corpus["strip"]).parents if "shard" in parent]) == 200
    assert len(tasks) <= 20, [task.name for task in tasks]
    assert [task.name for task in tasks].count("strip 25 files") == 8
    lineage = artifacts_of(log.id)["many-lineage"]
    assert "200 × strip-shard" in lineage
    assert lineage.count("-->") < 12


def test_what_a_page_says_is_shown_as_it_is() -> None:
    assert plain("a *b* [c](d)\n<i>&|") == r"a \*b\* \[c\]\(d\) \<i\>\&\|"
    assert plain("again\x06\x00") == "again␆␀", "PostgreSQL takes no NUL in JSON, and would drop the events beside it"


def test_nothing_to_draw_is_no_picture(store: Store) -> None:
    assert plots.loss_curve([]) == plots.over_versions([]) == plots.growth([]) == plots.perplexities([]) == ""
    assert plots.by_document({}, "base") == ""
    assert plots.freshness({"base": {"weeks": {"2026-W02": {"bits_per_byte": 1.0}}}}, {"base": ""}) == ""
    assert plots.markdown("", "nothing") == ""
    assert "No model yet." in overview.landing_markdown(store, "new", [])


def test_the_freshness_curve_tells_which_pages_are_newer_than_a_model() -> None:
    weeks = {week: {"bits_per_byte": bits} for week, bits in (("2026-W02", 1.2), ("2026-W03", 1.3))}
    models = {label: {"weeks": weeks} for label in ("base", "champion", "challenger")}
    drawn = plots.freshness(models, {"champion": "2026-01-05", "challenger": "2026-01-12"})
    assert all(f">{text}<" in drawn for text in ("champion", "challenger", "2026-W02", "newer than the model"))
    both_know = plots.freshness(models, {"champion": "2026-01-12", "challenger": "2026-01-12"})
    assert drawn.count("fill: #ffffff; stroke: #1f2933") == both_know.count("fill: #ffffff; stroke: #1f2933") + 1


def test_a_plot_of_many_documents_stays_small_and_the_same(home: Path) -> None:
    rows = [{"nats": 300.0 + 7 * (number % 91), "size_bytes": 500} for number in range(5000)]
    scores = {"champion": rows, "challenger": list(reversed(rows))}
    drawn = plots.by_document(scores, "champion")
    assert len(plots.data_uri(drawn)) < MOST_CHARACTERS
    assert drawn == plots.by_document(scores, "champion")


def test_the_form_refuses_a_source_without_an_address_and_a_date_that_is_none() -> None:
    from prefect.utilities.schema_tools.validation import validate

    from flows.retrain import retrain

    schema = retrain.parameters.model_dump()

    def refused(as_of: str = "", **source: Any) -> list[str]:
        recipe = {"name": "x", "sources": [{"name": "a", **source}]}
        return [error.message for error in validate({"recipe": recipe, "as_of": as_of}, schema)]

    assert refused(urls=["https://example.org/"]) == refused(kind="folder", path="x") == []
    assert refused(kind="urls", path="x") == []
    assert refused() == refused(kind="urls") == ["'urls' is a required property"]
    assert refused(kind="warc", path="") == ["'' should be non-empty"]
    assert "'tomorrow' does not match" in refused("tomorrow", urls=["https://example.org/"])[0]
    for date in ("2026-01-05", "2026-01-05T21:30"):
        assert refused(date, urls=["https://example.org/"]) == []
