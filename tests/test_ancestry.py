"""The walk of the manifest graph: each snapshot once, nearest first, whatever is missing on the way."""

import re
import shutil
from pathlib import Path

import pytest

from prosemill.errors import SnapshotMissing
from prosemill.storage.ancestry import ancestors, training_chunks, walk
from prosemill.storage.manifest import snapshot_id
from prosemill.storage.store import Store

ROOT = Path(__file__).parent.parent


def write_empty(store: Store, stage: str, name: str, *parents: str) -> str:
    id = snapshot_id(stage, 1, inputs=[name], settings={})
    with store.write(id, stage=stage, version=1, parents=parents, settings={}) as writer:
        (writer.folder / "empty").touch()
    return id


def removed(store: Store, snapshot: str) -> None:
    shutil.rmtree(Path(store.root) / "snapshots" / snapshot)


def test_what_is_reached_in_two_ways_or_in_a_circle_comes_once_nearest_first() -> None:
    edges = {"a": ["b", "c"], "b": ["d"], "c": ["d", "a"], "d": ["e"]}
    assert list(walk(["a", "b"], lambda id: edges.get(id, ()))) == ["a", "b", "c", "d", "e"]


def test_ancestors_follow_the_stages_that_are_asked_for_and_leave_out_what_was_deleted(store: Store) -> None:
    strip, older_strip = write_empty(store, "strip", "new"), write_empty(store, "strip", "old")
    older = write_empty(store, "dedup", "old", older_strip)
    dedup = write_empty(store, "dedup", "new", strip, older)
    assert [manifest.id for manifest in ancestors(store, [dedup])] == [dedup, strip, older, older_strip]
    assert [manifest.id for manifest in ancestors(store, [dedup], only=("dedup",))] == [dedup, older]
    assert list(ancestors(store, [strip], only=("dedup",))) == []
    removed(store, older)
    assert [manifest.id for manifest in ancestors(store, [dedup])] == [dedup, strip]


def test_a_model_learned_from_its_own_chunks_and_its_champions(store: Store) -> None:
    old, new, replayed = (write_empty(store, "chunk", name) for name in ("old", "new", "replayed"))
    champion = write_empty(store, "finetune", "champion", old, replayed)
    model = write_empty(store, "finetune", "challenger", new, champion, replayed)
    assert training_chunks(store, "") == []
    assert training_chunks(store, model) == [new, replayed, old]
    removed(store, old)
    assert training_chunks(store, model) == [new, replayed, old]
    removed(store, champion)
    with pytest.raises(SnapshotMissing):
        training_chunks(store, model)


def test_nobody_else_walks_the_graph() -> None:
    walkers = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "prosemill").rglob("*.py")
        if re.search(r"todo \+?= .*parents|todo\.(append|extend)\(.*parent", path.read_text(encoding="utf-8"))
    ]
    assert walkers == []
