"""Runs the tests that are marked slow, and keeps what came of each.

python -m benchmarks.slow            all of them, on two workers, into benchmarks/results/slow.json
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).with_name("results") / "slow.json"
OPTIONS = ["-n", "2", "--dist", "loadscope", "--no-loadscope-reorder", "-m", "slow and not gpu and not network"]
PACKAGES = ("prefect", "mlflow", "torch", "transformers", "pytest")


class Record:
    """A plugin of pytest: the outcome and the seconds of each test, set-up and teardown included."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        test["seconds"] = round(test["seconds"] + report.duration, 1)
        if report.outcome != "passed":
            test["outcome"] = report.outcome


def main() -> int:
    record, began = Record(), time.monotonic()
    status = pytest.main([*OPTIONS, str(ROOT / "tests")], plugins=[record])
    result = {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
        "commit": commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "seconds": round(time.monotonic() - began),
        "passed": sum(test["outcome"] == "passed" for test in record.tests.values()),
        "tests": dict(sorted(record.tests.items())),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(status)


def commit() -> str:
    """The commit that is checked out, "+" behind it where files differ from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
