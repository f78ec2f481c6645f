"""A source kind, a filter and a gate slice of one's own: one short module each, named by PROSEMILL_PLUGINS.

Each runs in a process of its own, so that what it registers is not there for other tests.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prosemill.config import environment
from prosemill.storage.store import Store
from tests.test_gate_slices import write_evaluation

ROOT = Path(__file__).parent.parent
PAGES = 70  # too many to be stripped in the process that was asked to: workers must know the plugin, too
MOST_LINES = 40

SOURCE = '''
from typing import Literal

from pydantic import Field

from prosemill.config.sources import Source
from prosemill.scrape.local import page_item
from prosemill.scrape.readers import LocalReader


class LinesSource(Source):
    """A file with a page a line."""

    kind: Literal["lines"] = Field(default="lines", description="Read a file with a page a line.")
    path: str = Field(min_length=1, description="The file.")

    def absolute(self, folder):
        return self.model_copy(update={"path": str(folder / self.path)})


class LinesReader(LocalReader):
    kind = "lines"

    def items(self, fetched_at):
        for file in self.files:
            for number, line in enumerate(file.path.read_bytes().splitlines()):
                url = f"lines://{self.source.name}/{number}"
                yield page_item(url, "text/html", b"<html><body><p>%s</p></body></html>" % line, fetched_at)
'''

FILTER = """
from pydantic import Field

from prosemill.config.extensions import FilterSettings
from prosemill.strip.filters import Filter


class ShoutingSettings(FilterSettings):
    name = "shouting"
    max_share: float = Field(default=0.3, ge=0, le=1, description="Share of letters that may be capitals.")


class Shouting(Filter):
    name = "shouting"

    def problem(self, text):
        share = sum(map(str.isupper, text.part)) / max(1, sum(map(str.isalpha, text.part)))
        return f"{share:.2f} of the letters are capitals" if share > self.own_settings(text).max_share else ""
"""

SLICE = """
import math

from pydantic import Field

from prosemill.config.extensions import SliceSettings
from prosemill.gate.slices import Slice


class WorstDocumentSettings(SliceSettings):
    name = "worst-document"
    max_loss: float = Field(default=0.1, ge=0, description="Bits per byte that may be lost on any one document.")


class WorstDocument(Slice):
    name = "worst-document"

    def answer(self, evidence):
        pairs = zip(*evidence.of_part("test"), strict=True)
        losses = [(one["nats"] - other["nats"]) / one["size_bytes"] / math.log(2) for one, other in pairs]
        return self.limit("bits per byte lost on one document", max(losses), self.own_settings(evidence).max_loss)
"""

STAGES = """
import json, sys
from pathlib import Path
from prosemill import scrape, strip
from prosemill.config.recipe import load_recipe
from prosemill.storage.store import Store

if __name__ == "__main__":
    recipe, store = load_recipe(Path("recipe.toml")), Store("store")
    pages = scrape.scrape_source(store, recipe.sources[0], recipe.scrape, as_of="2026-01-05")
    shards = [
        strip.strip_shard(store, warc, recipe.strip, language="en") for warc in strip.shards_to_strip(store, [pages])
    ]
    texts = strip.merge_shards(store, [pages], shards, recipe.strip, language="en", as_of="2026-01-05")
    counts = [store.manifest(id).counts for id in (pages, texts)]
    print(json.dumps([[count.seen, count.kept, count.dropped] for count in counts]))
"""


def run(program: str, folder: Path, **environ: str) -> Any:
    """What a program prints as JSON; it starts in `folder`, where its plugins lie."""
    path = f"{ROOT}{os.pathsep}{folder}"
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder, env={**os.environ, "PYTHONPATH": path, **environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A recipe that reads a file of seventy sentences by a kind of its own; every seventh sentence is shouted."""
    sentences = [
        f"On the {number}th day the tide came in twice and nobody at the pier took any note of it, as on other days."
        for number in range(PAGES)
    ]
    lines = [line.upper() if number % 7 == 0 else line for number, line in enumerate(sentences)]
    (tmp_path / "days.txt").write_text("\n".join(lines))
    (tmp_path / "my_source.py").write_text(SOURCE)
    (tmp_path / "my_filter.py").write_text(FILTER)
    (tmp_path / "my_slice.py").write_text(SLICE)
    (tmp_path / "recipe.toml").write_text(
        'name = "days"\n[[sources]]\nname = "pier"\nkind = "lines"\npath = "days.txt"\n[strip]\nmin_words = 5\n'
    )
    return tmp_path


@pytest.mark.parametrize("module", [SOURCE, FILTER, SLICE])
def test_it_takes_less_than_forty_lines(module: str) -> None:
    assert len(module.strip().splitlines()) < MOST_LINES


