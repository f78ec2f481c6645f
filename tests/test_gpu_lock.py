"""One training a card: a lock that tells who holds it and that the death of its holder frees."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from prosemill.runtime import gpu_lock

HOLD = """
import pathlib, sys, time
from prosemill.runtime import gpu_lock
with gpu_lock.held("the run's training", ["0", "1"], pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_training_waits_until_the_holder_dies_and_says_for_whom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prosemill")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    got = threading.Event()

    def train() -> None:
        with gpu_lock.held("another", ["1"], tmp_path):
            got.set()

    waiting = threading.Thread(target=train)
    waiting.start()
    assert not got.wait(2.5), "two trainings on one card"
    with gpu_lock.held("a third", ["2"], tmp_path):  # another card is free
        pass
    holder.kill()
    assert got.wait(60)
    waiting.join()
    holder.wait()
    holder.stdout.close()
    first, last = (record.getMessage() for record in caplog.records)
    assert first.startswith("finetune: waiting for card 1, which the run's training has held since 20")
    assert f"(process {holder.pid})" in first
    assert last == "finetune: card 1 is free"


def test_the_lock_is_free_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), gpu_lock.held("one", ["0"], tmp_path):
        raise ZeroDivisionError
    with gpu_lock.held("other", ["0"], tmp_path) as held:
        assert held == ["0"]


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    for minor, name in enumerate(("0000:01:00.0", "0000:02:00.0")):
        folder = tmp_path / "gpus" / name
        folder.mkdir(parents=True)
        (folder / "information").write_text(
            f"Model: \t\t NVIDIA H100\nIRQ:   \t\t 30\nGPU UUID: \t GPU-aaaa-{minor}\nDevice Minor: \t {minor}\n"
        )
    return tmp_path / "gpus"


@pytest.mark.parametrize(
    ("chosen", "cards_seen"),
    [
        (None, ["GPU-aaaa-0", "GPU-aaaa-1"]),
        ("1", ["GPU-aaaa-1"]),
        ("GPU-aaaa-0", ["GPU-aaaa-0"]),  # the same card, the same lock, however it is named
        ("1, 0", ["GPU-aaaa-0", "GPU-aaaa-1"]),
        ("0,-1,1", ["GPU-aaaa-0"]),
        ("", []),
    ],
)
def test_the_visible_cards_by_the_names_of_the_driver(
    driver: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, cards_seen: list[str]
) -> None:
    if chosen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert gpu_lock.visible(driver) == cards_seen


def test_without_a_card_nothing_is_locked(tmp_path: Path) -> None:
    assert gpu_lock.visible(tmp_path, tmp_path) == []
    with gpu_lock.held("one", [], tmp_path), gpu_lock.held("other", [], tmp_path):
        assert os.listdir(tmp_path) == []
