"""Opt-outs that come later: documents of pages that were read once, and whose owner has opted out since.

A URL is withdrawn when a ledger of this run says that it carries an opt-out and is not live, and stays so until it is
live without one; the recipe decides what counts (`scrape.obey_opt_outs`). Every keeper of the URL goes with it: it
stays in its shard, which never changes, and is listed in the role `withdrawn`, which whoever reads the corpus leaves
out. So it is in no training, validation or test set from that snapshot on, and back in the same split when its page is.

What a keeper had removed as its copies stays removed, though the keeper is withdrawn: it is nearly the same text. A
page that is merely gone (404) is not an opt-out: its text was published and learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prosemill.dedup.previous import PreviousDedup
from prosemill.storage import arrow
from prosemill.storage.manifest import stage_of
from prosemill.storage.schemas import LEDGER, LIVE_STATES, WITHDRAWN
from prosemill.storage.store import SnapshotWriter, Store

FILE = "withdrawn-00000.parquet"

Withdrawn = dict[str, tuple[str, str]]  # URL -> reason, since


def find(store: Store, strip: str, past: PreviousDedup, as_of: str) -> Withdrawn:
    """URLs that are withdrawn on the run of `strip`, sorted. Costs nothing while no page opts out."""
    before = _read(past)
    scrapes = [parent for parent in store.manifest(strip).parents if stage_of(parent) == "scrape"]
    with_opt_outs = [scrape for scrape in scrapes if store.manifest(scrape).totals.get("opted_out")]
    opted_out = dict(row for scrape in with_opt_outs for row in _opted_out(store, scrape))
    if not (before or opted_out):
        return {}
    live = _live(store, scrapes, [*before, *opted_out])
    withdrawn = {url: entry for url, entry in before.items() if url in opted_out or url not in live}
    known = set(past.names.table()["url"].to_pylist()) if opted_out else set()
    for url, reason in opted_out.items():
        if url in known or url in live:  # live in another source: one source that opts out is enough
            withdrawn.setdefault(url, (reason, as_of))
    return dict(sorted(withdrawn.items()))


def write(
    writer: SnapshotWriter, names: pa.Table, withdrawn: Mapping[str, tuple[str, str]], as_of: str
) -> dict[str, int]:
    """List the keepers of these URLs; `names` are all keepers (id, url). Figures for the totals."""
    chosen = names.filter(pc.is_in(names["url"], value_set=pa.array(list(withdrawn), pa.string())))
    rows = [
        {"id": id, "url": url, "reason": withdrawn[url][0], "since": withdrawn[url][1]}
        for id, url in zip(chosen["id"].to_pylist(), chosen["url"].to_pylist(), strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=WITHDRAWN), writer.path(FILE), compression="zstd")
    writer.add(FILE, "withdrawn", len(rows))
    return {"withdrawn": len(rows), "newly_withdrawn": sum(row["since"] == as_of for row in rows)}


def _read(past: PreviousDedup) -> Withdrawn:
    withdrawn: Withdrawn = {}
    for shard in past.shards("withdrawn"):
        for row in pq.read_table(past.store.local(shard.path)).to_pylist():
            withdrawn[row["url"]] = (row["reason"], row["since"])
    return withdrawn


def _opted_out(store: Store, scrape: str) -> Iterator[tuple[str, str]]:
    """URL and opt-out of the pages that are not read because of it."""
    is_opted_out = (pc.field("opt_out") != "") & ~pc.field("state").isin(LIVE_STATES)
    for shard in store.manifest(scrape).shards_of("ledger"):
        table = pq.read_table(store.local(shard.path), columns=["url", "opt_out"], schema=LEDGER, filters=is_opted_out)
        yield from zip(table["url"].to_pylist(), table["opt_out"].to_pylist(), strict=True)


def _live(store: Store, scrapes: Iterable[str], urls: list[str]) -> set[str]:
    """Those of `urls` that are live in this run."""
    is_wanted = pc.field("state").isin(LIVE_STATES) & arrow.is_one_of("url", urls)
    live: set[str] = set()
    for scrape in scrapes:
        for shard in store.manifest(scrape).shards_of("ledger"):
            path = store.local(shard.path)
            live.update(pq.read_table(path, columns=["url"], schema=LEDGER, filters=is_wanted)["url"].to_pylist())
    return live
