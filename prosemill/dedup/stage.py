"""The stage: a run's new documents against each other and against every keeper of the runs before.

Order of arrival, for the documents that one run brings, is (source, URL, id): it does not depend on which page the
crawler happened to read first. A document that an earlier run has compared, kept or not, is not compared again, and a
keeper stays one. A keeper has the id that strip gave it, though lines may have been taken out of its text. Keepers
whose page opts out now are listed as withdrawn (see `retractions`), and readers of the corpus leave them out.
"""

from __future__ import annotations

import functools
import tempfile
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prosemill.config.settings import Dedup
from prosemill.dedup import boilerplate, index, retractions
from prosemill.dedup.index import History, IndexSegment
from prosemill.dedup.known_index import NAMES, ROLE, WITH_SOURCE, KnownDocuments, Names
from prosemill.dedup.minhash import Parameters, sign_arrays
from prosemill.dedup.new_documents import Arrivals, arrivals, write_batches
from prosemill.dedup.previous import PreviousDedup
from prosemill.dedup.search import choose
from prosemill.dedup.shingles import Hashes, text_hash
from prosemill.dedup.tables import pairs_table, removed_table
from prosemill.errors import CorpusEmpty
from prosemill.storage import arrow, segments, stages
from prosemill.storage.manifest import Counts, digest, snapshot_id
from prosemill.storage.schemas import DOCUMENT, DROPPED
from prosemill.storage.store import SnapshotWriter, Store

STAGE = stages.of("dedup")
INHERITED = ("keepers", "removed", "dropped", "pairs", "lines")  # names too, and the index while the parameters last
KEEPERS = "keepers-00000.parquet"

Rows = NDArray[np.int64]


def dedup(
    store: Store,
    strip: str,
    settings: Dedup,
    *,
    as_of: str,
    previous: str = "",
    undone: Sequence[str] = (),
    flow_run_id: str = "",
) -> str:
    """Compare the documents of `strip` that `previous` does not know; the id of the snapshot of all keepers so far.

    `undone`: ids of documents that stay whatever they resemble, because a person took their removal back.

    Roles: keepers (records.DOCUMENT), removed (records.REMOVED), dropped (records.DROPPED, its `detail` the document's
    id), pairs (records.PAIR), lines (line counts), names and index (segments of both), withdrawn (records.WITHDRAWN,
    where there are any). Counts are of this run's new documents.
    """
    options = settings.model_dump() | ({"undone": sorted(undone)} if undone else {})
    parents = [strip, previous] if previous else [strip]
    past = PreviousDedup.read(store, previous)
    withdrawn = retractions.find(store, strip, past, as_of)
    # What is withdrawn follows from the inputs; naming it keeps apart what was made of them before this was looked at.
    named = options | ({"withdrawn": digest(withdrawn)} if withdrawn else {})
    id = snapshot_id(STAGE.name, STAGE.version, inputs=parents, settings=named)
    if store.has(id):
        return id
    store.require(*parents)
    with (
        store.write(
            id, stage=STAGE.name, version=STAGE.version, parents=parents, settings=options, as_of=as_of,
            flow_run_id=flow_run_id,
        ) as writer,
        tempfile.TemporaryDirectory(dir=writer.folder, prefix=".arrivals-") as folder,
    ):  # fmt: skip
        arrived, num_live = _arrivals(store, strip, past, undone, Path(folder))
        stay = {row for row, id in enumerate(arrived.names["id"].to_pylist() if undone else ()) if id in undone}
        for role in INHERITED:
            writer.inherit(past.shards(role))
        cleaned = _clean(arrived, past.line_counts(), settings)
        kept = _search(writer, past, cleaned, settings, stay, Path(folder))
        writer.totals = {
            "live_documents": num_live,
            "cleaned_documents": cleaned.num_changed,
            "new_documents": len(kept),
            "documents": _rows(writer, "keepers"),
            "removed": _rows(writer, "removed"),
            "pairs": _rows(writer, "pairs"),
        }
        if withdrawn:
            added = arrived.names.select(NAMES.names).take(arrow.numbers(kept))
            names = pa.concat_tables([past.names.table(), added])
            writer.totals |= retractions.write(writer, names, withdrawn, as_of)
        if not writer.totals["documents"]:
            reasons = ", ".join(f"{number} {reason}" for reason, number in writer.counts.dropped.items()) or "none came"
            raise CorpusEmpty(
                f"dedup: no document is left of {len(arrived)} ({reasons}); look at the pages that were read, "
                "or raise dedup.boilerplate_pages"
            )
    return id


