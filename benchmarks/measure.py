"""What a program costs: processor seconds of it and its children, wall time, the largest memory of one process."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # Linux, <sys/prctl.h>


@dataclass(frozen=True)
class Cost:
    cpu_seconds: float
    wall_seconds: float
    peak_megabytes: int  # of its largest process; several at once use more together

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def run(command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run `command` to its end; what it prints goes to `log`. RuntimeError with the last lines where it fails.

    A small process starts it: on Linux a child is said to have used at least the memory that its parent had.
    """
    with log.open("wb") as out, tempfile.NamedTemporaryFile("r") as report:
        starter = [sys.executable, "-S", "-E", __file__, report.name, *(str(part) for part in command)]
        subprocess.run(starter, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, check=True)
        figures = json.load(report)
    code = figures.pop("code")
    if code:
        tail = " | ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-6:])
        raise RuntimeError(f"{' '.join(map(str, command[:4]))} ended with {code}: {tail[-800:]}")
    return Cost(**figures)


def _start(report: Path, command: Sequence[str]) -> None:
    started, seconds, peak, code = time.monotonic(), 0.0, 0, 1
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what a fork server leaves behind is counted, too
    process = subprocess.Popen(command)
    while True:
        try:
            pid, status, used = os.wait4(-1, 0)
        except ChildProcessError:
            break
        seconds += used.ru_utime + used.ru_stime
        peak = max(peak, used.ru_maxrss)
        if pid == process.pid:
            code = process.returncode = os.waitstatus_to_exitcode(status)
    cost = Cost(round(seconds, 2), round(time.monotonic() - started, 2), peak // 1024)
    report.write_text(json.dumps({"code": code, **cost.as_dict()}), encoding="utf-8")


if __name__ == "__main__":
    _start(Path(sys.argv[1]), sys.argv[2:])
