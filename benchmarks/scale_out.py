"""`build-corpus` on threads, processes, Dask and Ray: the same snapshot ids, and what each engine costs.

    python -m benchmarks.scale_out [--documents 400] [--engines threads,processes,dask,ray,dask-apart] [--out FILE]

Each engine has a store, a Prefect server and a process of its own, and makes the same two runs of the same sources.
Dask and Ray start a local cluster with a worker a processor. Overhead is the wall time beyond that on threads.
`dask-apart`, which needs root and iproute2, is a Dask cluster over a network: two network namespaces, joined by a pair
of virtual interfaces; the run, the Prefect server, the scheduler and a worker in one, another worker in the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.fixtures import paragraph, vocabulary
from prosemill.runtime import subprocesses

ROOT = Path(__file__).parent.parent

ENGINES = ("threads", "processes", "dask", "ray")
APART = "dask-apart"
NAMESPACES = ("mill-a", "mill-b")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
SCHEDULER = f"tcp://{ADDRESSES[0]}:8786"
RUNS = ("2026-01-05", "2026-01-12")
SOURCES = ("north", "south", "east")
STAGES = ("scrape", "strip", "dedup", "split", "chunk")

# Run in a process of its own: an engine must not find the modules, threads and servers of the one before.
ONE_RUN = """
import json, sys
from pathlib import Path
from prosemill.config import environment
recipe, as_of, store = sys.argv[1:]
environment.prepare(store)
from flows.support import local_server
local_server.start_if_none_is_named()
from flows.build_corpus import build_corpus
from prosemill.config.recipe import load_recipe
if __name__ == "__main__":
    print("MADE " + json.dumps(build_corpus(load_recipe(Path(recipe)), as_of=as_of, store=store)))
