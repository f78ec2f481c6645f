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
import fcntl
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from prosemill.config import environment
from prosemill.storage.manifest import moment

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
            file = stack.enter_context(_open(folder, card))
            _acquire(file, card)
            file.seek(0)
            file.truncate()
            file.write(json.dumps({"what": what, "pid": os.getpid(), "since": moment()}))
            file.flush()
        yield wanted


def _acquire(file: IO[str], card: str, sleep: Callable[[float], None] = time.sleep) -> None:
    logged_holder = ""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = _holder(file)
        if holder != logged_holder:
            log.info("finetune: waiting for card %s, which %s", card, holder)
            logged_holder = holder
        sleep(POLL_SECONDS)
    if logged_holder:
        log.info("finetune: card %s is free", card)


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        found = json.loads(file.read())
        return f"{found['what']} has held since {found['since']} (process {found['pid']})"
    except (ValueError, KeyError):  # it is writing just now
        return "another process has just taken"


def _open(folder: Path, card: str) -> IO[str]:
    """The lock file of a card, which every user of this machine may lock."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):  # somebody else made it, and shared it already
        folder.chmod(0o777)
    path = folder / f"card-{card.replace('/', '-')}.lock"
    try:
        return open(path, "r+", encoding="utf-8")
    except FileNotFoundError:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.suppress(PermissionError):
            os.fchmod(handle, 0o666)
        return os.fdopen(handle, "r+", encoding="utf-8")


def _uuids(driver: Path) -> dict[str, str]:
    """UUID by index (the driver's minor number), and by itself."""
    found: dict[str, str] = {}
    for information in sorted(driver.glob("*/information")):
        lines = information.read_text(encoding="utf-8").splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        if uuid := facts.get("GPU UUID"):
            found |= {facts.get("Device Minor", str(len(found))): uuid, uuid: uuid}
    return found
