"""OpenLineage events: of a whole run, valid, in the store and at a server; of runs that fail, or whose server does."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prosemill.config import environment
from prosemill.config.recipe import load_recipe
from prosemill.errors import Stopped
from prosemill.lineage import dataset_names, openlineage_events, passages, sinks
from prosemill.reporting import attribution
from prosemill.storage import provenance, run_log
from prosemill.storage.corpus import documents_of
from prosemill.storage.manifest import Counts
from prosemill.storage.stage_run import observed
from prosemill.storage.store import Store
from prosemill.storage.warc_reader import read_page
from prosemill.text.words import words
from tests.lineage_schema import problems, published
from tests.stories import recipe_text, write_corpus
from tests.tiny import make_base

ROOT = Path(__file__).parent.parent
Event = dict[str, Any]


@dataclass
class LineageServer:
    """Takes events as a lineage server does; `answer` unset, it keeps its clients waiting."""

    events: list[Event] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@pytest.fixture(scope="module")
def server() -> Iterator[LineageServer]:
    state = LineageServer()
    state.answer.set()

    class EventHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.answer.wait(120)
            if self.path == "/api/v1/lineage":
                state.events.append(json.loads(body))
                state.headers.append(dict(self.headers))
            self.send_response(201 if self.path == "/api/v1/lineage" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), EventHandler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{listening.server_port}"
    yield state
    state.answer.set()
    listening.shutdown()
    listening.server_close()


@dataclass
class FinishedRun:
    """A whole retrain of a small corpus: its store and the events that its stages told."""

    store: Store
    texts: Path
    report: dict[str, Any]
    events: list[Event]

    def of(self, stage: str) -> list[Event]:
        return [event for event in self.events if event["run"]["facets"][openlineage_events.FACET]["stage"] == stage]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, server: LineageServer, prefect_api: str) -> FinishedRun:
    from flows.retrain import retrain

    home = tmp_path_factory.mktemp("lineage")
    make_base(home / "base")
    write_corpus(home / "texts", range(40))
    longer = recipe_text().replace("sample_tokens = 8", "sample_tokens = 40")  # so that a page shares words with it
    (home / "stories.toml").write_text(longer, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENLINEAGE_URL", server.url)
        patch.setenv("OPENLINEAGE_API_KEY", "not-for-the-store")
        report = retrain(load_recipe(home / "stories.toml"), as_of="2026-01-05", store=str(home / "store"))
        assert sinks.flush(120)
    store = Store(str(home / "store"))
    return FinishedRun(store, home / "texts", report, read(store))


def read(store: Store) -> list[Event]:
    """All events in the store, oldest first."""
    files = [str(path) for path in store.fs.find(f"{store.root}/{sinks.FOLDER}")]
    lines = [line for path in sorted(files) for line in store.fs.cat_file(path).decode().splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda event: str(event["eventTime"]))


def write(store: Store, snapshot: str, **more: Any) -> None:
    with store.write(snapshot, stage="note", version=1, parents=[], settings={"key": "s3cret"}, **more) as writer:
        writer.path("note.txt").write_text("hello")
        writer.add("note.txt", "note", 1)
        writer.counts = Counts(3, 2, {"thin": 1})


def names(datasets: list[Event]) -> set[tuple[str, str]]:
    return {(dataset["namespace"], dataset["name"]) for dataset in datasets}


def test_every_event_of_a_retrain_is_valid(finished: FinishedRun) -> None:
    wrong = {
        f"{event['job']['name']} {event['eventType']}": errors
        for event in finished.events
        if (errors := problems(event))
    }
    assert wrong == {}
    jobs = {event["job"]["name"] for event in finished.events}
    stages = {"strip-shard", "strip", "dedup", "split", "chunk", "finetune", "evaluate", "gate", "register"}
    assert jobs == stages | {"scrape.texts"}


@pytest.mark.network
def test_every_event_is_valid_against_the_published_files(finished: FinishedRun) -> None:
    assert [errors for event in finished.events if (errors := problems(event, published))] == []


def test_what_is_wrong_with_an_event_is_found(store: Store) -> None:
    write(store, "note-1", as_of="2026-01-05")
    event = read(store)[1]
    assert problems(event) == []
    run, job, (output,) = event["run"]["facets"], event["job"]["facets"], event["outputs"]
    event["eventType"] = "DONE"
    event["eventTime"] = "2026-01-05"
    event["run"]["runId"] = "note-1"
    event["inputs"] = [{"name": "nowhere"}]
    del run["processing_engine"]["version"]
    run[openlineage_events.FACET]["seen"] = -1
    run["jobType"] = job["jobType"]
    job["own"] = {"_producer": "a:b", "_schemaURL": "urn:x:y#/$defs/XJobFacet"}
    output["outputFacets"]["outputStatistics"]["rowCount"] = "many"
    places = {error.partition(": ")[0] for error in problems(event)}
    assert places == {
        "/eventType", "/eventTime", "/run/runId", "/inputs/0", "run/facets/processing_engine/",
        "run/facets/prosemill_stage/seen", "run/facets/jobType", "job/facets/own",
        "outputs/0/outputFacets/outputStatistics/rowCount",
    }  # fmt: skip


def test_every_run_of_a_stage_starts_and_ends_once(finished: FinishedRun) -> None:
    states: dict[str, list[str]] = {}
    for event in finished.events:
        states.setdefault(event["run"]["runId"], []).append(event["eventType"])
    assert set(map(tuple, states.values())) == {("START", "COMPLETE")}
    snapshots = {event["run"]["facets"][openlineage_events.FACET]["snapshot"] for event in finished.events} - {""}
    assert snapshots == set(finished.store.snapshots())


def test_datasets_chain_from_the_folder_to_the_registered_model(finished: FinishedRun) -> None:
    complete = [event for event in finished.events if event["eventType"] == "COMPLETE"]
    outputs = {name for event in complete for name in names(event["outputs"])}
    inputs = {name for event in complete for name in names(event["inputs"])}
    base = str(finished.texts.parent / "base")
    assert inputs - outputs == {("file", str(finished.texts)), ("file", base)}
    (register,) = [event for event in complete if event["job"]["name"] == "register"]
    (model,) = register["outputs"]
    name, version = model["name"].rpartition("/")[2], model["facets"]["version"]["datasetVersion"]
    assert f"{name}/{version}" == finished.report["model"]
    finetune = finished.report["snapshots"]["finetune"]
    assert dataset_names.snapshot_name(finished.store, finetune) in names(register["inputs"])


def test_an_event_says_what_was_written(finished: FinishedRun) -> None:
    complete = [event for event in finished.of("dedup") if event["eventType"] == "COMPLETE"]
    manifest = finished.store.manifest(finished.report["snapshots"]["dedup"])
    (event,) = complete
    (output,) = event["outputs"]
    statistics = output["outputFacets"]["outputStatistics"]

    assert output["facets"]["version"]["datasetVersion"] == manifest.id
    assert (statistics["rowCount"], statistics["fileCount"]) == (
        sum(shard.rows for shard in manifest.shards),
        len(manifest.shards),
    )
    assert statistics["size"] == sum(shard.size_bytes for shard in manifest.shards)
    columns = {
        column["name"]: {field["name"] for field in column["fields"]} for column in output["facets"]["schema"]["fields"]
    }
    assert {"id", "url", "text"} <= columns["keepers"]
    facet = event["run"]["facets"][openlineage_events.FACET]
    assert (facet["seen"], facet["kept"]) == (manifest.counts.seen, manifest.counts.kept)
    assert {entry["reason"]: entry["count"] for entry in facet["dropped"]} == dict(manifest.counts.dropped)
    assert event["run"]["facets"]["parent"]["run"]["runId"] == manifest.flow_run_id
    assert event["run"]["facets"]["parent"]["job"]["name"] == "build-corpus"
    assert event["run"]["facets"]["nominalTime"]["nominalStartTime"] == "2026-01-05T00:00:00+00:00"
    assert finished.of("finetune")[-1]["outputs"][0]["facets"]["datasetType"]["datasetType"] == "MODEL"


def test_no_event_holds_text_or_a_key(finished: FinishedRun) -> None:
    everything = json.dumps(finished.events, ensure_ascii=False)
    dedup, split = finished.report["snapshots"]["dedup"], finished.report["snapshots"]["split"]
    sentences = [row["text"].split(".")[0] for row in documents_of(finished.store, dedup, split, "train")]
    assert len(sentences) > 10
    assert [sentence for sentence in sentences if sentence in everything] == []
    assert "not-for-the-store" not in everything


def test_a_server_gets_the_same_events(finished: FinishedRun, server: LineageServer) -> None:
    key = lambda event: (event["run"]["runId"], event["eventType"])  # noqa: E731
    assert {key(event) for event in server.events} == {key(event) for event in finished.events}
    assert [errors for event in server.events if (errors := problems(event))] == []
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer not-for-the-store"}
    assert not any(name.startswith("OPENLINEAGE__") for name in os.environ), "the client's notes to itself"


def test_a_second_run_that_finds_everything_tells_of_nothing_but_the_decision(finished: FinishedRun) -> None:
    from flows.build_corpus import build_corpus

    before = len(read(finished.store))
    build_corpus(load_recipe(finished.texts.parent / "stories.toml"), as_of="2026-01-05", store=finished.store.url)
    assert len(read(finished.store)) == before


# --- from a sentence to its page -------------------------------------------------------------------------------------


def prosemill(capsys: pytest.CaptureFixture[str], finished: FinishedRun, *arguments: str) -> Any:
    """What the command prints with --json."""
    from flows.cli import run

    capsys.readouterr()
    assert run([*arguments, "--store", finished.store.url, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_the_model_writes_leads_to_its_page_in_three_steps(
    finished: FinishedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """One: let it write. Two: trace a sentence of it; that names the page. Three: trace the page; that says where its
    bytes lie and which models learned from it. All of it in a folder on this machine."""
    written = prosemill(capsys, finished, "write", "stories", "The", "--temperature", "0.2", "--max-new-tokens", "40")
    (sentence, *_) = attribution.sentences_of(written["texts"][0])

    (closest, *_) = prosemill(capsys, finished, "trace", sentence)
    url = closest["closest"]

    (page,) = prosemill(capsys, finished, "trace", url)
    ledger = [
        row
        for shard in finished.store.manifest(page["scrape"]).shards_of("ledger")
        for row in pq.read_table(finished.store.local(shard.path)).to_pylist()
        if row["url"] == url
    ]
    text = read_page(finished.store.local(page["warc"]), ledger[0]["warc_offset"]).body.decode()
    run_words = closest["leads_to"][0]["run_words"]
    shared = [passages.runs_of(words(passage), run_words) for passage in (sentence, text)]
    assert shared[0] & shared[1], (sentence, text)
    assert written["snapshot"] in page["models"]
    assert url in prosemill(capsys, finished, "trace", "stories")[0]["urls"], "and back, from the model to the page"


def test_the_page_of_the_run_traces_a_sentence(finished: FinishedRun) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey

    runs = [uuid.UUID(log.id) for log in run_log.read_all(finished.store)]
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(  # other tests' corpora are named so too
            artifact_filter=ArtifactFilter(
                key=ArtifactFilterKey(any_=["stories-trace"]), flow_run_id=ArtifactFilterFlowRunId(any_=runs)
            )
        )
    assert str(artifact.data) == attribution.sentence_markdown(finished.store, finished.report["snapshots"]["evaluate"])
    assert "| train |" in str(artifact.data)


# --- runs that do not end well ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (
            ValueError("no such key\nhttps://me:s3cret@host.example/x?key=s3cret"),
            "FAIL",
            "ValueError: no such key https",
        ),
        (Stopped("stopped by a person"), "ABORT", "stopped by a person"),
        (KeyboardInterrupt(), "ABORT", "KeyboardInterrupt"),
    ],
)
def test_a_stage_that_fails_says_why(store: Store, error: BaseException, state: str, message: str) -> None:
    def fail() -> None:
        with store.write("note-1", stage="note", version=1, parents=[], settings={}, flow_run_id=str(uuid.uuid4())):
            raise error

    with pytest.raises(type(error)):
        fail()

    start, end = read(store)
    assert (start["eventType"], end["eventType"]) == ("START", state)
    assert problems(end) == []
    assert end["run"]["facets"]["errorMessage"]["message"].startswith(message)
    assert "s3cret" not in json.dumps(end)
    assert store.snapshots() == []


def program(store: Store, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process of its own that writes three snapshots."""
    text = (
        "import sys; from prosemill.storage.store import Store\n"
        "for number in range(3):\n"
        "    with Store(sys.argv[1]).write(f'note-{number}', stage='note', version=1, parents=[], settings={}) as w:\n"
        "        w.path('note.txt').write_text('hello'); w.add('note.txt', 'note', 1)\n"
        "print('openlineage.client' in sys.modules)\n"
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith("OPENLINEAGE")}
    return subprocess.run(
        [sys.executable, "-c", text, store.url],
        env=own | variables, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip


def test_a_server_that_is_down_costs_a_warning(store: Store) -> None:
    done = program(store, OPENLINEAGE_URL="http://me:s3cret@127.0.0.1:9", NO_PROXY="127.0.0.1")
    assert len(store.snapshots()) == 3
    assert len(read(store)) == 6
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "s3cret" not in done.stderr


def test_a_server_that_never_answers_holds_up_nobody(store: Store, server: LineageServer) -> None:
    server.answer.clear()
    try:
        done = program(store, OPENLINEAGE_URL=server.url, NO_PROXY="127.0.0.1")  # ends, or times out
    finally:
        server.answer.set()
    assert len(store.snapshots()) == 3
    assert len(read(store)) == 6
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_one_warning_says_that_a_server_is_down(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    sender = sinks._Sender()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENLINEAGE__TRANSPORT", json.dumps({
            "type": "http", "url": "http://me:s3cret@127.0.0.1:9", "retry": {"total": 0, "connect": 0, "read": 0}
        }))  # fmt: skip
        for number in range(3):
            run = store.stage_run("note", f"note-{number}")
            run.id = str(uuid.uuid4())
            sender.queue(openlineage_events.event(run, "START"))
        assert sender.flush(60)
    # By record: some loggers hand one on to a handler twice.
    warnings = list({id(record): record.getMessage() for record in caplog.records if "lineage" in record.name}.values())
    assert len(warnings) == 1
    assert "they are in the store" in warnings[0]
    assert "s3cret" not in warnings[0]


