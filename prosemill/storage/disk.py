"""What the store asks of a disk: errors in words, digests, durable writes, room, and the leavings of dead writers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from prosemill.errors import StoreFull, StoreNotWritable

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def sweep(parent: Path) -> None:
    """Remove what writers that died left behind: their locks are free."""
    for lock_path in parent.glob("*.lock"):
        with contextlib.suppress(OSError), open(lock_path, "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(str(lock_path).removesuffix(".lock"), ignore_errors=True)
            lock_path.unlink(missing_ok=True)


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
    existing = next(each for each in (path, *path.parents) if each.exists())
    return shutil.disk_usage(existing).free


def share_like(model: Path, folder: Path) -> None:
    """Let whoever may read `model` read `folder`: temporary folders, and what some libraries write, are private."""
    mode = model.stat().st_mode & 0o777
    for path in (folder, *folder.rglob("*")):
        path.chmod(mode if path.is_dir() else mode & 0o666)
