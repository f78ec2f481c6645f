"""What the store asks of a disk: errors in words, digests, durable writes, room, and folders that have one writer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from prosemill.errors import StoreFull, StoreNotWritable

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


_LOCK, _BEFORE = ".lock", ".locking"  # a lock file is made and taken under a name that no sweep looks at
_IN_USE = "in-use"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
ABANDONED_SECONDS = 7 * 24 * 3600  # what nothing was written to for so long is dead, whoever wrote it


# flock and not the package filelock: this lock follows its file through a rename, which filelock knows nothing of.
@contextlib.contextmanager
def aside(parent: Path, name: str) -> Iterator[Path]:
    """A new folder `<parent>/<name>.<random>`, gone when the block ends; nobody's `sweep` touches it until then.

    `<folder>.lock` beside it is held from before the folder is there until after it is gone. The kernel frees the lock
    with its holder, kill -9 included. It belongs to the open file, so threads of one process keep each other out, too.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    handle, new_lock = tempfile.mkstemp(prefix=f"{name}.", suffix=_BEFORE, dir=parent)
    folder = Path(new_lock.removesuffix(_BEFORE))
    lock_path = Path(f"{folder}{_LOCK}")
    with open(handle, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(json.dumps({**_machine(), "pid": os.getpid()}))
            lock.flush()
            os.rename(new_lock, lock_path)
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            Path(new_lock).unlink(missing_ok=True)
            _remove(folder, lock_path)


def sweep(parent: Path) -> None:
    """Remove what writers that died left in `parent`: their locks are free, or nothing was written for a week.

    A free lock proves a death only on the machine of its writer: not every network file system has locks that hold for
    all. Nor does one that names no machine: earlier versions made the file first and took the lock a moment later.
    """
    for lock_path in parent.glob(f"*{_LOCK}"):
        folder = Path(str(lock_path).removesuffix(_LOCK))
        with contextlib.suppress(OSError), open(lock_path, "r+", encoding="utf-8", errors="replace") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have removed it, and another made one of the same name, between opening and taking it.
            if is_still_at(lock, lock_path) and (_is_of_this_machine(lock.read()) or _is_abandoned(folder, lock_path)):
                _remove(folder, lock_path)
    # An earlier version made the folder before its lock; a writer may be killed before its lock file has its name.
    for path in parent.iterdir() if parent.is_dir() else ():
        if path.suffix != _LOCK and not os.path.lexists(f"{path}{_LOCK}"):
            remove_abandoned(path)


def remove_abandoned(path: Path) -> None:
    """Remove a file, or a folder with all in it, if nothing there was written for a week."""
    if _is_abandoned(path):
        _remove(path)


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Make a folder and keep `remove_unused` off it while the block lasts; several may use it at the same time."""
    while (lock := _shared_lock(folder)) is None:  # it was removed at this very moment
        pass
    with lock:
        yield


def remove_unused(folder: Path, parent: Path) -> None:
    """Remove a folder unless it is `in_use`; by way of `parent`, so that it goes as a whole and at one moment."""
    with contextlib.suppress(OSError), open(folder / _IN_USE, "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_still_at(lock, folder / _IN_USE):
            with aside(parent, folder.name) as removed:
                os.rename(folder, removed / folder.name)


def _shared_lock(folder: Path) -> IO[str] | None:
    """None where the folder is removed before the lock is held."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / _IN_USE, "a+")  # noqa: SIM115 - closed by the caller
    except (FileNotFoundError, FileExistsError):
        if os.path.lexists(folder) and not folder.is_dir():
            raise
        return None
    fcntl.flock(lock, fcntl.LOCK_SH)
    if is_still_at(lock, folder / _IN_USE):
        return lock
    lock.close()
    return None


def is_still_at(lock: IO[Any], path: Path) -> bool:
    """Whether `path` is still the file that `lock` has open: a lock on one that was removed keeps nobody out."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    return False


def _remove(path: Path, lock_path: Path | None = None) -> None:
    """Remove a folder or file, then its lock, which stays where the folder could not be removed whole."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif lock_path is None:
        path.unlink(missing_ok=True)
    if lock_path is not None and not path.exists():
        lock_path.unlink(missing_ok=True)


def _machine() -> dict[str, str]:
    """The name of this machine, and the start of its kernel, which the containers on it have in common."""
    try:
        boot = _BOOT.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        boot = ""
    return {"host": socket.gethostname(), "boot": boot}


def _is_of_this_machine(text: str) -> bool:
    try:
        holder = json.loads(text)
    except ValueError:
        return False
    return isinstance(holder, dict) and any(value and holder.get(key) == value for key, value in _machine().items())


def _is_abandoned(*paths: Path) -> bool:
    """Whether nothing of these, nor below them, was changed within ABANDONED_SECONDS."""
    since = time.time() - ABANDONED_SECONDS
    try:
        paths_below = [file for path in paths if os.path.lexists(path) for file in (path, *path.rglob("*"))]
        return bool(paths_below) and all(file.lstat().st_mtime < since for file in paths_below)
    except OSError:  # somebody is at work there
        return False


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def disk_errors(url: str, *also: int) -> Iterator[None]:
    """Turn what the operating system says of the store into one line with the next step. `also`: more error numbers."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"{url}: the disk of the store is full; free some space and run the same command again"
            ) from error
        # With `also`, nothing but the store is touched; else an error may be about a page that could not be read.
        ours = bool(also) or error.filename is None or str(error.filename).startswith(url)
        if error.errno in (*_NOT_WRITABLE, *also) and ours:
            raise StoreNotWritable(
                f"{url}: cannot write to the store ({os.strerror(error.errno).lower()}: {error.filename or url}); "
                "choose another with --store or PROSEMILL_STORE"
            ) from error
        raise


def sync_path(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync(folder: Path) -> None:
    """The same for a folder and all files below it."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync_path(path)
    sync_path(folder)


def free_bytes(path: Path) -> int:
    """Free space where `path` is, or will be."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def share_like(model: Path, folder: Path) -> None:
    """Let whoever may read `model` read `folder`: temporary folders, and what some libraries write, are private."""
    mode = model.stat().st_mode & 0o777
    for path in (folder, *folder.rglob("*")):
        path.chmod(mode if path.is_dir() else mode & 0o666)
