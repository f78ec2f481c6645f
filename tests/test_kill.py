"""A run killed with SIGKILL at any moment, run again, ends with the same snapshots and models as one that was not."""

import atexit
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from prosemill.errors import EXIT_STOPPED
from prosemill.registry.registry import Registry
from prosemill.storage.store import Store
from tests.stories import recipe_text, write_corpus
from tests.tiny import make_base

FINETUNE = "epochs = 12\nevals = 6\npatience = 100\n"


def appears(pattern: str) -> Callable[[Path], bool]:
    """A moment: something in the store matches."""
    return lambda store: any(store.glob(pattern))


MOMENTS: list[tuple[str, Callable[[Path], bool]]] = [
    ("while it starts", appears("tmp")),
    ("while it writes its first snapshot", appears("tmp/*")),
    ("after scrape", appears("snapshots/scrape-*")),
    ("after the first stripped shard", appears("snapshots/strip-*")),
    ("after dedup", appears("snapshots/dedup-*")),
    ("after chunk", appears("snapshots/chunk-*")),
    ("as training begins", appears("unfinished/finetune-*/plan.json")),
    ("after a checkpoint", appears("unfinished/finetune-*/checkpoints/*")),
    ("after finetune", appears("snapshots/finetune-*")),
    ("after the decision", appears("snapshots/gate-*")),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("kill")
    make_base(home / "base")
    write_corpus(home / "texts", range(40))
    (home / "stories.toml").write_text(recipe_text(finetune=FINETUNE))
    return home


# One interpreter that has everything loaded, and a fork of it for each run: a kill finds what it would find anyway, and
# starting Python and Prefect anew costs as much as all else that a killed run does.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["flows.cli", "flows.retrain"])


def command(output: Path, arguments: list[str]) -> None:
    """`prosemill` with these arguments, as a process of its own; what it prints goes to `said`.out and `said`.err."""
    os.setsid()
    # A shell that starts programs in the background has them ignore Ctrl-C: not what is tested here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for handle, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(output.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), handle)
    sys.argv = ["prosemill", *arguments]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # as at the end of every program; multiprocessing's leave them out


def start(home: Path, store: Path) -> BaseProcess:
    arguments = ["retrain", str(home / "stories.toml"), "--store", str(store), "--as-of", "2026-01-05", "--json"]
    process = FORKS.Process(target=command, args=(store.with_suffix(".said"), arguments))
    process.start()
    return process


def finish(home: Path, store: Path) -> dict[str, Any]:
    process = start(home, store)
    process.join(240)
    assert process.exitcode == 0, store.with_suffix(".err").read_text()
    report: dict[str, Any] = json.loads(store.with_suffix(".out").read_text())
    return report


def signal_at(
    moment: Callable[[Path], bool], home: Path, store: Path, which: signal.Signals = signal.SIGKILL
) -> tuple[int, str]:
    """Start a run and send its process a signal the moment that `moment` holds; its children have to end with it."""
    process = start(home, store)
    deadline = time.monotonic() + 120
    while process.is_alive() and not moment(store):
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.005)
    assert process.pid is not None
    with_children = children_of(process.pid)
    os.kill(process.pid, which)
    process.join(60)
    wait_until_gone(with_children)
    assert process.exitcode is not None, "it did not end"
    return process.exitcode, store.with_suffix(".err").read_text()


def wait_until_gone(children: list[int]) -> None:
    for child in children:
        gone_by = time.monotonic() + 10
        while Path(f"/proc/{child}").exists() and state_of(child) != "Z":
            assert time.monotonic() < gone_by, f"child {child} outlived its parent"
            time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                pids.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


@pytest.fixture(scope="module")
def unbroken(home: Path, prefect_api: str) -> dict[str, Any]:
    """What a run that nobody kills ends with."""
    return finish(home, home / "unbroken")


ONE = [moment for moment in MOMENTS if moment[0] == "after a checkpoint"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("moments", [ONE, pytest.param(MOMENTS, marks=pytest.mark.slow)], ids=["one", "ten"])
def test_kills_change_nothing(
    home: Path, unbroken: dict[str, Any], moments: list[tuple[str, Callable[[Path], bool]]]
) -> None:
    assert unbroken["decision"] == "promote"
    store = home / f"killed-{len(moments)}"

    for _, moment in moments:
        signal_at(moment, home, store)
    killed = finish(home, store)

    assert killed["snapshots"] == unbroken["snapshots"]
    one, other = Store(str(home / "unbroken")), Store(str(store))
    assert other.snapshots() == one.snapshots()
    weights = [store.manifest(unbroken["snapshots"]["finetune"]).totals["weights_sha256"] for store in (one, other)]
    assert weights[0] == weights[1]
    champions = [Registry.open(store.url).champion("stories") for store in (one, other)]
    assert champions[0] is not None
    assert champions[1] is not None
    assert champions[0].snapshot == champions[1].snapshot
    assert len(Registry.open(other.url).list_versions("stories")) == 1
    assert list((store / "unfinished").iterdir()) == []
    assert other.runs("stories") == one.runs("stories")


def test_ctrl_c_stops_training_at_once_and_says_how_to_go_on(home: Path, prefect_api: str) -> None:
    begun = appears("unfinished/finetune-*/plan.json")
    status, complained = signal_at(begun, home, home / "stopped", signal.SIGINT)
    assert status == EXIT_STOPPED
    assert complained.strip() == "prosemill: stopped; run the same command again to go on from here"
