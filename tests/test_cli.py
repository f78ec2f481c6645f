"""The command as a person and a script use it, on a small website over three weeks; in the last the site is down."""

import functools
import html
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run
from prosemill.errors import EXIT_PARTIAL, EXIT_REFUSED
from prosemill.registry.registry import Registry
from prosemill.storage.store import Store
from tests.stories import recipe_text
from tests.test_registry import snapshots_of
from tests.tiny import make_base, sentences

pytestmark = pytest.mark.usefixtures("prefect_api")

SITE = """
[[sources]]
name = "site"
urls = ["{url}/index.html"]
[scrape]
delay_seconds = 0
allow_private_addresses = true
timeout_seconds = 5
"""
SHORT = "[write]\nmax_new_tokens = 8\n"


class RecordingSite(SimpleHTTPRequestHandler):
    """Files with Last-Modified, and a list of what was sent with which status."""

    sent: list[tuple[str, int]] = []  # noqa: RUF012 - one list for all requests is what we want

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        self.sent.append((self.path, int(code)))


def write_pages(folder: Path, number: int) -> None:
    folder.mkdir(exist_ok=True)
    source = sentences(1000, seed=7)
    names = [f"story-{index:03}.html" for index in range(number)]
    for index, name in enumerate(names):
        if not (folder / name).exists():
            paragraphs = [" ".join(source[index * 12 + start : index * 12 + start + 4]) for start in (0, 4, 8)]
            body = "".join(f"<p>{html.escape(text)}</p>" for text in paragraphs)
            (folder / name).write_text(
                f"<html><title>Story {index}</title><body><article>{body}</article></body></html>"
            )
    links = "".join(f'<li><a href="{name}">{name}</a></li>' for name in names)
    (folder / "index.html").write_text(f"<html><title>Stories</title><body><nav><ul>{links}</ul></nav></body></html>")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cli")
    make_base(home / "base")
    return home


@pytest.fixture(scope="module")
def site(home: Path) -> Iterator[ThreadingHTTPServer]:
    write_pages(home / "site", 40)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(RecordingSite, directory=str(home / "site")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (home / "stories.toml").write_text(
        recipe_text(SITE.format(url=f"http://127.0.0.1:{server.server_port}"), more=SHORT)
    )
    yield server
    server.shutdown()
    server.server_close()


class Command:
    """`prosemill … --store …` in this process: exit code, and standard output as text, or as JSON and nothing else."""

    def __init__(self, store: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.store, self.capfd = store, capfd

    def __call__(self, *arguments: str, status: int = 0) -> str:
        self.capfd.readouterr()
        exit_status = run([*arguments, "--store", str(self.store)])
        printed = self.capfd.readouterr()
        assert exit_status == status, printed.err
        return printed.out if status in (0, EXIT_PARTIAL) else printed.err

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", status=status))


@pytest.fixture
def prosemill(home: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(home / "store", capfd)


def test_three_weeks_at_the_command_line(prosemill: Command, home: Path, site: ThreadingHTTPServer) -> None:
    recipe = str(home / "stories.toml")
    assert "Recipe OK. Next: prosemill retrain" in prosemill("check", recipe)
    assert "No model yet" in prosemill("models")

    printed = prosemill("retrain", recipe, "--as-of", "2026-01-05")
    for part in (
        "From pages to chunks",
        "Where the time went",
        "On text that no model has seen",
        "Prompt:",
        "promote",
        "Next:",
    ):
        assert part in printed
    (version,) = prosemill.json("models")
    assert (version["model"], version["decision"]) == ("stories/1", "promote")
    assert "champion" in version["aliases"]

    RecordingSite.sent.clear()
    write_pages(home / "site", 52)
    second = prosemill.json("retrain", recipe, "--as-of", "2026-01-12")
    bodies = [path for path, status in RecordingSite.sent if status == 200 and "story" in path]
    assert len(bodies) == 12, "a page that did not change was downloaded again"
    assert second["funnel"][0]["kept"] >= 52
    wanted = {"decision", "reason", "funnel", "perplexity", "bits_per_byte", "snapshots", "model", "seconds"}
    assert wanted <= second.keys()
    assert set(second["perplexity"]) == {"base", "champion", "challenger"}
    assert second["perplexity"]["champion"] is not None

    site.shutdown()
    site.server_close()
    third = prosemill.json("retrain", recipe, "--as-of", "2026-01-19", status=EXIT_PARTIAL)
    assert third["partial"] is True
    assert third["decision"] != "promote"
    assert third["funnel"][0]["kept"] == second["funnel"][0]["kept"], "pages were lost because a site was down"


def test_the_same_seed_writes_the_same_text(prosemill: Command) -> None:
    arguments = ("write", "stories", "The miller", "--seed", "3", "--max-new-tokens", "6")
    first = prosemill(*arguments)
    assert len(prosemill.json("write", "stories", "The miller")["texts"][0].split()) <= 12, (
        "[write] of the recipe counts"
    )
    assert first == prosemill(*arguments)
    assert first.startswith("The miller")
    texts = prosemill.json(*arguments, "--samples", "2", "--temperature", "1.5")["texts"]
    assert len(texts) == 2


def test_from_a_sentence_to_its_page(prosemill: Command) -> None:
    (model,) = [row for row in prosemill.json("models", "stories") if "champion" in row["aliases"]]
    steps = prosemill.json("trace", model["snapshot"])
    assert steps[0]["stage"] == "finetune"
    assert "page" in prosemill("trace", " ".join(sentences(1000, seed=7)[:2]))
    line = prosemill("trace", "https://nowhere.example/", status=EXIT_REFUSED)
    assert "nothing in" in line


def test_what_changed_between_two_weeks(prosemill: Command, home: Path) -> None:
    records = [json.loads(path.read_text()) for path in sorted((home / "store/corpora/stories").glob("*.json"))]
    before, after = (record["dedup"] for record in records[:2])
    changes = prosemill.json("diff", before, after)
    assert changes["added"]["number"] >= 12
    assert f"{changes['added']['number']}" in prosemill("diff", before, after)


def test_roll_back_says_what_is_in_use(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prosemill, store = Command(tmp_path, capfd), Store(str(tmp_path))
    registry = Registry.open(store.url)
    first, second = snapshots_of(store, 1), snapshots_of(store, 2)
    registry.record("tales", *first)
    registry.promote("tales", first[0])
    assert "nothing to roll back to" in prosemill("roll-back", "tales", status=EXIT_REFUSED)
    registry.record("tales", *second)
    registry.promote("tales", second[0])
    assert "is the champion again" in prosemill("roll-back", "tales")
    champion = registry.champion("tales")
    assert champion is not None
    assert champion.snapshot == first[0]
    assert "no model" in prosemill("roll-back", "nobody", status=EXIT_REFUSED).lower()
