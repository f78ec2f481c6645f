"""Folders with one writer: none is lost to a sweep, whoever began at the same moment; what the dead left goes."""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prosemill.errors import StoreError
from prosemill.storage.disk import ABANDONED_SECONDS, aside, in_use, remove_unused, sweep
from prosemill.storage.store import Store
from tests.test_storage import write

WRITERS, FOLDERS = 4, 300

PROCESS = """
import sys
from pathlib import Path
from prosemill.storage.disk import aside
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    with aside(Path(sys.argv[1]), "note") as folder:
        (folder / "note.txt").write_text(str(number))
        assert (folder / "note.txt").read_text() == str(number)
"""


def at_once(*works: Callable[[], object]) -> list[BaseException]:
    """What went wrong in any of these, each run by a thread of its own."""
    barrier, wrong = threading.Barrier(len(works)), list[BaseException]()

    def run(work: Callable[[], object]) -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told to the test
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def long_ago(*paths: Path) -> None:
    then = time.time() - ABANDONED_SECONDS - 60
    for path in paths:
        os.utime(path, (then, then))


def test_no_folder_is_lost_to_a_sweep_between_its_making_and_its_lock(tmp_path: Path) -> None:
    def writer() -> None:
        for number in range(FOLDERS):
            with aside(tmp_path, "note") as folder:
                (folder / "note.txt").write_text(str(number))
                assert (folder / "note.txt").read_text() == str(number)

    assert at_once(*[writer] * WRITERS) == []
    assert list(tmp_path.iterdir()) == []


def test_no_process_loses_its_folder_to_the_sweep_of_another(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path), str(FOLDERS)]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(WRITERS)]
    for child in children:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin
        child.stdin.write(b"go\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
    assert [child.returncode for child in children] == [0] * WRITERS
    assert list(tmp_path.iterdir()) == []


def test_two_who_commit_the_same_snapshot_at_the_same_moment_both_end_well(store: Store) -> None:
    for number in range(30):
        together = threading.Barrier(2)

        def commit(snapshot: str, text: str, together: threading.Barrier) -> None:
            with store.write(snapshot, stage="note", version=1, parents=[], settings={}) as w:
                w.path("note.txt").write_text(text)
                together.wait()

        works = [lambda text=text: commit(f"note-{number}", text, together) for text in "ab"]  # type: ignore[misc]  # noqa: B023
        assert at_once(*works) == []
        assert store.local(f"note-{number}/note.txt").read_text() in ("a", "b")
        assert store.manifest(f"note-{number}").id == f"note-{number}"


def test_a_folder_in_the_place_of_a_snapshot_is_named(store: Store) -> None:
    half = Path(store.root, "snapshots", "note-1")
    half.mkdir(parents=True)
    (half / "half.txt").write_text("of a copy that was stopped")
    with pytest.raises(StoreError, match=r"note-1: is there, but not a complete snapshot .* remove that folder"):
        write(store, "note-1")
    assert (half / "half.txt").exists()


def left_behind(folder: Path, lock: str | None) -> tuple[Path, Path]:
    """What a writer that died left: a folder with a file, and its lock file with the text `lock` (None: no file)."""
    folder.mkdir()
    (folder / "half.txt").write_text("half")
    lock_path = Path(f"{folder}.lock")
    if lock is not None:
        lock_path.write_text(lock)
    return folder, lock_path


OF_ANOTHER = json.dumps({"host": "another", "boot": "another", "pid": 1})


@pytest.mark.parametrize("lock", ["", None, OF_ANOTHER, "null"], ids=["nameless", "none", "of another machine", "odd"])
def test_what_cannot_be_proven_dead_goes_when_it_has_been_left_for_a_week(tmp_path: Path, lock: str | None) -> None:
    folder, lock_path = left_behind(tmp_path / "note-1.abc", lock)
    sweep(tmp_path)
    assert (folder / "half.txt").exists(), "its writer may live: on another machine, or about to take its lock"

    long_ago(folder, *filter(Path.exists, [lock_path]))
    sweep(tmp_path)
    assert (folder / "half.txt").exists(), "somebody still writes"

    long_ago(folder / "half.txt", folder)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_held_keeps_a_folder_however_old_it_is(tmp_path: Path) -> None:
    folder, lock_path = left_behind(tmp_path / "note-1.abc", "")  # as an earlier version makes it
    long_ago(folder / "half.txt", folder, lock_path)
    with open(lock_path, "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(tmp_path)
        assert (folder / "half.txt").exists()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_held_as_long_as_the_folder_is_there(tmp_path: Path) -> None:
    with aside(tmp_path, "note") as folder:
        assert sorted(tmp_path.iterdir()) == [folder, Path(f"{folder}.lock")]
        with open(f"{folder}.lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list(tmp_path.iterdir()) == []


# --- work folders ----------------------------------------------------------------------------------------------------


def test_the_work_folder_of_a_running_stage_stays_though_another_has_made_its_snapshot(store: Store) -> None:
    other = Store(store.url)
    with other.work_folder("note-1") as work:
        (work / "checkpoint").write_text("step 3")
        write(store, "note-1")
        store.drop_work_folder("note-1")
        store.check_writable()
        assert (work / "checkpoint").read_text() == "step 3"
    store.check_writable()
    assert list(Path(store.root, "unfinished").iterdir()) == []


def test_the_work_folder_of_an_earlier_version_is_tidied_once_its_snapshot_is_there(store: Store) -> None:
    for name in ("note-1", "note-2"):
        Path(store.root, "unfinished", name).mkdir(parents=True)
    write(store, "note-1")
    store.check_writable()
    assert [path.name for path in Path(store.root, "unfinished").iterdir()] == ["note-2"]


def test_no_work_folder_vanishes_between_its_making_and_its_use(tmp_path: Path) -> None:
    folder = tmp_path / "unfinished" / "note-1"

    def worker() -> None:
        for number in range(FOLDERS):
            with in_use(folder):
                path = folder / f"{threading.get_ident()}"
                path.write_text(str(number))
                assert path.read_text() == str(number)
            remove_unused(folder, tmp_path / "tmp")

    assert at_once(*[worker] * WRITERS) == []
    remove_unused(folder, tmp_path / "tmp")
    assert list(folder.parent.iterdir()) == list((tmp_path / "tmp").iterdir()) == []
