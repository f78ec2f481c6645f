"""Shards that are one JSON document."""

from __future__ import annotations

import json
from typing import Any

from prosemill.storage.store import Store


def read_json(store: Store, snapshot: str, role: str) -> Any:
    """The JSON shard of that role."""
    (shard,) = store.manifest(snapshot).shards_of(role)
    return json.loads(store.local(shard.path).read_text(encoding="utf-8"))
