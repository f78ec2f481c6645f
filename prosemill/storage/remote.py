"""Stores outside local folders: opening them through fsspec, what goes wrong there in words, and the local cache.

Whoever needs real files (memory maps, the Trainer, Parquet readers) gets them from the cache, where each file is
fetched once. The cache is bounded: what was used longest ago goes first, nothing of the last day goes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec

from prosemill.config import environment
from prosemill.errors import StoreError, StoreFull, StoreNotWritable, StoreRefused, StoreUnreachable
from prosemill.storage.disk import aside, disk_errors, remove_abandoned, sync_path

log = logging.getLogger(__name__)

# Buckets have no folders to make, an object is there whole or not at all, and a rename is a copy and a deletion.
BUCKETS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss"}
KEPT_SECONDS = 24 * 3600  # a run may still open what it was given a while ago
_NETWORK = (
    "botocore",
    "aiobotocore",
    "aiohttp",
    "urllib3",
    "google",
    "azure",
    "gcsfs",
)  # packages with errors of theirs
_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError")


def open_filesystem(url: str) -> tuple[Any, str]:
    """The file system of a folder or URL, and the path on it. Listings are never cached: others write there too."""
    protocol = url.partition("://")[0]
    try:
        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        extra = "pip install 'prosemill[s3]'" if protocol in ("s3", "s3a") else str(error)
        raise StoreError(f"{url}: the package that reads {protocol}:// is not installed; {extra}") from error
    except ValueError as error:
        raise StoreError(
            f"{url}: no store can be there ({error}); give a folder, or a URL such as s3://bucket"
        ) from error
    return fs, str(root).rstrip("/")


def is_local(fs: Any) -> bool:
    return "file" in protocols(fs)


def is_bucket(fs: Any) -> bool:
    return bool(BUCKETS & set(protocols(fs)))


def protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def write_whole(fs: Any, path: str, content: bytes | Path) -> None:
    """Write a file (the content of a local one, or bytes): readers see what was there before, or all of it."""

    def put(name: str) -> None:
        if isinstance(content, Path):
            fs.put_file(str(content), name)
        else:
            fs.pipe_file(name, content)

    if is_bucket(fs):  # where an object is replaced at once, but a rename is two steps
        put(path)
        return
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"  # another machine may write the same at the same moment
    try:
        put(temporary)
        if is_local(fs):
            sync_path(Path(temporary))
            os.replace(temporary, path)
        else:
            fs.mv(temporary, path)
    except BaseException:
        with contextlib.suppress(Exception):
            fs.rm_file(temporary)
        raise


@contextlib.contextmanager
def store_errors(url: str, *, writing: bool = False) -> Iterator[None]:
    """Turn what goes wrong at the store `url` into one line: what, where, what next. A missing file stays one."""
    if "://" not in url or url.startswith("file:"):
        with disk_errors(url):
            yield
        return
    try:
        yield
    except FileNotFoundError as error:
        if "bucket" in str(error).lower() and "does not exist" in str(error):
            raise StoreRefused(f"{url}: there is no such bucket; create it, or correct the URL") from error
        raise
    except PermissionError as error:
        kind, verb = (StoreNotWritable, "write") if writing else (StoreRefused, "read")
        raise kind(
            f"{url}: not allowed to {verb} there ({_first_line(error)}); check the credentials "
            "(AWS_ACCESS_KEY_ID … or AWS_PROFILE) and what the bucket's policy grants them"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _NETWORK:
            raise _in_words(url, error) from error
        raise


def _in_words(url: str, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(
            f"{environment.cache_folder()}: no room for files of {url}; free some space there, or set "
            "PROSEMILL_CACHE and PROSEMILL_CACHE_GB"
        )
    if type(error).__name__ in _CREDENTIALS:
        return StoreRefused(
            f"{url}: no credentials ({_first_line(error)}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE"
        )
    if isinstance(error, OSError) and error.filename:  # of the local cache, or of a page that is being read
        return error
    return StoreUnreachable(
        f"{url}: the store does not answer as it should ({_first_line(error)}); check that it is up, and "
        "AWS_ENDPOINT_URL"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class Cache:
    """Files of a remote store on this machine, below PROSEMILL_CACHE; also where its work folders and locks are."""

    def __init__(self, url: str) -> None:
        self.folder = environment.cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16]

    def get(self, fs: Any, remote: str, path: str) -> Path:
        """The file or folder `remote` as a local path, fetched as far as it is not here; FileNotFoundError."""
        here = self.folder / "snapshots" / path
        if here.is_file() and not self._missing([here]):
            return here
        names = [str(name) for name in fs.find(remote)]
        if not names:
            raise FileNotFoundError(remote)
        start = len(remote.rstrip("/"))
        self._fetch(fs, {Path(f"{here}{name[name.index(remote) + start :]}"): name for name in names})
        return here

    def _fetch(self, fs: Any, wanted: Mapping[Path, str]) -> None:
        """Those of the files that are not here: written aside and renamed, since another process may want them too."""
        missing = self._missing(wanted)
        if not missing:
            return
        with aside(self.folder / "tmp", "fetching") as folder:
            got = [folder / str(number) for number in range(len(missing))]
            fs.get([wanted[path] for path in missing], [str(path) for path in got])
            for path, file in zip(missing, got, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                os.utime(file)  # a fetch may have taken longer than a file is kept
                os.replace(file, path)

    def _missing(self, paths: Iterable[Path]) -> list[Path]:
        """Those that are not here; the others are kept for KEPT_SECONDS from now on."""
        with self._locked(fcntl.LOCK_SH):
            return [path for path in paths if not _touched(path)]

    def trim(self, now: float | None = None) -> int:
        """Remove what was used longest ago until PROSEMILL_CACHE_GB is kept to; how many bytes went."""
        before = (now or time.time()) - KEPT_SECONDS
        for folder in self.folder.glob("fetching-*"):  # where earlier versions fetched into
            remove_abandoned(folder)
        with self._locked(fcntl.LOCK_EX):
            files = sorted(self._files())
            excess = sum(size for _, size, _ in files) - environment.cache_limit_bytes()
            removed = 0
            for used, size, file in files:
                if removed >= excess or used > before:
                    break
                file.unlink(missing_ok=True)
                removed += size
        if removed:
            log.info("%s: removed %d MB that were not used lately", self.folder, removed >> 20)
        return removed

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Time of the last use, size and path, of all stores: the bound is on the cache as a whole."""
        for path in self.folder.parent.glob("*/snapshots/**/*"):
            with contextlib.suppress(FileNotFoundError):  # somebody removes a store's folder
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    yield status.st_mtime, status.st_size, path

    # flock and not the package filelock: readers share it, and filelock's lock for that is an SQLite database.
    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """Nothing is removed between being found here and being marked as used. The lock file itself stays for ever."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(self.folder.parent / "lock", "a+") as lock:
            fcntl.flock(lock, how)
            yield


def _touched(path: Path) -> bool:
    """Whether there is such a file; it counts as used now."""
    try:
        os.utime(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return path.is_file()
