"""What an import costs whom: everything imported is declared, versions are capped, and importing changes nothing."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import io
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.test_layout import ROOT, STOREYS, modules

# Their versions are dates, or those of the package whose types they hold; and packaging's own major counts up by dates.
UNCAPPED = {"dask", "fsspec", "s3fs", "regex", "twisted", "types-pyyaml", "types-psutil", "packaging", "prosemill"}
OPTIONAL = {"lm_eval": "lm-eval"}  # of an extra that the tests do not install
STANDARD = {*sys.stdlib_module_names, *STOREYS}


def project() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for, by extra; "" is what it asks for always."""
    loaded = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {"": loaded["dependencies"], **loaded["optional-dependencies"]}
    return {extra: [Requirement(name) for name in names] for extra, names in wanted.items()}


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_major_versions_are_capped() -> None:
    uncapped = [
        str(requirement)
        for wanted in project().values()
        for requirement in wanted
        if canonicalize_name(requirement.name) not in UNCAPPED
        and not any(part.operator == "<" for part in requirement.specifier)
    ]
    assert uncapped == []


def test_a_cap_lets_no_later_major_version_in() -> None:
    loose = {
        str(requirement): str(pin)
        for wanted in project().values()
        for requirement in wanted
        if (pin := pins().get(canonicalize_name(requirement.name)))
        and canonicalize_name(requirement.name) not in UNCAPPED
        if requirement.specifier.contains(str(pin.major + 1))
    }
    assert loose == {}, "the cap is the major version after the pinned one, which the tests ran with"


def test_pinned_versions_are_within_the_caps() -> None:
    wanted = [requirement for names in project().values() for requirement in names]
    outside = {
        str(requirement): str(pin)
        for requirement in wanted
        if (pin := pins().get(canonicalize_name(requirement.name))) and not requirement.specifier.contains(pin)
    }
    assert outside == {}
    missing = {requirement.name for requirement in wanted if canonicalize_name(requirement.name) not in pins()}
    assert missing == {"prosemill", "lm-eval"}


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, also within functions and for type checkers alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_everything_imported_is_declared() -> None:
    declared = {
        canonicalize_name(requirement.name)
        for extra, names in project().items()
        if extra != "dev"
        for requirement in names
    }
    providers = importlib.metadata.packages_distributions()
    undeclared = {}
    for storey in STOREYS:
        for path in modules(storey):
            for root in {name.split(".")[0] for name in imports_of(path)} - STANDARD:
                names = {canonicalize_name(name) for name in providers.get(root, [OPTIONAL.get(root, root)])}
                if not names & declared:
                    undeclared[root] = path.relative_to(ROOT).as_posix()
    assert undeclared == {}, "add the distribution to pyproject.toml and constraints.txt"


# --- importing changes nothing ---------------------------------------------------------------------------------------

SNAPSHOT = """
import atexit, builtins, contextlib, decimal, faulthandler, gc, importlib, locale, logging, multiprocessing, os, random
import signal, socket, sys, threading, time, warnings

def loggers():
    known = {name: log for name, log in logging.root.manager.loggerDict.items() if isinstance(log, logging.Logger)}
    return {
        name: (log.level, [id(h) for h in log.handlers], [id(f) for f in log.filters], log.propagate, log.disabled)
        for name, log in [("root", logging.root), *known.items()]
        if name.split(".")[0] != "prosemill"
    }

def snapshot():
    import numpy, torch
    return {
        "os.environ": dict(os.environ),
        "folder": (os.getcwd(), os.umask(os.umask(0o22))),
        "time and place": (time.tzname, locale.setlocale(locale.LC_ALL)),
        "loggers": loggers(),
        "logging": (logging.root.manager.disable, logging.getLoggerClass(), logging.getLogRecordFactory()),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "streams": [(stream, stream.isatty()) for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "hooks": [sys.excepthook, sys.displayhook, threading.excepthook, sys.unraisablehook],
        "paths": [list(sys.path), list(sys.meta_path), list(sys.path_hooks)],
        "interpreter": (sys.getswitchinterval(), sys.getrecursionlimit(), faulthandler.is_enabled(), dir(builtins)),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "threads": (threading.enumerate(), multiprocessing.get_start_method(allow_none=True)),
        "exit functions": atexit._ncallbacks(),
        "garbage": (gc.isenabled(), gc.get_threshold()),
        "sockets": socket.getdefaulttimeout(),
        "numbers": (str(decimal.getcontext()), numpy.geterr(), random.getstate(), str(numpy.random.get_state())),
        "torch": (
            torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype(), torch.initial_seed(),
            torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        ),
    }

def import_all(names):
    for name, wanted in names:
        module = importlib.import_module(name)
        for attribute in wanted:
            hasattr(module, attribute) or importlib.import_module(f"{name}.{attribute}")
"""


def program(own: list[str]) -> str:
    """Imports what ours import from elsewhere, then `own`, then rude.py; prints what each of the latter has changed."""
    paths = [path for storey in STOREYS for path in modules(storey)]
    foreign = sorted(
        {foreign_import for path in paths for foreign_import in foreign_imports(path)} | {("torch", ()), ("numpy", ())}
    )
    return (
        f"{SNAPSHOT}\nimport_all({foreign!r})\nbefore = snapshot()\n"
        f"for names in ({own!r}, ['rude']):\n"
        "    import_all((name, ()) for name in names)\n"
        "    after = snapshot()\n"
        "    after['loggers'] = {name: after['loggers'][name] for name in before['loggers']}\n"
        "    print(*(name for name in after if before[name] != after[name]), sep=', ')\n"
    )


def foreign_imports(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Module and the names taken from it, of each import at the head of a file that is not of ours."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            imported: list[tuple[str, tuple[str, ...]]] = [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported = [(node.module, tuple(alias.name for alias in node.names))]
        else:
            continue
        yield from (entry for entry in imported if entry[0].split(".")[0] not in STOREYS)


def test_importing_changes_nothing_of_the_importing_program(tmp_path: Path) -> None:
    own = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for storey in STOREYS
        for path in modules(storey)
        if path.stem != "child"  # programs, run by their parents
    ]
    (tmp_path / "rude.py").write_text(
        "import logging, os, signal, warnings\nlogging.getLogger('trafilatura').setLevel(50)\nos.environ['A'] = '1'\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwarnings.simplefilter('ignore')\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    command = [sys.executable, "-c", program(own)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    by_ours, by_rude = done.stdout.splitlines()
    assert by_ours == ""
    assert by_rude == "os.environ, loggers, warnings, signals"  # a change is found


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_command_looks_for_a_terminal_when_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.cli.screen import WIDTH, Screen

    monkeypatch.setenv("COLUMNS", "77")
    screens = [Screen(), Screen()]
    with contextlib.redirect_stdout(Terminal()):
        assert screens[0].console.width == 77
    with contextlib.redirect_stdout(io.StringIO()):
        assert screens[1].console.width == WIDTH
