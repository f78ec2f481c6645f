"""The storeys and floors: who may import whom, and what a fresh interpreter drags in."""

import ast
import graphlib
import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
STOREYS = ("prosemill", "tasks", "flows", "deployments")
FORBIDDEN = {
    "prosemill": {"prefect", "tasks", "flows", "deployments"},
    "tasks": {"flows", "deployments"},
    "flows": {"deployments"},
    "deployments": set[str](),
}
# An import goes down. What stands on one floor does not import each other. docs/architecture.md says what lives where.
FLOORS = (
    ("prosemill.errors",),
    ("prosemill.config", "prosemill.demo"),
    ("prosemill.storage", "prosemill.text"),
    ("prosemill.models", "prosemill.runtime"),
    (
        "prosemill.scrape",
        "prosemill.strip",
        "prosemill.dedup",
        "prosemill.chunk",
        "prosemill.finetune",
        "prosemill.evaluation",
    ),
    ("prosemill.split", "prosemill.registry", "prosemill.lineage"),
    ("prosemill.gate",),
    ("prosemill.reporting",),
    ("prosemill", "prosemill.operations", "tasks.support"),
    ("tasks",),
    ("flows.support",),
    ("flows",),
    ("flows.cli",),
    ("deployments",),
)
FLOOR_OF = {package: floor for floor, packages in enumerate(FLOORS, 1) for package in packages}
FACES = ("models", "evaluation", "registry", "gate")  # of packages that load much: importing one loads nothing else
# What runs on a CPU worker while pages are fetched and cleaned: it must start in seconds.
CORPUS_HALF = [
    *(f"prosemill.{name}.stage" for name in ("scrape", "dedup", "split", "chunk")),
    *(f"prosemill.{name}" for name in ("strip", "models.bases", "storage.corpus", "storage.store", "config.recipe")),
    *(f"tasks.{name}" for name in ("scrape", "strip", "dedup", "split", "chunk")),
    "flows.build_corpus",
    "flows.cli",
]
HEAVY = ("torch", "transformers", "mlflow", "datasets")


@pytest.fixture(scope="module")
def package_imports() -> ModuleType:
    """docs/package_imports.py, which is a script and lies in no package."""
    spec = importlib.util.spec_from_file_location("package_imports", ROOT / "docs" / "package_imports.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["package_imports"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def not_downward(tool: ModuleType, floors: Mapping[str, int], root: Path = ROOT) -> list[str]:
    return [
        f"{link.path}:{link.line} imports {link.imported}"
        for link in tool.imports(root)
        if (importer := tool.package_of(link.module)) != (imported := tool.package_of(link.imported))
        and floors[imported] >= floors[importer]
    ]


def test_every_import_goes_down(package_imports: ModuleType) -> None:
    assert not_downward(package_imports, FLOOR_OF) == []


@pytest.mark.parametrize(
    ("importer", "line"),
    [
        ("storage/x.py", "from prosemill.registry import y"),  # upward
        ("lineage/x.py", "import prosemill.registry.y"),  # sideways
        ("storage/x.py", "from ..registry.y import Y"),
        ("storage/x.py", "def f():\n    from prosemill.registry.y import Y"),
        ("storage/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from prosemill.registry.y import Y"),
    ],
)
def test_an_import_up_or_sideways_is_found(
    tmp_path: Path, package_imports: ModuleType, importer: str, line: str
) -> None:
    (tmp_path / "prosemill" / "registry").mkdir(parents=True)
    (tmp_path / "prosemill" / "registry" / "y.py").write_text("")
    path = tmp_path / "prosemill" / importer
    path.parent.mkdir()
    path.write_text(line)
    (violation,) = not_downward(package_imports, FLOOR_OF, tmp_path)
    assert violation.startswith(f"prosemill/{importer}:")


def test_every_package_has_a_floor_and_nothing_else_lies_at_the_root(package_imports: ModuleType) -> None:
    packages = {package_imports.package_of(module) for module in package_imports.modules()}
    assert packages == FLOOR_OF.keys()
    assert {path.name for path in (ROOT / "prosemill").glob("*.py")} == {"__init__.py", "errors.py"}


def test_modules_import_in_no_circle(package_imports: ModuleType) -> None:
    below: dict[str, set[str]] = {}
    for link in package_imports.imports():
        below.setdefault(link.module, set()).add(link.imported)
    graphlib.TopologicalSorter(below).prepare()  # or CycleError, which names the circle


def test_the_list_of_package_imports_is_current(package_imports: ModuleType) -> None:
    assert package_imports.main(["--check"]) == 0, "run python docs/package_imports.py"
    text = package_imports.ARCHITECTURE.read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    written = {
        name.removesuffix(".py").strip("/").replace("/", "."): int(floor)
        for floor, names in rows
        for name in names.replace("`", "").split()
    }
    assert written == FLOOR_OF


def test_faces_of_heavy_packages_load_nothing_else() -> None:
    program = (
        f"import sys\nfrom prosemill import {', '.join(FACES)}\n"
        "print(*sorted(name for name in sys.modules if name.startswith('prosemill.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == sorted(f"prosemill.{face}" for face in FACES)


def test_only_one_module_reads_the_environment() -> None:
    readers = [
        path.relative_to(ROOT).as_posix()
        for storey in STOREYS
        for path in modules(storey)
        if any(word in path.read_text(encoding="utf-8") for word in ("os.environ", "os.getenv"))
    ]
    assert readers == ["prosemill/config/environment.py"]


def test_no_module_bears_the_name_of_a_library() -> None:
    # `chunk` reads IFF files, nobody imports it, and it is gone in Python 3.13: the stage keeps its name. A reader is
    # named by its kind, and Python has imported its own `site` before any folder is on the path.
    stems = {path.stem for storey in STOREYS for path in modules(storey)} - {"__init__", "chunk", "site"}
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