def _arrivals(
    store: Store, strip: str, past: PreviousDedup, undone: Collection[str], folder: Path
) -> tuple[Arrivals, int]:
    """The documents to be compared, and how many `strip` has in all."""
    again = past.open_again(undone)
    is_known = functools.partial(past.is_known, open_again=again)
    return arrivals(store, strip, is_known, () if again else past.known_files(), folder)


@dataclass(frozen=True)
class _CleanedDocuments:
    """The documents of a run after repeated lines were taken out."""

    documents: Arrivals
    lines: boilerplate.BoilerplateLines
    num_changed: int = 0
    too_short: set[int] = field(default_factory=set)


def _clean(arrived: Arrivals, past: boilerplate.LineCounts, settings: Dedup) -> _CleanedDocuments:
    sources = arrived.names["source"].to_pylist()
    hashes = array("Q")

    def texts() -> Iterator[str]:
        for text in arrived.texts():
            hashes.append(text_hash(text))
            yield text

    lines, lengths = boilerplate.lines_of(texts(), sources)
    repeated = boilerplate.find(lines, lengths, np.array(hashes, np.uint64), sources, past, settings)
    changed = boilerplate.documents_with(lines, repeated)
    if not len(changed):
        return _CleanedDocuments(arrived, lines)
    target = arrived.path.with_name("cleaned.parquet")
    too_short: set[int] = set()
    write_batches(target, _without(arrived, sources, frozenset(repeated.tolist()), set(changed.tolist()), too_short))
    arrived.path.unlink()
    return _CleanedDocuments(Arrivals(arrived.names, target), lines, len(changed), too_short)


def _without(
    arrived: Arrivals, sources: Sequence[str], lines: frozenset[int], changed: set[int], too_short: set[int]
) -> Iterator[pa.RecordBatch]:
    """The documents with these lines taken out of those in `changed`; `too_short` gets what has no text left."""
    first = 0
    for batch in arrived.batches():
        rows = [row for row in range(first, first + batch.num_rows) if row in changed]
        if rows:
            records = batch.to_pylist()
            for row in rows:
                text = boilerplate.without(records[row - first]["text"], sources[row], lines)
                records[row - first] |= {"text": text, "size_bytes": len(text.encode())}
                if boilerplate.is_too_short(text):
                    too_short.add(row)
            yield pa.RecordBatch.from_pylist(records, schema=DOCUMENT)
        else:
            yield batch
        first += batch.num_rows


def _search(
    writer: SnapshotWriter,
    past: PreviousDedup,
    cleaned: _CleanedDocuments,
    settings: Dedup,
    stay: set[int],
    folder: Path,
) -> Rows:
    """Choose the keepers, write what was decided, set the counts; the rows that were kept. `stay`: those that are."""
    parameters = Parameters.of(settings)
    history = History(past.segments(parameters, folder))
    arrived = cleaned.documents
    rows = np.array([row for row in range(len(arrived)) if row not in cleaned.too_short], np.int64)
    is_wanted = np.zeros(len(arrived), bool)
    is_wanted[rows] = True
    with ExitStack() as spills:
        signed = sign_arrays(_only(arrived.arrays(), is_wanted), parameters, _spill(spills, folder))
        choice = choose(signed, history, settings, {place for place, row in enumerate(rows.tolist()) if row in stay})
        kept = rows[np.array(choice.kept, np.int64)]
        own = arrived.names.select(WITH_SOURCE.names)
        known = KnownDocuments.of(own.take(arrow.numbers(kept)), _others(own["id"], kept))
        names = Names([*past.names.segments, known])
        removed = removed_table(choice, own.take(arrow.numbers(rows)), names)
        _write(writer, "removed", removed)
        _write(writer, "dropped", _dropped(arrived.names, cleaned.too_short))
        _write(writer, "pairs", pairs_table(choice, names))
        if len(kept):
            _write_lines(writer, *boilerplate.count(cleaned.lines, kept))
        past.names.write(writer, known, past.shards(ROLE))
        _write_keepers(writer, arrived, kept)
        del names, own, known
        chosen = signed.take(np.array(choice.kept, np.int64), _spill(spills, folder))
        del signed
        added = IndexSegment.of(chosen, parameters, [f"{writer.id}/{KEEPERS}"])
        del chosen
        _write_index(writer, past, history, added, _spill(spills, folder))
    dropped = Counter(removed["reason"].to_pylist())
    if cleaned.too_short:
        dropped["boilerplate_only"] = len(cleaned.too_short)
    writer.counts = Counts(len(arrived), len(kept), dict(sorted(dropped.items())))
    return kept


