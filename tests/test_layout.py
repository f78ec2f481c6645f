"""The three storeys: who may import whom, and what a fresh interpreter drags in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STOREYS = ("prosemill", "tasks", "flows", "deployments")
FORBIDDEN = {
    "prosemill": {"prefect", "tasks", "flows", "deployments"},
    "tasks": {"flows", "deployments"},
    "flows": {"deployments"},
    "deployments": set[str](),
}
# What runs on a CPU worker while pages are fetched and cleaned: it must start in seconds.
CORPUS_HALF = [
    *(f"prosemill.{name}.stage" for name in ("scrape", "dedup", "split", "chunk")),
    *(f"prosemill.{name}" for name in ("strip", "models.bases", "storage.corpus", "storage.store", "config.recipe")),
    *(f"tasks.{name}" for name in ("scrape", "strip", "dedup", "split", "chunk")),
    "flows.build_corpus",
    "flows.cli",
]
HEAVY = ("torch", "transformers", "mlflow", "datasets")


def modules(storey: str) -> list[Path]:
    return sorted((ROOT / storey).rglob("*.py"))


def imported_roots(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("storey", STOREYS)
def test_arrows_never_turn_round(storey: str) -> None:
    wrong = {str(path): bad for path in modules(storey) if (bad := imported_roots(path) & FORBIDDEN[storey])}
    assert modules(storey)
    assert wrong == {}


def test_only_one_module_reads_the_environment() -> None:
    readers = [
        path.relative_to(ROOT).as_posix()
        for storey in STOREYS
        for path in modules(storey)
        if any(word in path.read_text(encoding="utf-8") for word in ("os.environ", "os.getenv"))
    ]
    assert readers == ["prosemill/config/environment.py"]


def test_no_module_bears_the_name_of_a_library() -> None:
    # `chunk` reads IFF files, nobody imports it, and it is gone in Python 3.13: the stage keeps its name.
    stems = {path.stem for storey in STOREYS for path in modules(storey)} - {"__init__", "chunk"}
    assert (
        stems & (set(sys.stdlib_module_names) | {"datasets", "evaluate", "torch", "prefect", "scrapy", "mlflow"})
        == set()
    )


def test_the_corpus_half_never_imports_torch() -> None:
    program = (
        "import importlib, sys\n"
        f"for module in {CORPUS_HALF!r}:\n"
        "    importlib.import_module(module)\n"
        f"    print(*((module, name) for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
    assert done.stdout.count("\n") == len(CORPUS_HALF)


def test_an_import_touches_nothing(tmp_path: Path) -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for storey in STOREYS
        for path in modules(storey)
        if path.stem not in ("child",)  # programs, run by their parents
    ]
    program = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(tmp_path / "p"),
    }
    folder = tmp_path / "here"
    folder.mkdir()
    subprocess.run([sys.executable, "-c", program], check=True, cwd=folder, env=environment)
    assert list(folder.iterdir()) == []
