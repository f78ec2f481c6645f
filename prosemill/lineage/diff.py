"""What changed between two snapshots of one stage: members come and gone, settings, counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from prosemill.errors import RecipeError
from prosemill.storage import stages
from prosemill.storage.manifest import Manifest
from prosemill.storage.schemas import LIVE_STATES
from prosemill.storage.stages import Members
from prosemill.storage.store import Store

EXAMPLES = 5


def diff(store: Store, before: str, after: str) -> dict[str, Any]:
    """{stage, added, removed, changed: {number, examples}, settings, counts, totals} of two snapshots of one stage."""
    old, new = store.manifest(before), store.manifest(after)
    if old.stage != new.stage:
        raise RecipeError(f"{before} is of stage {old.stage}, {after} of stage {new.stage}: compare two of one stage")
    members = {}
    if columns := stages.of(old.stage).members:
        was, now = _members(store, old, columns), _members(store, new, columns)
        members = {
            "added": _listed(sorted(now.keys() - was.keys())),
            "removed": _listed(sorted(was.keys() - now.keys())),
            "changed": _listed(sorted(key for key in was.keys() & now.keys() if was[key] != now[key])),
        }
    return {
        "stage": old.stage, "before": before, "after": after, **members,
        "settings": _changes(old.settings, new.settings),
        "counts": _changes({"seen": old.counts.seen, "kept": old.counts.kept, **old.counts.dropped},
                           {"seen": new.counts.seen, "kept": new.counts.kept, **new.counts.dropped}),
        "totals": _changes(old.totals, new.totals),
    }  # fmt: skip


def _members(store: Store, manifest: Manifest, of: Members) -> dict[str, str]:
    columns = [of.name, of.value, *(["state"] if of.role == "ledger" else [])]
    members: dict[str, str] = {}
    for shard in manifest.shards_of(of.role):
        for row in pq.read_table(store.local(shard.path), columns=columns).to_pylist():
            if row.get("state", LIVE_STATES[0]) in LIVE_STATES:
                members[row[of.name]] = row[of.value]
    return members


def _listed(names: list[str]) -> dict[str, Any]:
    return {"number": len(names), "examples": names[:EXAMPLES]}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """{key: [before, after]} of what differs."""
    keys = sorted({*old, *new})
    return {key: [old.get(key), new.get(key)] for key in keys if old.get(key) != new.get(key)}
