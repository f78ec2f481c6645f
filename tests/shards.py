"""A scrape of many small archives, as months of runs leave it, without living through them."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prosemill.storage.schemas import LEDGER
from prosemill.storage.store import Store
from prosemill.storage.warc import PageArchive
from prosemill.storage.warc_reader import read_page


def shatter(store: Store, scrape: str, aside: Path) -> str:
    """Replace a scrape by the same scrape with each page in a WARC file of its own; its id, which stays."""
    manifest = store.manifest(scrape)
    old = aside / scrape
    shutil.move(store.local(scrape), old)
    (ledger,) = manifest.shards_of("ledger")
    rows = pq.read_table(old / ledger.path.split("/", 1)[1]).to_pylist()
    with store.write(
        scrape, stage="scrape", version=manifest.stage_version, parents=[], settings=manifest.settings,
        as_of=manifest.as_of, flow_run_id=manifest.flow_run_id,
    ) as writer:  # fmt: skip
        with PageArchive(writer.folder, max_pages=1) as archive:
            for row in rows:
                place = archive.add(read_page(old / row["warc"].split("/", 1)[1], row["warc_offset"]))
                row |= {"warc": f"{scrape}/{place.file}", "warc_offset": place.offset, "warc_length": place.length}
        for name, number in archive.files:
            writer.add(name, "pages", number)
        pq.write_table(pa.Table.from_pylist(rows, LEDGER), writer.path("ledger.parquet"))
        writer.add("ledger.parquet", "ledger", len(rows))
        writer.counts, writer.totals = manifest.counts, dict(manifest.totals)
    return scrape
