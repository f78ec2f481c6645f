"""From which chunks a model learned."""

from __future__ import annotations

from collections.abc import Sequence

from prosemill.storage.store import Store


def training_parents(store: Store, snapshot: str) -> Sequence[str]:
    """The chunk snapshots that a finetune snapshot learned from, its champion's before it included."""
    found: list[str] = []
    todo = [snapshot]
    while todo:
        for parent in store.manifest(todo.pop()).parents:
            if parent.startswith("chunk-"):
                found.append(parent)
            elif parent.startswith("finetune-"):
                todo.append(parent)
    return found
