"""Writes the list of imports between packages into architecture.md.

    python docs/package_imports.py            # writes it
    python docs/package_imports.py --check    # exit code 1 where it is not current

An import within a function or an `if TYPE_CHECKING` block counts like any other.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- package imports: begin -->", "<!-- package imports: end -->"
TREES = ("prosemill", "tasks", "flows", "deployments")


@dataclass(frozen=True)
class Import:
    """`module` imports `imported`, a module too; `path` and `line` say where."""

    module: str
    imported: str
    path: str
    line: int


def modules(root: Path = ROOT) -> dict[str, Path]:
    """All modules by dotted name; a package is a module of its own."""
    files = sorted(path for tree in TREES for path in (root / tree).rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(root: Path = ROOT) -> Iterator[Import]:
    """Every import of a module of ours by another."""
    ours = modules(root)
    for module, path in ours.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                package = module if path.stem == "__init__" else module.rpartition(".")[0]
                for imported in _imported(node, package, ours) - {module}:
                    yield Import(module, imported, path.relative_to(root).as_posix(), node.lineno)


def _imported(node: ast.Import | ast.ImportFrom, package: str, ours: Mapping[str, Path]) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names} & ours.keys()
    # `from package import module` names a module, `from module import name` does not.
    source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
    names = [f"{source}.{alias.name}" for alias in node.names]
    return {name if name in ours else source for name in names} & ours.keys()


def package_of(module: str) -> str:
    """ "prosemill.storage" of "prosemill.storage.store", "flows" of "flows.retrain", "flows.cli" of "flows.cli.app"."""
    parts = module.split(".")
    if parts[0] == "prosemill":
        return ".".join(parts[:2])
    return ".".join(parts[:2]) if len(parts) > 2 or (ROOT / parts[0] / parts[-1]).is_dir() else parts[0]


def listing() -> str:
    """One line a package, the packages that it imports behind the colon."""
    imports_of: dict[str, set[str]] = {package_of(module): set() for module in modules()}
    for link in imports():
        if package_of(link.module) != package_of(link.imported):
            imports_of[package_of(link.module)].add(package_of(link.imported))
    rows = [f"{package}: {' '.join(sorted(imported)) or '–'}" for package, imported in sorted(imports_of.items())]
    return "\n".join(["```text", *rows, "```"])


def current(text: str) -> str:
    """architecture.md with the list as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{listing()}\n{END}{after}"


def main(arguments: list[str]) -> int:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    if arguments == ["--check"]:
        if text == current(text):
            return 0
        print("docs/architecture.md: the list of imports is old; run python docs/package_imports.py")
        return 1
    ARCHITECTURE.write_text(current(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