"""


def write_sources(folder: Path, documents: int, increment: int) -> Path:
    """A recipe with three folders of texts; each run brings as many more."""
    draw, words = random.Random(increment), vocabulary(4000)
    for source in SOURCES:
        (folder / source).mkdir(parents=True, exist_ok=True)
        for number in range(documents // len(SOURCES)):
            text = paragraph(draw, words, draw.randint(60, 400))
            (folder / source / f"{increment}-{number:05}.txt").write_text(text, encoding="utf-8")
    tables = "".join(f'[[sources]]\nname = "{name}"\nkind = "folder"\npath = "{name}"\n' for name in SOURCES)
    recipe = folder / "recipe.toml"
    recipe.write_text(f'name = "scale"\n{tables}[strip]\nlanguages = ["*"]\n', encoding="utf-8")
    return recipe


def within(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


@contextlib.contextmanager
def two_networks() -> Iterator[None]:
    """Two network namespaces that see each other and nobody else; gone when the block ends."""
    commands = [f"netns add {name}" for name in NAMESPACES]
    commands.append(f"link add mill-0 netns {NAMESPACES[0]} type veth peer name mill-1 netns {NAMESPACES[1]}")
    for number, (name, address) in enumerate(zip(NAMESPACES, ADDRESSES, strict=True)):
        commands += [
            f"-n {name} address add {address}/24 dev mill-{number}",
            f"-n {name} link set mill-{number} up",
            f"-n {name} link set lo up",
        ]
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        yield
    finally:
        for name in NAMESPACES:
            subprocess.run(["ip", "netns", "delete", name], check=False)


@contextlib.contextmanager
def cluster_apart(home: Path) -> Iterator[dict[str, str]]:
    """A Prefect server, a Dask scheduler and two workers in two networks; the environment of a run that uses them."""
    here, there = NAMESPACES
    home.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home / "prefect"), "HOME": str(home)}
    environment |= {"PREFECT_API_URL": f"http://{ADDRESSES[0]}:4200/api", "PREFECT_SERVER_API_HOST": ADDRESSES[0]}
    python = [sys.executable, "-m"]
    worker = [*python, "distributed.cli.dask_worker", SCHEDULER, "--no-dashboard", "--nthreads", "1", "--host"]
    programs = [
        [*within(here), *python, "prefect", "server", "start", "--no-ui", "--host", ADDRESSES[0]],
        [*within(here), *python, "distributed.cli.dask_scheduler", "--no-dashboard", "--host", ADDRESSES[0]],
        [*within(here), *worker, ADDRESSES[0]],
        [*within(there), *worker, ADDRESSES[1]],
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(two_networks())
        log = stack.enter_context(open(home / "programs.log", "wb"))
        for program in programs:
            options: dict[str, Any] = {"env": environment, "cwd": ROOT, "stdout": log, "stderr": log}
            started = subprocess.Popen(program, **options, start_new_session=True)
            stack.callback(subprocesses.end_group, started, 5.0)
        ask = f"import urllib.request as web; web.urlopen('{environment['PREFECT_API_URL']}/health', timeout=2)"
        ask += f"; from distributed import Client; Client('{SCHEDULER}', timeout=5).wait_for_workers(2, timeout=30)"
        deadline = time.monotonic() + 120
        while subprocess.run([*within(here), sys.executable, "-c", ask], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                raise SystemExit((home / "programs.log").read_text()[-3000:])
        yield environment | {"PROSEMILL_TASK_RUNNER": f"dask:{SCHEDULER}"}


def tasks_by_worker() -> dict[str, int]:
    """How many tasks each worker of the cluster has computed, by its address."""
    count = "lambda dask_worker: dask_worker.state.executed_count"
    ask = f"import json; from distributed import Client; print(json.dumps(Client('{SCHEDULER}').run({count})))"
    printed = subprocess.run(
        [*within(NAMESPACES[0]), sys.executable, "-c", ask], capture_output=True, check=True
    ).stdout
    return dict(json.loads(printed))


def run(engine: str, recipe: Path, as_of: str, home: Path) -> dict[str, Any]:
    """Seconds, and the ids that the run ended with."""
    program = home / "one_run.py"
    program.write_text(ONE_RUN, encoding="utf-8")
    environment = {**os.environ, "PROSEMILL_TASK_RUNNER": engine, "PYTHONPATH": str(ROOT)}
    environment |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "1"}
    command = [sys.executable, program, recipe, as_of, home / f"store-{engine}"]
    with contextlib.ExitStack() as stack:
        if engine == APART:
            environment = stack.enter_context(cluster_apart(home / f"apart-{as_of}"))
            command = [*within(NAMESPACES[0]), *command]
        started = time.monotonic()
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        wall = time.monotonic() - started
        tasks = {"tasks_by_worker": tasks_by_worker()} if engine == APART else {}
    lines = [line for line in done.stdout.splitlines() if line.startswith("MADE ")]
    if done.returncode or not lines:
        raise SystemExit(f"{engine}, {as_of}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    corpus = json.loads(lines[0].removeprefix("MADE "))
    seconds = round(sum(corpus["seconds"].values()), 1)
    return {
        "wall_seconds": round(wall, 1),
        "stage_seconds": seconds,
        "ids": {stage: corpus[stage] for stage in STAGES},
        **tasks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=600)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="prosemill-scale-") as scratch:
        home = Path(scratch)
        for number, as_of in enumerate(RUNS):
            recipe = write_sources(home / "texts", arguments.documents, number)
            for engine in arguments.engines.split(","):
                runs.setdefault(engine, {})[as_of] = run(engine, recipe, as_of, home)
                print(engine, as_of, runs[engine][as_of], file=sys.stderr, flush=True)
    first = runs[arguments.engines.split(",")[0]]
    for increments in runs.values():
        increments["same_ids"] = all(increments[as_of]["ids"] == first[as_of]["ids"] for as_of in RUNS)
        increments["overhead_seconds"] = round(
            sum(increments[as_of]["wall_seconds"] - first[as_of]["wall_seconds"] for as_of in RUNS) / len(RUNS), 1
        )
    text = json.dumps({"documents_a_night": arguments.documents, "engines": runs}, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    sys.exit(not all(increments["same_ids"] for increments in runs.values()))


if __name__ == "__main__":
    main()
