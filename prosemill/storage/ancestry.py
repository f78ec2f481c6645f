"""The graph of manifests: what a snapshot was made from, walked in one way by all who ask."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator

from prosemill.storage.manifest import Manifest, stage_of
from prosemill.storage.store import Store


def walk(starts: Iterable[str], next_of: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """`starts` and all that `next_of` leads to, nearest first, each once."""
    todo, seen = deque(starts), set[str]()
    while todo:
        id = todo.popleft()
        if id not in seen:
            seen.add(id)
            todo.extend(next_of(id))
            yield id


def ancestors(store: Store, starts: Iterable[str], only: Container[str] = ()) -> Iterator[Manifest]:
    """The manifests of `starts` and of all that they were made from, nearest first; deleted snapshots are left out.

    `only`: stages whose snapshots are followed; all without it.
    """
    manifests: dict[str, Manifest] = {}

    def parents_of(id: str) -> list[str]:
        if (only and stage_of(id) not in only) or not store.has(id):
            return []
        manifests[id] = store.manifest(id)
        return list(manifests[id].parents)

    return (manifests[id] for id in walk(starts, parents_of) if id in manifests)


def training_chunks(store: Store, model: str) -> list[str]:
    """The chunk snapshots that a finetune snapshot learned from, its champion's before it included; none for "".

    Their names are in the manifests of models, so they may be deleted; a model on the way may not: SnapshotMissing.
    """

    def parents_of(id: str) -> list[str]:
        return list(store.manifest(id).parents) if stage_of(id) == "finetune" else []

    return [id for id in walk([model] if model else [], parents_of) if stage_of(id) == "chunk"]
