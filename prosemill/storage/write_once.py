"""Small JSON files in the store that are written once, whole, and never rewritten.

Of two concurrent writers one wins, and both get what was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prosemill.storage import atomic
from prosemill.storage.disk import disk_errors
from prosemill.storage.store import Store

Record = dict[str, Any]


def read(store: Store, path: str) -> Record | None:
    """The record at `path` (below the store), None if it was not written."""
    try:
        record: Record = json.loads(store.fs.cat_file(f"{store.root}/{path}"))
    except FileNotFoundError:
        return None
    return record


def write(store: Store, path: str, record: Mapping[str, Any]) -> tuple[Record, bool]:
    """Write the record if there is none; what is at `path` now, and whether it is this one."""
    text = json.dumps(dict(record), indent=1, sort_keys=True, ensure_ascii=False).encode()
    at = f"{store.root}/{path}"
    with disk_errors(store.url):
        try:
            if store.is_local:
                atomic.write(Path(at), text, once=True)
            else:
                store.fs.pipe_file(at, text, mode="create")  # S3: If-None-Match, so that the first one wins there too
        except FileExistsError:
            stands = read(store, path)
            assert stands is not None  # it exists and is never removed
            return stands, False
    return dict(record), True


def get_or_create(store: Store, path: str, find_out: Callable[[], Mapping[str, Any]]) -> Record:
    """The record at `path`; without one, `find_out()` is written first."""
    record = read(store, path)
    return record if record is not None else write(store, path, find_out())[0]
