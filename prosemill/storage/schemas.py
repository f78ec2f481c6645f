"""The records that stages exchange: their columns, and the manifest that makes a snapshot exist."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

# One row per URL per scrape, the skipped ones too.
LEDGER = pa.schema(
    [
        ("url", pa.string()),  # as asked for, after canonical form
        ("source", pa.string()),
        ("state", pa.string()),  # fetched | unchanged | skipped | failed | gone
        ("reason", pa.string()),  # why it is not `fetched`; "" for fetched and unchanged
        ("http_status", pa.int32()),  # 0 when nothing was asked
        ("fetched_at", pa.string()),  # ISO 8601, UTC; of the body that `warc` holds
        ("etag", pa.string()),
        ("last_modified", pa.string()),
        ("content_type", pa.string()),
        ("content_sha256", pa.string()),  # of the decoded (unzipped) body
        ("size_bytes", pa.int64()),
        ("depth", pa.int32()),
        ("referrer", pa.string()),
        ("redirected_to", pa.string()),
        ("opt_out", pa.string()),  # what was read: "" or for example "meta:noai", "robots:GPTBot", "tdmrep"
        ("warc", pa.string()),  # "<snapshot id>/<file>" that holds the body, of this or an earlier scrape
        ("warc_offset", pa.int64()),
        ("warc_length", pa.int64()),
    ]
)
LIVE_STATES = ("fetched", "unchanged")  # rows whose body goes on to strip

DOCUMENT = pa.schema(
    [
        ("id", pa.string()),  # document_id(url, text)
        ("url", pa.string()),
        ("source", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("date", pa.string()),  # ISO date that the page states, "" when it states none
        ("language", pa.string()),  # ISO 639-1, "" when too short to tell
        ("charset", pa.string()),
        ("fetched_at", pa.string()),
        ("content_sha256", pa.string()),
        ("size_bytes", pa.int64()),  # of `text` in UTF-8
        ("scrubbed", pa.int32()),  # how many e-mail addresses, numbers … were replaced
    ]
)

DROPPED = pa.schema(  # strip: pages that gave no document
    [
        ("url", pa.string()),
        ("source", pa.string()),
        ("content_sha256", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)

REMOVED = pa.schema(  # dedup: documents that have a kept twin
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("keeper", pa.string()),
        ("keeper_url", pa.string()),
        ("similarity", pa.float64()),  # exact Jaccard of the shingle sets
        ("reason", pa.string()),  # exact | near
    ]
)

WITHDRAWN = pa.schema(  # dedup: keepers whose page was read once and opts out now
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("reason", pa.string()),  # the opt-out, as the ledger has it
        ("since", pa.string()),  # as_of of the run that found it
    ]
)

PAIR = pa.schema(
    [("a", pa.string()), ("b", pa.string()), ("similarity", pa.float64())]
)  # keepers, loose <= J < threshold

SPLIT = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("split", pa.string()),  # train | validation | test | excluded
        ("component", pa.string()),  # smallest document id of the loose component
        ("reason", pa.string()),  # "" or, for excluded, near_held_out | contains_held_out
        ("first_seen", pa.string()),  # as_of of the run that fixed it
    ]
)

CONTAINER = pa.schema(  # split: documents kept out of training because they hold a held-out one, whole or nearly
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("held_out", pa.string()),
        ("held_out_url", pa.string()),
        ("share", pa.float64()),  # of the held-out document's shingles
    ]
)

CHUNK_MAP = pa.schema(
    [
        ("chunk", pa.string()),  # "<snapshot id>/<file>#<row>"
        ("split", pa.string()),
        ("document", pa.string()),
        ("url", pa.string()),
        ("chunk_start", pa.int32()),  # first token of the piece, within the chunk
        ("document_start", pa.int32()),  # the same token, within the document
        ("num_tokens", pa.int32()),  # of this piece, the end-of-text included
    ]
)

SCORE = pa.schema(  # evaluate: one row per model and document
    [
        ("model", pa.string()),  # base | previous | champion | challenger
        ("model_id", pa.string()),
        ("document", pa.string()),
        ("part", pa.string()),  # test | validation | train | general; all but test are samples
        ("source", pa.string()),
        ("first_seen", pa.string()),  # as_of of the run that first met the document, "" for general text
        ("nats", pa.float64()),  # negative log-likelihood, summed over the scored tokens
        ("num_tokens", pa.int64()),  # scored tokens
        ("size_bytes", pa.int64()),  # of the text those tokens spell
    ]
)


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
    totals: Mapping[str, Any]  # tokens, chunks, bytes, steps … whatever else the stage is proud of
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


def document_id(url: str, text: str) -> str:
    """20 hexadecimal digits (80 bits) that name this text at this URL."""
    return hashlib.sha256(f"{url}\n{text}".encode()).hexdigest()[:20]


def moment(at: datetime | None = None) -> str:
    """`at`, or now, UTC, to the second, as records have it; these sort as text."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
