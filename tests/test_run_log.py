"""The log of a run: several writers lose nothing of one another's, and what earlier versions wrote is read."""

import json
import logging
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from prosemill.storage import run_log
from prosemill.storage.run_log import RunLog, StageRecord
from prosemill.storage.store import Store
from tests.serving import ROOT

PARENT, CHILD = "0b64", "7c11"
BEGUN = RunLog(PARENT, "retrain", "docs 2026-01-05", "docs", "2026-01-05", "2026-01-05T02:00:00.000+00:00")

WRITER = """
import sys
from prosemill.storage import run_log
from prosemill.storage.run_log import RunLog
from prosemill.storage.store import Store
store, number = Store(sys.argv[1]), int(sys.argv[2])
for stage in range(20):
    run_log.add(store, "0b64", "strip", [f"strip-{number:08x}{stage:08x}"], 0.5)
    child = f"child-{number}-{stage}"
    run_log.begin(store, RunLog(child, "train-model", child, "docs", "2026-01-05", "2026-01-05", parent="0b64"))
    assert run_log.read(store, "0b64") is not None
run_log.end(store, "0b64", **{("state", "model", "reason", "decision")[number]: str(number)})
"""


def test_writers_at_the_same_moment_lose_nothing(store: Store) -> None:
    run_log.begin(store, BEGUN)
    command = [sys.executable, "-c", WRITER, store.url]
    writers = [subprocess.Popen([*command, str(number)], cwd=ROOT) for number in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    log = run_log.read(store, PARENT)
    assert log is not None
    assert sorted(row.snapshot for row in log.stages) == sorted(
        f"strip-{number:08x}{stage:08x}" for number in range(4) for stage in range(20)
    )
    assert set(log.children) == {f"child-{number}-{stage}" for number in range(4) for stage in range(20)}
    assert (log.state, log.model, log.reason, log.decision) == ("0", "1", "2", "3")
    assert len(run_log.read_all(store)) == 81


def test_a_log_of_an_earlier_version_is_read_and_goes_on(store: Store) -> None:
    old = asdict(BEGUN) | {"stages": [asdict(StageRecord("strip", "strip-0000000000000001", "miss", 1.5))]}
    path = Path(store.root) / "runs" / f"{PARENT}.json"
    path.parent.mkdir()
    text = json.dumps(old)
    path.write_text(text)
    (log,) = run_log.read_all(store)
    assert log == run_log.read(store, PARENT) == RunLog.of(dict(old))

    run_log.add(store, PARENT, "dedup", ["dedup-0000000000000002"], 0.5)
    ended = run_log.end(store, PARENT, state="COMPLETED")
    assert ended == run_log.read(store, PARENT)
    assert ended is not None
    assert [row.stage for row in ended.stages] == ["strip", "dedup"]
    assert path.read_text() == text, "nobody rewrites what another wrote"


def test_a_run_that_begins_again_goes_on_with_its_log(store: Store) -> None:
    run_log.begin(store, BEGUN)
    run_log.add(store, PARENT, "strip", ["strip-0000000000000001"], 1.5)
    run_log.end(store, PARENT, state="CRASHED", reason="killed", ended="2026-01-05T02:10:00")
    run_log.begin(store, BEGUN)
    log = run_log.read(store, PARENT)
    assert log is not None
    assert (log.state, log.reason, log.ended, len(log.stages)) == ("RUNNING", "", "", 1)


def test_a_damaged_file_costs_itself(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    run_log.begin(store, BEGUN)
    run_log.add(store, PARENT, "strip", ["strip-0000000000000001"], 1.5)
    run_log.begin(store, RunLog(CHILD, "train-model", "docs", "docs", "2026-01-05", "2026-01-05T03:00:00"))
    damaged = max((Path(store.root) / "runs" / PARENT).iterdir())
    damaged.write_bytes(damaged.read_bytes()[:20] + b"\xff")
    (Path(store.root) / "runs" / "old.json").write_text("{")
    with caplog.at_level(logging.WARNING, "prosemill"):
        assert [(log.id, log.stages) for log in run_log.read_all(store)] == [(CHILD, ()), (PARENT, ())]
    assert [damaged.name in caplog.text, "old.json: damaged" in caplog.text] == [True, True]
    assert run_log.read(store, "old") is None


def test_nobody_writes_to_a_run_that_was_never_begun(store: Store) -> None:
    assert run_log.add(store, PARENT, "strip", ["strip-0000000000000001"], 1.5) == []
    assert run_log.end(store, PARENT, state="COMPLETED") is None
    assert run_log.read(store, PARENT) is None
    assert run_log.read_all(store) == []
