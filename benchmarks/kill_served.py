"""Kill -9 of server, workers, flow processes and the trainer at twenty moments of served runs of `retrain`.

    python -m benchmarks.kill_served [--home FOLDER]

One Prefect server with the deployments and automations of `prosemill deploy`, a worker for each pool, and a supervisor
that starts again what died, as systemd or compose would. A Redis keeps for the server which events it has seen: without
one, a crash that follows a restart of the server is not acted upon for 15 minutes. Five runs suffer four kills each. A
run that lost its process is brought back by the automations of deployments.crash_safety alone, at the shortest
intervals that Prefect allows. Each run must end as an undisturbed one does: the same snapshots and weights, one
decision, one model version, one promotion, one run of train-model.

The table is printed and kept in benchmarks/results/kill_served.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from flows.support import local_server
from prosemill.config import environment
from prosemill.registry.registry import Registry
from prosemill.runtime import subprocesses
from prosemill.storage.store import Store
from tests import served_processes
from tests.stories import recipe_text, write_corpus
from tests.tiny import make_base

RESULTS = Path(__file__).parent / "results" / "kill_served.json"
FINETUNE = "epochs = 12\nevals = 6\npatience = 100\n"
AS_OF = "2026-01-05"
ENDED = ("COMPLETED", "FAILED", "CANCELLED")  # not CRASHED: that is what the automations are for
LIMIT_SECONDS = 900.0
# Loops that suit a server which lives for months, turned as fast as they may be.
FASTER = {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S"}

# What is killed, and the first moment at which the store looks like this.
PLAN: list[list[tuple[str, str]]] = [
    [
        ("server", "snapshots/scrape-*"),
        ("retrain", "snapshots/dedup-*"),
        ("trainer", "unfinished/finetune-*/plan.json"),
        ("gpu worker", "snapshots/finetune-*"),
    ],
    [
        ("cpu worker", "snapshots/strip-*"),
        ("server", "unfinished/finetune-*"),
        ("train-model", "unfinished/finetune-*/checkpoints/*"),
        ("retrain", "snapshots/gate-*"),
    ],
    [
        ("retrain", "tmp/*"),
        ("server", "snapshots/chunk-*"),
        ("gpu machine", "unfinished/finetune-*/checkpoints/*"),
        ("train-model", "snapshots/evaluate-*"),
    ],
    [
        ("cpu machine", "snapshots/split-*"),
        ("gpu worker", "unfinished/finetune-*/plan.json"),
        ("server", "snapshots/finetune-*"),
        ("train-model", "snapshots/gate-*"),
    ],
    [
        ("retrain", "snapshots/chunk-*"),
        ("trainer", "unfinished/finetune-*/checkpoints/*"),
        ("cpu worker", "snapshots/evaluate-*"),
        ("server", "mlflow.db"),
    ],
]


@dataclass
class ServedStack:
    """A server, a worker for each pool, and whoever starts them again. All started by this process's main thread."""

    home: Path
    port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)

    redis_port: int = field(default_factory=local_server.free_port)

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def settings(self) -> dict[str, str]:
        ordering = {"PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering"}
        return FASTER | ordering | {"PREFECT_REDIS_MESSAGING_URL": f"redis://127.0.0.1:{self.redis_port}/0"}

    def commands(self) -> dict[str, list[str]]:
        worker = ["prefect", "worker", "start"]
        return {
            "server": ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)],
            "cpu worker": [*worker, "--pool", "cpu", "--name", "cpu-worker"],
            "gpu worker": [*worker, "--pool", "gpu", "--name", "gpu-worker", "--limit", "1"],
        }

    def start(self, name: str) -> None:
        self.running[name] = local_server.start(self.commands()[name], self.home / f"{name}.log", self.settings)

    def tend(self) -> None:
        """Start again what died, as a supervisor does."""
        for name, process in self.running.items():
            if process.poll() is not None:
                self.restarts[name] = self.restarts.get(name, 0) + 1
                self.start(name)

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The API's answer, however often the server is killed meanwhile."""
        deadline = time.monotonic() + 240
        while True:
            self.tend()
            try:
                method = "GET" if body is None else "POST"
                answer = httpx.request(method, self.api + path, json=body, timeout=30)
                if answer.status_code < 500:
                    answer.raise_for_status()
                    return answer.json() if answer.content else None
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)


