"""What a program costs: processor seconds of it and its children, wall time, the largest memory of one process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    cpu_seconds: float
    wall_seconds: float
    peak_megabytes: int  # of its largest process; several at once use more together

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def run(command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run `command` to its end; what it prints goes to `log`. RuntimeError with the last lines where it fails."""
    started = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = " | ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-6:])
        raise RuntimeError(f"{' '.join(map(str, command[:4]))} ended with {process.returncode}: {tail[-800:]}")
    megabytes = used.ru_maxrss // 1024 if sys.platform != "darwin" else used.ru_maxrss >> 20
    return Cost(round(used.ru_utime + used.ru_stime, 2), round(time.monotonic() - started, 2), megabytes)
