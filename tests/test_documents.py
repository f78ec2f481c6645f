"""What the README and docs/ show works: recipes are read, commands run, options exist, links lead somewhere.

`NOT_RUN` is the whole list of commands that no test here runs, each with its reason.
"""

from __future__ import annotations

import functools
import html
import json
import os
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from flows.cli import run
from flows.cli.app import app
from prosemill.config.recipe import load_recipe
from prosemill.gate import approval
from prosemill.registry.registry import Registry
from prosemill.storage.store import Store
from tests.documents import ROOT, Block, anchors, commands, iter_blocks, iter_links, iter_table_commands
from tests.stories import recipe_text
from tests.test_registry import snapshots_of
from tests.tiny import make_base, sentences

NOT_RUN: Mapping[str, str] = {
    "make run": "minutes of training; tests/test_demo_pipeline.py runs the same demo with a small base",
    "prosemill demo --week 2": "as `make run`",
    'prosemill write reading-room "Fellow-citizens of the Senate"': "wants the demo's model; `write our-docs` runs",
    'prosemill trace "the condition of the Treasury is such as to afford"': "wants the demo's; `trace our-docs` runs",
    "prosemill up our-docs.toml": "runs until Ctrl-C; tests/test_served_runs.py starts it",
    "export PREFECT_API_URL=http://127.0.0.1:4200/api PREFECT_API_AUTH_STRING=$(cat data/store/prefect/login)": (
        "wants the server of `up`; tests/test_own_origin.py logs in with that file"
    ),
}
# What a whole recipe has and a fragment lacks.
WHOLE = {"name": "our-docs", "language": "en"}
SOURCE = {"name": "site", "kind": "site", "urls": ["https://docs.example.org/"]}


def blocks(language: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in iter_blocks() if block.language == language]


def test_every_block_says_what_it_is() -> None:
    assert {block.language for block in iter_blocks()} <= {"sh", "toml", "python", "text"}


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_documented_recipe_is_read(block: Block, tmp_path: Path) -> None:
    for name in ("archive", "essays", "models/zh-base"):
        (tmp_path / name).mkdir(parents=True)
    settings = tomllib.loads(block.text)
    missing = "".join(f"{key} = {value!r}\n" for key, value in WHOLE.items() if key not in settings)
    text = missing + block.text
    if "sources" not in settings:
        text += "\n[[sources]]\n" + "".join(f"{key} = {value!r}\n" for key, value in SOURCE.items())
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert recipe.name == settings.get("name", WHOLE["name"])


def test_the_commands_of_the_tables_exist_with_their_options() -> None:
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    known = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands.items()
    }
    rows = list(iter_table_commands())
    assert len(rows) > 40, "the tables of commands were not found"
    for page, names, options in rows:
        for name in names:
            assert name in known, f"{page}: no command {name}"
        offered = set().union(*(known[name] for name in names))
        assert set(options) <= offered | {"--help"}, f"{page}: {names}"
    named = {name for _, names, _ in rows for name in names}
    visible = {name for name, command in commands.items() if not command.hidden}
    assert visible <= named, "a command that docs/commands.md does not name"


def test_links_lead_somewhere() -> None:
    links = list(iter_links())
    assert len(links) > 30
    for page, target in links:
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.relative_to(ROOT)}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.relative_to(ROOT)}: {target}"


@pytest.mark.parametrize("block", blocks("python"))
def test_documented_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_base(tmp_path / "base")
    texts = sentences(30)
    table = pa.table({"text": texts})
    pq.write_table(table, "texts.parquet")
    exec(block.text, {"html": "<p>A page.</p>", "table": table, "texts": texts})
    assert (tmp_path / "chunks").is_dir()


