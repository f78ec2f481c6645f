"""The processes of a served run, for those who kill them."""

from __future__ import annotations

import os
from pathlib import Path


def flow_processes() -> dict[str, int]:
    """The process of each flow run that a worker has started on this machine, by the run's id."""
    pid_of_run = {}
    for pid in _processes():
        if pid != os.getpid() and b"prefect" in _read(pid, "cmdline"):
            variables = dict(pair.split(b"=", 1) for pair in _read(pid, "environ").split(b"\0") if b"=" in pair)
            if run := variables.get(b"PREFECT__FLOW_RUN_ID"):
                pid_of_run[run.decode()] = pid
    return pid_of_run


def trainers(below: int) -> list[int]:
    """The training processes that descend from the process `below`."""
    return [
        pid for pid in _processes() if b"prosemill.finetune.child" in _read(pid, "cmdline") and below in ancestors(pid)
    ]


def ancestors(pid: int) -> list[int]:
    """Parent, parent's parent and so on."""
    pids: list[int] = []
    while pid > 1:
        stat = _read(pid, "stat").decode(errors="replace")
        pid = int(stat.rpartition(")")[2].split()[1]) if stat else 0
        pids.append(pid)
    return pids


def is_alive(pid: int) -> bool:
    stat = _read(pid, "stat").decode(errors="replace")
    return bool(stat) and stat.rpartition(")")[2].split()[0] != "Z"


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it ended, or is not ours
        return b""