def test_switched_off_it_costs_nothing(store: Store) -> None:
    done = program(store, OPENLINEAGE_DISABLED="true")
    assert len(store.snapshots()) == 3
    assert done.stdout.strip() == "False", "the client was imported for nothing"
    assert not Path(store.root, sinks.FOLDER).exists()


def test_a_store_that_takes_no_events_takes_snapshots(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    Path(store.root, sinks.FOLDER).write_text("in the way")
    write(store, "note-1")
    assert store.snapshots() == ["note-1"]
    warnings = {id(record): record.getMessage() for record in caplog.records if record.levelname == "WARNING"}
    assert [warning[:26] for warning in warnings.values()] == ["no lineage event of note-1"]


def test_an_observer_that_cannot_be_imported_is_a_warning(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    states: list[str] = []
    with observed(store.stage_run("note", "note-1"), ["prosemill.storage.nowhere:observer"]):
        states.append("ran")
    assert states == ["ran"]
    warnings = {record.getMessage() for record in caplog.records if record.levelname == "WARNING"}
    assert len(warnings) == 1
    assert warnings.pop().startswith("prosemill.storage.nowhere:observer is not told of note-1: ModuleNotFoundError")


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_remote_store_keeps_events_too() -> None:
    store = Store(f"memory://lineage-{os.getpid()}-{time.monotonic_ns()}")
    write(store, "note-6", as_of="2026-01-05T21:30")
    start, complete = read(store)
    assert (problems(start), problems(complete)) == ([], [])
    assert complete["outputs"][0]["facets"]["storage"]["storageLayer"] == "memory"
    assert complete["run"]["facets"]["nominalTime"]["nominalStartTime"] == "2026-01-05T21:30:00+00:00"


def test_datasets_are_named_by_openlineages_rules(store: Store) -> None:
    bucket = Store("s3://corpora/prose")
    assert dataset_names.snapshot_name(store, "dedup-1") == ("file", f"{store.root}/snapshots/dedup-1")
    assert dataset_names.snapshot_name(bucket, "dedup-1") == ("s3://corpora", "prose/snapshots/dedup-1")
    assert dataset_names.origin_name("https://me:s3cret@docs.example:8443/guide/?a=1") == (
        "https://docs.example:8443",
        "/guide/",
    )
    assert dataset_names.origin_name("hf:datasets/owner/name") == ("hf", "datasets/owner/name")
    assert dataset_names.origin_name("/srv/texts") == ("file", "/srv/texts")


def test_a_registered_model_is_named_by_its_server(store: Store) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cret@mlflow.example/")
        assert dataset_names.model_name(store, "stories") == ("mlflow://mlflow.example:443", "models/stories")
        patch.delenv("MLFLOW_TRACKING_URI")
        assert dataset_names.model_name(store, "stories") == ("file", f"{store.root}/models/stories")


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://me:s3cret@code.example/group/name.git", "https://code.example/group/name.git"),
        ("git@code.example:group/name.git", "ssh://code.example/group/name.git"),
        ("/srv/name.git", "file:///srv/name.git"),
        ("", ""),
    ],
)
def test_where_the_code_is_from_holds_no_password(origin: str, url: str) -> None:
    assert provenance.as_url(origin) == url


def test_which_variables_name_a_server(tmp_path: Path) -> None:
    assert not environment.lineage_server({"HOME": str(tmp_path)})
    assert environment.lineage_server({"OPENLINEAGE_URL": "http://x"})
    assert environment.lineage_server({"OPENLINEAGE__TRANSPORT__TYPE": "console"})
    (tmp_path / ".openlineage").mkdir()
    (tmp_path / ".openlineage" / "openlineage.yml").write_text("transport: {type: console}")
    assert environment.lineage_server({"HOME": str(tmp_path)})
    assert environment.lineage_namespace({"OPENLINEAGE_NAMESPACE": "press"}) == "press"
    assert environment.lineage_is_on({})
    assert not environment.lineage_is_on({"OPENLINEAGE_DISABLED": "True"})
