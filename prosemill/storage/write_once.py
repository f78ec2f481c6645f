"""Small JSON files in the store that are written once, whole, and never rewritten.

Of two concurrent writers one wins, and both get what was written.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prosemill.storage.disk import disk_errors, sync_path
from prosemill.storage.store import Store

Record = dict[str, Any]


def read(store: Store, path: str) -> Record | None:
    """The record at `path` (below the store), None if it was not written."""
    try:
        found: Record = json.loads(store.fs.cat_file(f"{store.root}/{path}"))
    except FileNotFoundError:
        return None
    return found


def write(store: Store, path: str, record: Mapping[str, Any]) -> tuple[Record, bool]:
    """Write the record if there is none; what is at `path` now, and whether it is this one."""
    text = json.dumps(dict(record), indent=1, sort_keys=True, ensure_ascii=False).encode()
    at = f"{store.root}/{path}"
    with disk_errors(store.url):
        try:
            if store.is_local:
                _link_into_place(Path(at), text)
            else:
                store.fs.pipe_file(at, text, mode="create")  # S3: If-None-Match, so that the first one wins there too
        except FileExistsError:
            stands = read(store, path)
            assert stands is not None  # it exists and is never removed
            return stands, False
    return dict(record), True


def get_or_create(store: Store, path: str, find_out: Callable[[], Mapping[str, Any]]) -> Record:
    """The record at `path`; without one, `find_out()` is written first."""
    found = read(store, path)
    return found if found is not None else write(store, path, find_out())[0]


def _link_into_place(path: Path, text: bytes) -> None:
    """FileExistsError if it is there already; unlike a rename, a link replaces nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, path.parent.stat().st_mode & 0o666)
        os.link(aside, path)
        sync_path(path.parent)
    finally:
        os.unlink(aside)
