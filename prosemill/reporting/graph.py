"""The ancestry of snapshots as a graph small enough to draw.

Shards of one stage that fed the same snapshot are one node, and the stage's own snapshot of the run before is a leaf:
a corpus of a year has thousands of ancestors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prosemill.reporting import summary
from prosemill.storage import run_log
from prosemill.storage.ancestry import walk
from prosemill.storage.manifest import Manifest, stage_of
from prosemill.storage.store import Store

FEW = 3  # parents of one stage that are drawn one by one


@dataclass(frozen=True)
class Node:
    """A snapshot, or `number` of one stage that one snapshot was made from: then `id` says so, and names none."""

    id: str
    stage: str
    as_of: str = ""
    output: str = ""  # "52 documents, 12 new documents"
    run: str = ""  # the flow run that made it
    number: int = 0
    origins: Sequence[str] = ()  # what a scrape read: start URLs, a path


@dataclass
class Graph:
    """Nodes with those that were asked for first, and edges (parent, child)."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def parents_of(self, id: str) -> list[str]:
        return [parent for parent, child in self.edges if child == id]

    def add(self, node: Node) -> bool:
        """Whether it is new."""
        if any(other.id == node.id for other in self.nodes):
            return False
        self.nodes.append(node)
        return True


def ancestry(store: Store, snapshots: Sequence[str]) -> Graph:
    """These snapshots and what they were made from."""
    graph = Graph()
    deque(walk(snapshots, lambda snapshot: _draw(store, graph, snapshot)), maxlen=0)
    return graph


def _draw(store: Store, graph: Graph, snapshot: str) -> list[str]:
    """Add a snapshot and the edges to its parents; those of the parents that are to be drawn in the same way."""
    manifest = run_log.manifest_or_none(store, snapshot)
    if not graph.add(_node(snapshot, manifest)) or manifest is None:
        return []
    further: list[str] = []
    for stage, parents in _by_stage(manifest.parents).items():
        if len(parents) > FEW:
            group = Node(f"{len(parents):,} × {stage}", stage, number=len(parents))
            graph.add(group)
            graph.edges.append((group.id, snapshot))
            continue
        graph.edges += [(parent, snapshot) for parent in parents]
        if stage != manifest.stage:
            further += parents
        else:  # its own previous snapshot is a leaf
            for parent in parents:
                graph.add(_node(parent, run_log.manifest_or_none(store, parent)))
    return further


def _by_stage(parents: Sequence[str]) -> dict[str, list[str]]:
    by_stage: dict[str, list[str]] = {}
    for parent in parents:
        by_stage.setdefault(stage_of(parent), []).append(parent)
    return by_stage


def _node(snapshot: str, manifest: Manifest | None) -> Node:
    stage = stage_of(snapshot)
    if manifest is None:
        return Node(snapshot, stage, output="deleted")
    source = manifest.settings.get("source", {}) if stage == "scrape" else {}
    output = _output_of(manifest)
    return Node(
        snapshot,
        f"{stage} {source['name']}" if source else stage,
        manifest.as_of,
        output,
        manifest.flow_run_id,
        origins=[*source.get("urls", ()), source["path"]] if source.get("path") else _start(source),
    )


def _start(source: Mapping[str, Any]) -> list[str]:
    """The start URLs; of a folder, whose snapshots are the same wherever it lies, its name in the recipe."""
    return list(source.get("urls", ())) or ([f"{source['kind']} {source['name']}"] if source else [])


def _output_of(manifest: Manifest) -> str:
    """The figures that tell most of it."""
    return summary.output_of({"stage": manifest.stage, **manifest.totals}) or f"{manifest.counts.kept:,} kept"
