"""The manifest that makes a snapshot exist, and the names that it gives to snapshots and documents."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Shard:
    """One file of a snapshot. `path` is "<snapshot id>/<file>": of this snapshot, or of an earlier one it builds on."""

    path: str
    role: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Counts:
    """seen = kept + everything in `dropped`, by reason."""

    seen: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seen != self.kept + sum(self.dropped.values()):
            raise ValueError(f"counts do not add up: seen {self.seen}, kept {self.kept}, dropped {dict(self.dropped)}")


@dataclass(frozen=True)
class Manifest:
    """What a snapshot is and where it came from; written last, so that its existence means completeness."""

    id: str
    stage: str
    stage_version: int
    parents: Sequence[str]
    settings: Mapping[str, Any]
    as_of: str
    counts: Counts
    totals: Mapping[str, Any]  # tokens, chunks, bytes, steps … and other figures of the stage
    shards: Sequence[Shard]
    partial: bool = False  # the stage ended in good order without seeing everything (a site went down half way)
    created_at: str = ""
    duration_seconds: float = 0.0
    cpu_seconds: float = 0.0
    code_commit: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    flow_run_id: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        fields = json.loads(text)
        fields["counts"] = Counts(**fields["counts"])
        fields["shards"] = [Shard(**shard) for shard in fields["shards"]]
        return cls(**fields)

    def shards_of(self, role: str) -> list[Shard]:
        return [shard for shard in self.shards if shard.role == role]


def digest(value: Any) -> str:
    """Hexadecimal SHA-256 of `value` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def snapshot_id(
    stage: str, version: int, *, inputs: Sequence[str], settings: Mapping[str, Any], as_of: str = ""
) -> str:
    """The name of what `stage` makes of these inputs: equal inputs, settings, version (and date) give equal names."""
    key = {"stage": stage, "version": version, "inputs": list(inputs), "settings": dict(settings), "as_of": as_of}
    return f"{stage}-{digest(key)[:16]}"


def is_snapshot_id(text: str, stage: str = r"[a-z]+(?:-[a-z]+)*") -> bool:
    """Whether `text` is the name of a snapshot (of this stage)."""
    return re.fullmatch(rf"(?:{stage})-[0-9a-f]{{16}}", text) is not None


def stage_of(snapshot: str) -> str:
    """The stage that a snapshot's id names."""
    return snapshot.rpartition("-")[0]


def document_id(url: str, text: str) -> str:
    """20 hexadecimal digits (80 bits) that name this text at this URL."""
    return hashlib.sha256(f"{url}\n{text}".encode()).hexdigest()[:20]
