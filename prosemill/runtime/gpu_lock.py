"""One training per GPU: a file lock for each card of this machine, freed when its holder ends.

A Prefect concurrency limit covers only runs that Prefect knows: the slot of a run that died is held until the run is
marked, and a slot in a server's memory is lost with the server. A file lock (flock) covers every
process of this machine, commands in a terminal too, and the kernel frees it with the process, kill -9 included. The
limits of worker and queue give the order, the lock the card.

    <temporary folder>/prosemill-cards/card-<index or UUID>.lock     holds who has it, as JSON

Without a card nothing is locked: two trainings on one CPU are slow, but safe.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from prosemill.config import environment
from prosemill.storage.times import moment

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
_DRIVER = Path("/proc/driver/nvidia/gpus")  # one folder a card, where NVIDIA's driver is loaded
_DEVICES = Path("/dev")
_NO_CARD = ("", "-1", "none", "void", "NoDevFiles")


def visible(driver: Path = _DRIVER, devices: Path = _DEVICES) -> list[str]:
    """The cards that this process may use, by UUID where the driver tells it and else by index; none without a GPU."""
    numbers = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
    known = _uuids(driver) or dict(zip(numbers, numbers, strict=True))
    if not known:
        return []
    chosen = environment.visible_cards()
    if chosen is None:
        return sorted(set(known.values()))
    names = [name.strip() for name in chosen.split(",")]
    until = next((place for place, name in enumerate(names) if name in _NO_CARD), len(names))  # as CUDA does
    return sorted({known.get(name, name) for name in names[:until]})


@contextlib.contextmanager
def held(what: str, cards: Sequence[str] | None = None, folder: Path | None = None) -> Iterator[list[str]]:
    """Hold `cards` (default: all visible ones) for as long as the block lasts; waits for whoever holds them.

    `what` tells the others who it is. The wait is in the log, with the holder; an exception in this thread ends it.
    """
    folder = folder or Path(tempfile.gettempdir()) / "prosemill-cards"
    wanted = sorted(visible() if cards is None else cards)  # sorted, so that two processes cannot deadlock
    with contextlib.ExitStack() as stack:
        for card in wanted:
            path = _lock_file(folder, card)
            lock = FileLock(path, mode=0o666)  # every user of this machine may lock it
            _acquire(lock, path, card)
            stack.callback(lock.release)
            path.write_text(json.dumps({"what": what, "pid": os.getpid(), "since": moment()}), encoding="utf-8")
        yield wanted


def _acquire(lock: BaseFileLock, path: Path, card: str) -> None:
    logged_holder = ""
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            holder = _holder(path)
        if holder != logged_holder:
            log.info("finetune: waiting for card %s, which %s", card, holder)
            logged_holder = holder
        time.sleep(POLL_SECONDS)
    if logged_holder:
        log.info("finetune: card %s is free", card)


def _holder(path: Path) -> str:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return f"{record['what']} has held since {record['since']} (process {record['pid']})"
    except (ValueError, KeyError):  # it is writing just now
        return "another process has just taken"


def _lock_file(folder: Path, card: str) -> Path:
    """Where the lock of a card is."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):  # somebody else made it, and shared it already
        folder.chmod(0o777)
    return folder / f"card-{card.replace('/', '-')}.lock"


def _uuids(driver: Path) -> dict[str, str]:
    """UUID by index (the driver's minor number), and by itself."""
    uuids: dict[str, str] = {}
    for information in sorted(driver.glob("*/information")):
        lines = information.read_text(encoding="utf-8").splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        if uuid := facts.get("GPU UUID"):
            uuids |= {facts.get("Device Minor", str(len(uuids))): uuid, uuid: uuid}
    return uuids
