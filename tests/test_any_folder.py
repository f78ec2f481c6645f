"""Commands, workers and their children from a folder whose own modules bear all our names and everybody else's."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from shutil import copytree, ignore_patterns

import pydantic
import pytest

from prosemill.config import environment
from tests.serving import clean_environment, served
from tests.stories import recipe_text, write_corpus
from tests.tiny import make_base, texts

ROOT = Path(__file__).parent.parent
OURS = ("prosemill", "flows", "deployments")  # and tasks.py, a module
TRAP = """
import os
os.write(os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT), b"{name}\\n")
raise ImportError("{name} of the current folder")
"""


class Installed:
    """prosemill in an environment of its own; what it depends on is taken from this one's."""

    def __init__(self, home: Path) -> None:
        self.bin = home / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
        (self.packages,) = home.glob("lib/python*/site-packages")
        # a line of a .pth is one folder more: the editable prosemill there, a .pth itself, is not read
        others = Path(pydantic.__file__).parent.parent
        (self.packages / "others.pth").write_text(f"{others}\n", encoding="utf-8")

    def lay_out(self) -> None:
        """Put the packages where the wheel would, without building it: that takes half a minute and an index."""
        wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
        for source, target in {**{package: package for package in wheel["packages"]}, **wheel["force-include"]}.items():
            copytree(ROOT / source, self.packages / target, ignore=ignore_patterns("__pycache__"))
        script = f"#!{self.bin / 'python'}\nfrom flows.cli import main\nif __name__ == '__main__':\n    main()\n"
        (self.bin / "prosemill").write_text(script, encoding="utf-8")
        (self.bin / "prosemill").chmod(0o755)

    def install_wheel(self, folder: Path) -> None:
        """Build the wheel and install it, as a user's pip does."""
        pip = [sys.executable, "-m", "pip"]
        subprocess.run([*pip, "wheel", "-q", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
        (wheel,) = folder.glob("prosemill-*.whl")
        python = ["--python", self.bin / "python"]
        subprocess.run([*pip, *python, "install", "-q", "--no-deps", "--no-index", wheel], check=True)


class Folder:
    """A current folder in which whatever is imported tells of it and fails."""

    def __init__(self, path: Path, installed: Installed) -> None:
        self.path, self.installed, self.log = path, installed, path / "imported.txt"
        path.mkdir()
        others = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions(), "sitecustomize"}
        names = {"tasks", *others - {*OURS}}
        for name in filter(str.isidentifier, names):
            (path / f"{name}.py").write_text(TRAP.format(log=str(self.log), name=name), encoding="utf-8")
        for name in OURS:
            (path / name).mkdir()
            (path / name / "__init__.py").write_text(TRAP.format(log=str(self.log), name=name), encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of Python's own, so that nothing but the command's own doing protects it."""
        variables = {name: value for name, value in clean_environment().items() if not name.startswith("PYTHON")}
        return variables | {"PROSEMILL_STORE": str(self.path.parent / "store")}

    def prosemill(self, *arguments: str | Path, **more: str) -> str:
        """What the command printed; it must end well, and nothing may have been imported from here."""
        done = subprocess.run(
            [self.installed.bin / "prosemill", *arguments], cwd=self.path, env=self.environment | more,
            capture_output=True, text=True, check=False, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.assert_untouched()
        return done.stdout

    def assert_untouched(self) -> None:
        assert not self.log.exists(), f"imported from the current folder: {self.log.read_text().split()}"


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    installed = Installed(tmp_path_factory.mktemp("laid-out"))
    installed.lay_out()
    return installed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, laid_out: Installed) -> Folder:
    home = tmp_path_factory.mktemp("user")
    write_stories(home)
    return Folder(home / "here", laid_out)


def write_stories(home: Path) -> None:
    make_base(home / "base")
    write_corpus(home / "texts", range(40))
    for number, text in enumerate(texts(64)):
        html = f"<html><body><p>{text}</p></body></html>"
        (home / "texts" / f"page-{number}.html").write_text(html, encoding="utf-8")
    (home / "stories.toml").write_text(recipe_text(finetune="epochs = 1\nevals = 1\n"), encoding="utf-8")


def test_a_child_imports_prosemill_from_where_this_process_does() -> None:
    variables = environment.of_child({"PYTHONPATH": "/mine", "PYTHONSAFEPATH": ""})
    assert variables["PYTHONPATH"] == f"/mine{os.pathsep}{ROOT}"
    assert environment.of_child({})["PYTHONPATH"] == str(ROOT)
    assert variables["PYTHONSAFEPATH"] == environment.of_job("/store", {})["PYTHONSAFEPATH"] == "1"


def test_the_trap_works(folder: Folder) -> None:
    command = [folder.installed.bin / "python", "-c", "import tasks"]
    done = subprocess.run(command, cwd=folder.path, env=folder.environment, check=False, capture_output=True)
    assert done.returncode == 1
    assert folder.log.read_text().split()[-1] == "tasks"
    folder.log.unlink()


def test_what_runs_is_what_was_installed(folder: Folder) -> None:
    code = (
        "import prosemill, flows, tasks, deployments as d; print(*(m.__file__ for m in (prosemill, flows, tasks, d)))"
    )
    command = [folder.installed.bin / "python", "-P", "-c", code]
    done = subprocess.run(command, cwd=folder.path, env=folder.environment, check=True, capture_output=True, text=True)
    assert [Path(path).parent.parent for path in done.stdout.split()] == [folder.installed.packages] * 4


def test_commands_that_start_no_run(folder: Folder) -> None:
    assert "retrain" in folder.prosemill("--help")
    assert "Recipe OK" in folder.prosemill("check", "../stories.toml")
    assert "retrain/stories" in folder.prosemill("deploy", "--dry-run", "../stories.toml")


@pytest.mark.slow
def test_a_run_of_its_own_with_its_children(folder: Folder) -> None:
    """A server, training and scoring are child processes; so many HTML pages are stripped in several, by spawn."""
    report = json.loads(folder.prosemill("retrain", "../stories.toml", "--as-of", "2026-01-05", "--json"))
    assert report["funnel"][0]["seen"] == 104
    assert report["perplexity"]["challenger"] < report["perplexity"]["base"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_served(folder: Folder, tmp_path: Path) -> None:
    """Built and installed as pip does it, which needs a package index: server, workers, and the runs they start."""
    installed = Installed(tmp_path / "wheel")
    installed.install_wheel(tmp_path)
    write_stories(tmp_path)
    with served(tmp_path, [installed.bin / "prosemill"], folder.path, folder.environment) as stack:
        run = stack.run("retrain/stories", as_of="2026-01-05")
        assert stack.wait(run, timeout=600)["state"]["type"] == "COMPLETED"
        assert [child["work_pool_name"] for child in stack.children(run)][-1:] == ["gpu"]
    folder.assert_untouched()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("runner", ["processes", "dask", "ray"])
def test_task_runners(folder: Folder, tmp_path: Path, runner: str) -> None:
    options = ["--as-of", "2026-01-05", "--json", "--store", tmp_path]
    report = json.loads(folder.prosemill("retrain", "../stories.toml", *options, PROSEMILL_TASK_RUNNER=runner))
    assert report["funnel"][0]["seen"] == 104
