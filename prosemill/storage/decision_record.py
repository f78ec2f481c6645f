"""A decision as it is recorded in gate snapshots, in the registry's tags and in the logs of runs.

Version 0.1 wrote the key `verdict`, and `keep` for a rejected challenger. Both are read as `decision` and `reject`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prosemill.storage.json_shards import read_json
from prosemill.storage.store import Store

OLD_KEY = "verdict"
_OLD_VALUES = {"keep": "reject"}


def read_decision(store: Store, snapshot: str) -> dict[str, Any]:
    """decision.json of a gate snapshot, with today's names."""
    return with_new_names(read_json(store, snapshot, "decision"))


def with_new_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record; what stands under the old key is under `decision`."""
    if OLD_KEY not in fields:
        return dict(fields)
    value = fields[OLD_KEY]
    rest = {key: field for key, field in fields.items() if key != OLD_KEY}
    return {"decision": _OLD_VALUES.get(value, value), **rest}


def with_old_key(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields and, for one release, the decision under the key and with the word that scripts know."""
    value = fields["decision"]
    old = {new: word for word, new in _OLD_VALUES.items()}
    return {**fields, OLD_KEY: old.get(value, value)}
