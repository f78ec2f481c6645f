"""Files and folders of this machine that are there whole or not at all: made beside their place, moved there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prosemill.storage.disk import sync, sync_path


@contextlib.contextmanager
def new_file(path: Path, *, once: bool = False) -> Iterator[Path]:
    """An empty file to write, which takes the place of `path` when the block ends well.

    With `once` it replaces nothing: FileExistsError, also if somebody else was faster. Whoever may read the folder may
    read the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        yield Path(temporary)
        os.chmod(temporary, path.parent.stat().st_mode & 0o666)
        sync_path(Path(temporary))
        if once:
            os.link(temporary, path)  # unlike a rename, it replaces nothing
        else:
            os.replace(temporary, path)
        sync_path(path.parent)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write(path: Path, content: bytes | str, *, once: bool = False) -> None:
    """The same with the content at hand."""
    with new_file(path, once=once) as file:
        file.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `path` when the block ends well; OSError if that is there, not empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        sync(temporary)
        os.rename(temporary, path)
        sync_path(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