def test_a_source_kind(home: Path) -> None:
    scraped, stripped = run(STAGES, home, PROSEMILL_PLUGINS="my_source")
    assert scraped == [PAGES, PAGES, {}]
    assert stripped == [PAGES, PAGES, {}]


def test_a_filter_drops_by_its_name_where_the_recipe_names_it(home: Path) -> None:
    recipe = (home / "recipe.toml").read_text()
    (home / "recipe.toml").write_text(recipe + "[strip.filters.shouting]\nmax_share = 0.5\n")
    assert run(STAGES, home, PROSEMILL_PLUGINS="my_source, my_filter")[1] == [PAGES, 60, {"shouting": 10}]
    (home / "recipe.toml").write_text(recipe)
    assert run(STAGES, home, PROSEMILL_PLUGINS="my_source,my_filter")[1] == [PAGES, PAGES, {}]


DECIDE = """
import json
from pathlib import Path
from prosemill.config.recipe import load_recipe
from prosemill.gate.stage import run_gate
from prosemill.storage.decision_record import read_decision
from prosemill.storage.store import Store

store = Store("store")
settings = load_recipe(Path("recipe.toml")).gate
decision = read_decision(store, run_gate(store, "evaluate-0000000000000001", settings, as_of="2026-01-05"))
print(json.dumps([decision["decision"], decision["refused"], decision["slices"]]))
"""


def test_a_gate_slice_refuses_where_the_recipe_names_it(home: Path) -> None:
    store = Store(str(home / "store"))
    write_evaluation(store, 1, -0.02)  # better on the whole, worse on some documents
    recipe = (home / "recipe.toml").read_text()
    decision, refused, slices = run(DECIDE, home, PROSEMILL_PLUGINS="my_source,my_slice")
    assert (decision, refused, [part["slice"] for part in slices]) == ("promote", [], ["test"])

    (home / "recipe.toml").write_text(recipe + "[gate.slices.worst-document]\nmax_loss = 0.0\n")
    decision, refused, slices = run(DECIDE, home, PROSEMILL_PLUGINS="my_source,my_slice")
    assert (decision, refused) == ("reject", ["worst-document"])
    assert slices[1]["asks"] == "bits per byte lost on one document at most 0"
    assert 0 < slices[1]["value"] < 0.1


def test_an_installed_package_names_its_plugin_as_an_entry_point(home: Path) -> None:
    info = home / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[prosemill.plugins]\nlines = my_source\n")
    assert run(STAGES, home)[0] == [PAGES, PAGES, {}]


ASK = """
import json
from pathlib import Path
from flows.retrain import retrain
from prosemill.config.recipe import load_recipe
from prosemill.errors import RecipeError
try:
    answer = load_recipe(Path("recipe.toml")).sources[0].kind
except RecipeError as error:
    answer = str(error)
form = json.dumps(retrain.parameters.model_dump_for_openapi())
print(json.dumps([answer, "Read a file with a page a line." in form, "Share of letters that may be capitals." in form]))
"""


def test_the_form_shows_plugins(home: Path) -> None:
    assert run(ASK, home, PROSEMILL_PLUGINS="my_source,my_filter") == ["lines", True, True]
    message, *flags = run(ASK, home)
    assert "sources[0].kind = 'lines': should be 'site', 'warc', 'urls', 'folder' or 'dataset'" in message
    assert flags == [False, False]


def test_a_wrong_name_is_one_line(home: Path) -> None:
    code = "import sys; from flows.cli import run; sys.exit(run(['check', 'recipe.toml']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=home, env={**os.environ, "PYTHONPATH": str(ROOT), "PROSEMILL_PLUGINS": "my_sorce"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    (line,) = done.stderr.strip().splitlines()
    assert "PROSEMILL_PLUGINS: 'my_sorce' cannot be imported" in line


def test_workers_are_told_of_plugins() -> None:
    assert environment.of_job("/store", {"PROSEMILL_PLUGINS": "a, b"})["PROSEMILL_PLUGINS"] == "a,b"
    assert "PROSEMILL_PLUGINS" not in environment.of_job("/store", {})


# --- docs/architecture.md --------------------------------------------------------------------------------------------


def test_ten_changes_name_files_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## Ten changes\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert [row.split("|")[1].strip() for row in rows] == [
        "source kind", "filter", "gate slice", "architecture", "tracker", "notification", "language", "score",
        "threshold", "store",
    ]  # fmt: skip
    named = re.findall(r"`([\w/]+\.(?:py|md))`", section)
    assert len(named) > 20
    lost = [name for name in named if not (ROOT / re.sub(r"(KIND|NAME)\.py$", "__init__.py", name)).is_file()]
    assert lost == []