def test_a_command_that_is_not_run_is_in_the_pages() -> None:
    assert set(NOT_RUN) <= set(commands())


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def write_site(folder: Path) -> None:
    folder.mkdir()
    source = sentences(1000, seed=7)
    for number in range(40):
        paragraphs = [" ".join(source[number * 12 + start : number * 12 + start + 4]) for start in (0, 4, 8)]
        body = "".join(f"<p>{html.escape(text)}</p>" for text in paragraphs)
        (folder / f"{number}.html").write_text(f"<title>Story {number}</title><body><article>{body}</article></body>")
    links = "".join(f'<li><a href="{number}.html">{number}</a></li>' for number in range(40))
    (folder / "index.html").write_text(f"<title>Stories</title><body><nav><ul>{links}</ul></nav></body>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site") / "pages"
    write_site(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def work(tmp_path_factory: pytest.TempPathFactory, site: str) -> Path:
    """The folder of the reader: a recipe, a page, a table."""
    work = tmp_path_factory.mktemp("work")
    make_base(work / "base")
    sources = (
        f'[[sources]]\nname = "site"\nurls = ["{site}"]\n[scrape]\ndelay_seconds = 0\nallow_private_addresses = true\n'
    )
    text = recipe_text(sources, more="[write]\nmax_new_tokens = 8\n").replace('"stories"', '"our-docs"')
    (work / "our-docs.toml").write_text(text)
    paragraphs = "".join(f"<p>{sentence}</p>" for sentence in sentences(30))
    (work / "page.html").write_text(f"<title>A page</title><body><article>{paragraphs}</article></body>")
    pq.write_table(pa.table({"text": sentences(60)}), work / "texts.parquet")
    return work


# A run comes before what looks at its model; what is not named comes after these, in the order of the pages.
FIRST = ("prosemill check", "prosemill retrain our-docs.toml --as-of", "prosemill retrain")
LAST = ("prosemill approve", "prosemill roll-back", "prosemill restore")


def by_need(command: str) -> tuple[int, int]:
    for group, prefixes in ((0, FIRST), (2, LAST)):
        for place, prefix in enumerate(prefixes):
            if command.startswith(prefix):
                return group, place
    return 1, 0


def in_order() -> list[str]:
    return sorted((command for command in commands() if command not in NOT_RUN), key=by_need)


WITHOUT_A_RUN = ("check", "strip", "dedup", "chunk")


def test_the_documented_commands_that_need_no_run(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.delenv("PROSEMILL_STORE", raising=False)
    words = [shlex.split(command)[1:] for command in in_order() if command.split()[1] in WITHOUT_A_RUN]
    assert len(words) >= len(WITHOUT_A_RUN)
    for arguments in words:
        assert run(arguments) == 0, capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("prefect_api")
def test_the_documented_commands_run(
    work: Path, site: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.delenv("PROSEMILL_STORE", raising=False)
    failures = []
    for command in in_order():
        words = shlex.split(command.replace("https://docs.example.org/", site))
        assert words[0] == "prosemill", f"{command}: run it here, or name it in NOT_RUN with the reason"
        if words[1] == "approve":
            ask_for_approval(work)
        status = run_elsewhere(words[1:]) if words[1] in ELSEWHERE else run(words[1:])
        printed = capfd.readouterr()
        if status:
            failures.append(f"{command}: exit code {status}: {printed.err[-500:]}")
    assert not failures, "\n".join(failures)


# These replace their process by another, or ask where the database of the Prefect server of these tests is.
ELSEWHERE = ("deploy", "backup", "restore")


def run_elsewhere(arguments: list[str]) -> int:
    """The exit code of `prosemill` in a process of its own; `backup` and `restore` know of no server there."""
    server = {} if arguments[0] == "deploy" else {"PREFECT_API_URL": ""}
    program = [sys.executable, "-c", "import sys; from flows.cli import run; sys.exit(run(sys.argv[1:]))", *arguments]
    return subprocess.run(program, env={**os.environ, **server}, check=False, timeout=240).returncode


def ask_for_approval(work: Path) -> None:
    """A challenger that a person is asked about; only its decision is real."""
    store = Store(str(work / "data" / "store"))
    registry = Registry.open(store.url)
    champion = registry.champion("our-docs")
    assert champion is not None
    number = len(registry.describe("our-docs"))
    finetune, evaluation, gate = snapshots_of(store, number)
    file = store.local(gate) / "decision.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "champion": champion.snapshot}))
    version = registry.record("our-docs", finetune, evaluation, gate)
    question = approval.ask(
        store, "our-docs", model=f"our-docs/{version}", challenger=finetune, gate=gate, hours=1, run="run"
    )
    approval.enact(store, registry, question)