def _others(ids: pa.ChunkedArray, kept: Rows) -> pa.ChunkedArray:
    is_other = np.ones(len(ids), bool)
    is_other[kept] = False
    return ids.filter(arrow.flags(is_other))


def _only(arrays: Iterator[pa.LargeStringArray], is_wanted: NDArray[np.bool_]) -> Iterator[pa.LargeStringArray]:
    first = 0
    for texts in arrays:
        wanted = is_wanted[first : first + len(texts)]
        first += len(texts)
        yield texts if wanted.all() else texts.filter(arrow.flags(wanted))


def _spill(open_until: ExitStack, folder: Path) -> BinaryIO:
    """A nameless file for shingles, which are most of what there is to hold."""
    file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the stack
    return open_until.enter_context(file)


def _write_lines(writer: SnapshotWriter, hashes: Hashes, pages: NDArray[np.int32]) -> None:
    for name, values in ((boilerplate.LINES_FILE, hashes), (boilerplate.PAGES_FILE, pages)):
        np.save(writer.path(name), values)
        writer.add(name, "lines", len(values))


def _write_index(
    writer: SnapshotWriter, past: PreviousDedup, history: History, added: IndexSegment, spill: BinaryIO
) -> None:
    """Inherit the segments of earlier runs, write this run's; the newest are merged where that keeps them few.

    Segments made anew are written here too.
    """
    segments.extend(
        writer, index.ROLE, past.shards(index.ROLE), history.segments, added,
        merge=lambda parts: IndexSegment.merge(parts, spill), write=lambda segment, name: segment.write(writer, name),
    )  # fmt: skip


def _write_keepers(writer: SnapshotWriter, arrived: Arrivals, kept: Rows) -> None:
    """In order of arrival."""
    if not len(kept):
        return
    is_kept = np.zeros(len(arrived), bool)
    is_kept[kept] = True
    first = 0
    with pq.ParquetWriter(writer.path(KEEPERS), DOCUMENT, compression="zstd") as file:
        for batch in arrived.batches():
            chosen = batch.filter(arrow.flags(is_kept[first : first + batch.num_rows]))
            first += batch.num_rows
            if chosen.num_rows:
                file.write_batch(chosen)
    writer.add(KEEPERS, "keepers", len(kept))


def _dropped(names: pa.Table, rows: set[int]) -> pa.Table:
    gone = names.take(arrow.numbers(np.array(sorted(rows), np.int64)))
    reasons = arrow.strings(["boilerplate_only"] * len(rows))
    return pa.Table.from_arrays(
        [gone["url"], gone["source"], gone["content_sha256"], reasons, gone["id"]], schema=DROPPED
    )


def _write(writer: SnapshotWriter, role: str, table: pa.Table) -> None:
    """An empty table is written on the first run only, so that every role has a file to read."""
    if table.num_rows or not any(shard.role == role for shard in writer.shards):
        pq.write_table(table, writer.path(f"{role}-00000.parquet"), compression="zstd")
        writer.add(f"{role}-00000.parquet", role, table.num_rows)


def _rows(writer: SnapshotWriter, role: str) -> int:
    return sum(shard.rows for shard in writer.shards if shard.role == role)
