"""Decisions of dedup that a person took back: the document stays from the next snapshot on, whatever it resembles.

<store>/corpora/<name>/undone/<document>.json     url, keeper, similarity, who, at: written once
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prosemill.storage import write_once
from prosemill.storage.store import Store
from prosemill.storage.times import moment


def of(store: Store, corpus: str) -> list[str]:
    """Ids of the documents of a corpus that are kept because a person says so, sorted."""
    try:
        paths = store.fs.ls(f"{store.root}/corpora/{corpus}/undone", detail=False)
    except FileNotFoundError:
        return []
    return sorted(name.removesuffix(".json") for name in (str(path).rsplit("/", 1)[-1] for path in paths))


def undo(store: Store, corpus: str, removed: Mapping[str, Any], who: str) -> bool:
    """Keep a removed document (a row of records.REMOVED) from the next snapshot on; False if that was said before."""
    record = {key: removed[key] for key in ("url", "keeper", "keeper_url", "similarity")} | {"who": who, "at": moment()}
    return write_once.write(store, f"corpora/{corpus}/undone/{removed['id']}.json", record)[1]