@contextlib.contextmanager
def stand(home: Path) -> Iterator[ServedStack]:
    """Served and deployed; nothing of it is left when the block ends."""
    make_base(home / "base")
    write_corpus(home / "texts", range(40))
    (home / "stories.toml").write_text(recipe_text(finetune=FINETUNE), encoding="utf-8")
    environment.prepare(str(home / "store"))
    environment.prefect_home()
    stack = ServedStack(home, local_server.free_port())
    environment.use_server(stack.api)  # before Prefect is imported
    redis = subprocess.Popen(
        ["redis-server", "--port", str(stack.redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(home)],
        stdout=subprocess.DEVNULL,
    )
    try:
        stack.start("server")
        local_server.wait_until_healthy(stack.running["server"], stack.port, home / "server.log")
        _deploy(home)
        stack.start("cpu worker")
        stack.start("gpu worker")
        yield stack
    finally:
        for name in ("cpu worker", "gpu worker", "server"):
            if name in stack.running:
                subprocesses.end_group(stack.running[name], 20)
        redis.terminate()
        redis.wait()


def _deploy(home: Path) -> None:
    """As `prosemill deploy`; then the automations of crash safety again, with short intervals."""
    from prefect.client.orchestration import get_client

    from deployments import crash_safety
    from deployments.applying import apply
    from deployments.plan import plan

    for _ in apply(plan([home / "stories.toml"], str(home / "store"))):
        pass
    with get_client(sync_client=True) as client:
        for automation in crash_safety.automations(heartbeats_seconds=45, restart_seconds=25, pending_seconds=60):
            for deployed in client.read_automations_by_name(automation.name):
                client.delete_automation(deployed.id)
            client.create_automation(automation)


# --- one run ---------------------------------------------------------------------------------------------------------


def start(stand: ServedStack, store: Path) -> str:
    deployment = stand.ask("/deployments/name/retrain/stories")
    body = {"parameters": {"as_of": AS_OF, "store": str(store)}}
    return str(stand.ask(f"/deployments/{deployment['id']}/create_flow_run", body)["id"])


def finish(stand: ServedStack, run: str) -> dict[str, Any]:
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        answer: dict[str, Any] = stand.ask(f"/flow_runs/{run}")
        if answer["state"]["type"] in ENDED or time.monotonic() > deadline:
            return answer
        time.sleep(1)


def kill(stand: ServedStack, run: str, what: str, reached: Callable[[], bool]) -> str:
    """Wait for the moment and for the victim to be there, and kill it; what was hit, "" if the run ended before."""
    deadline, looked = time.monotonic() + LIMIT_SECONDS, 0.0
    while time.monotonic() < deadline:
        stand.tend()
        if reached() and (victims := _victims(stand, run, what)):
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return " ".join(map(str, victims))
        if time.monotonic() - looked > 5:
            looked = time.monotonic()
            if stand.ask(f"/flow_runs/{run}")["state"]["type"] in ENDED:
                break
        time.sleep(0.02)
    return ""


def _victims(stand: ServedStack, run: str, what: str) -> list[int]:
    """Never anything that this experiment did not start: others work on the machine, too."""
    if what in stand.running:
        return [stand.running[what].pid] if stand.running[what].poll() is None else []
    names = {run: "retrain"} | dict.fromkeys((training["id"] for training in _trainings(stand, run)), "train-model")
    flows = {names[flow_run]: pid for flow_run, pid in served_processes.flow_processes().items() if flow_run in names}
    if what.endswith("machine"):  # the worker, and every process that it started
        worker = stand.running[what.replace("machine", "worker")].pid
        below = [pid for pid in flows.values() if worker in served_processes.ancestors(pid)]
        return [worker, *below] if below else []
    if what == "trainer":
        return served_processes.trainers(flows["train-model"]) if "train-model" in flows else []
    return [flows[what]] if what in flows else []


def _trainings(stand: ServedStack, run: str) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = stand.ask(
        "/flow_runs/filter", {"flow_runs": {"idempotency_key": {"any_": [f"{run}-train"]}}}
    )
    return runs


# --- what came of it -------------------------------------------------------------------------------------------------


def came_of(stand: ServedStack, run: str, store: Path) -> dict[str, Any]:
    """Everything that must be as in an undisturbed run."""
    opened, registry = Store(str(store)), Registry.open(str(store))
    versions, champion = registry.list_versions("stories"), registry.champion("stories")
    weights = opened.manifest(champion.snapshot).totals["weights_sha256"] if champion else ""
    events = {"occurred": {"since": "2020-01-01T00:00:00Z"}, "event": {"name": ["prosemill.model.promoted"]}}
    promoted = stand.ask("/events/filter", {"filter": events, "limit": 50})["events"]
    return {
        "state": stand.ask(f"/flow_runs/{run}")["state"]["name"],
        "snapshots": opened.snapshots(),
        "weights": weights,
        "record": opened.runs("stories"),
        "decisions": sum(snapshot.startswith("gate-") for snapshot in opened.snapshots()),
        "versions": len(versions),
        "champion": champion.snapshot if champion else "",
        "promotions": sum(event["payload"]["run"] == run for event in promoted),
        "trainings": len(_trainings(stand, run)),
        "unfinished": sorted(path.name for path in (store / "unfinished").iterdir()),
    }


def suffer(
    stand: ServedStack, number: int, kills: Sequence[tuple[str, str]], expected: Mapping[str, Any]
) -> dict[str, Any]:
    """One run with its kills; the row of the table."""
    store, began = stand.home / f"store-{number}", time.monotonic()
    before = dict(stand.restarts)
    run = start(stand, store)
    hits = []
    for what, moment in kills:
        hit = kill(stand, run, what, lambda moment=moment: any(store.glob(moment)))  # type: ignore[misc]
        hits.append(
            {"what": what, "moment": moment, "hit": bool(hit), "at_seconds": round(time.monotonic() - began, 1)}
        )
        print(f"  run {number}: killed {what} ({hit or 'it was over'}) at {moment}", flush=True)
    finish(stand, run)
    outcome = came_of(stand, run, store)
    crashes = [state for state in stand.ask(f"/flow_run_states/?flow_run_id={run}") if state["type"] == "CRASHED"]
    return {
        "kills": hits,
        "seconds": round(time.monotonic() - began, 1),
        "crashes_of_retrain": len(crashes),
        "restarted": {name: count - before.get(name, 0) for name, count in stand.restarts.items()},
        "differs_in": sorted(key for key in expected if outcome[key] != expected[key]),
        **{key: outcome[key] for key in ("state", "decisions", "versions", "promotions", "trainings")},
    }


def experiment(home: Path, plan: Sequence[Sequence[tuple[str, str]]] = PLAN) -> Iterator[dict[str, Any]]:
    """The undisturbed run, and then one after the other those that are killed; the results so far after each."""
    with stand(home) as stack:
        began = time.monotonic()
        run = start(stack, home / "unbroken")
        finish(stack, run)
        expected = came_of(stack, run, home / "unbroken")
        seconds = round(time.monotonic() - began, 1)
        undisturbed = {key: expected[key] for key in ("state", "decisions", "versions", "promotions", "trainings")}
        print(f"undisturbed: {undisturbed} in {seconds} s", flush=True)
        if expected["state"] != "Completed":
            sys.exit("the undisturbed run did not complete: nothing to compare with")
        rows: list[dict[str, Any]] = []
        for number, kills in enumerate(plan, 1):
            rows.append(suffer(stack, number, kills, expected))
            yield {
                "undisturbed": {"seconds": seconds, **undisturbed},
                "kills": sum(kill["hit"] for row in rows for kill in row["kills"]),
                "runs_that_differ": sum(bool(row["differs_in"]) for row in rows),
                "runs": rows,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--home", type=Path, default=None, help="where the stores are made; default: a temporary folder"
    )
    arguments = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prosemill-kills-") as folder:
        home = arguments.home or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        for report in experiment(home):
            RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            row = report["runs"][-1]
            differs = ", ".join(row["differs_in"]) or "nothing"
            print(f"{len(report['runs'])}  {row['state']}  {row['seconds']} s  differs in {differs}", flush=True)
    print(f"{report['kills']} kills, {report['runs_that_differ']} runs that ended otherwise")
    sys.exit(1 if report["runs_that_differ"] or report["kills"] < sum(map(len, PLAN)) else 0)


if __name__ == "__main__":
    main()
