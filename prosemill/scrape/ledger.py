"""The ledger: one row per URL per scrape, in Parquet (records.LEDGER)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prosemill.storage.manifest import Counts
from prosemill.storage.schemas import LEDGER, LIVE_STATES

LEDGER_FILE = "ledger.parquet"


@dataclass(slots=True)
class LedgerRow:
    """What was asked, what came back, what was decided and why; the columns of records.LEDGER."""

    url: str
    source: str
    state: str = "skipped"
    reason: str = ""
    http_status: int = 0
    fetched_at: str = ""
    etag: str = ""
    last_modified: str = ""
    content_type: str = ""
    content_sha256: str = ""
    size_bytes: int = 0
    depth: int = 0
    referrer: str = ""
    redirected_to: str = ""
    opt_out: str = ""
    warc: str = ""
    warc_offset: int = 0
    warc_length: int = 0

    @property
    def is_live(self) -> bool:
        return self.state in LIVE_STATES


_NAMES = [field.name for field in fields(LedgerRow)]


def write_ledger(path: Path, rows: Sequence[LedgerRow]) -> None:
    columns = {name: [getattr(row, name) for row in rows] for name in _NAMES}
    pq.write_table(pa.table(columns, schema=LEDGER), path, compression="zstd")


def read_ledger(path: Path) -> list[LedgerRow]:
    return [LedgerRow(**record) for record in pq.read_table(path, schema=LEDGER).to_pylist()]


def counts(rows: Sequence[LedgerRow]) -> Counts:
    """Kept are the rows that go on to strip; the others are counted by reason."""
    dropped = Counter(row.reason for row in rows if not row.is_live)
    return Counts(seen=len(rows), kept=sum(row.is_live for row in rows), dropped=dict(sorted(dropped.items())))
