"""Near-duplicates out of one Parquet file, in memory that holds no text: rows are read twice and written once."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prosemill.config.environment import DedupEngine
from prosemill.config.settings import Dedup
from prosemill.dedup.index import History
from prosemill.dedup.minhash import Parameters, sign_arrays
from prosemill.dedup.search import KeeperChoice, choose
from prosemill.errors import RecipeError
from prosemill.storage import arrow
from prosemill.storage.disk import sync_path
from prosemill.storage.manifest import Counts
from prosemill.storage.parquet_input import opened

REMOVED_FILE = "removed.parquet"
BATCH_ROWS = 1000  # read at once: some megabytes of text
GROUP_BYTES = 64 << 20  # of a row group that is written

FILE_REMOVED = pa.schema(
    [("id", pa.string()), ("keeper", pa.string()), ("similarity", pa.float64()), ("reason", pa.string())]
)


@dataclass(frozen=True)
class DedupFiles:
    """Where the rows went, and how many of them."""

    kept: Path
    removed: Path
    counts: Counts


def dedup_file(
    source: Path,
    target: Path,
    settings: Dedup | None = None,
    *,
    overwrite: bool = False,
    engine: DedupEngine | None = None,
) -> DedupFiles:
    """Write the rows of `source` that have no earlier near-copy to `target`, in order, columns and packing as they are.

    Needs a column `text`; `id` (row numbers where absent) names rows in `removed.parquet`, written beside `target`:
    id, keeper (the id of the row that stays), similarity (exact Jaccard), reason (exact | near). Both files appear
    whole, or neither does. RecipeError for what is not a Parquet file or lacks `text`; for a file to be written that is
    the input; and, without `overwrite`, for one that exists. `engine`: numba or datasketch, the result is the same.
    """
    settings = settings or Dedup()
    removed = target.parent / REMOVED_FILE
    with opened(source) as file:
        _check_outputs(source, target, removed, overwrite)
        with contextlib.ExitStack() as stack:
            spill = stack.enter_context(tempfile.TemporaryFile(dir=target.parent, prefix=".shingles-"))
            signed = sign_arrays(_texts(file), Parameters.of(settings), spill, engine=engine)
            choice = choose(signed, History([]), settings)
            num_rows = len(signed)
            del signed
            kept_aside, removed_aside = (stack.enter_context(_aside(path)) for path in (target, removed))
            _write_kept(file, kept_aside, choice, num_rows)
            pq.write_table(_removed(_ids(source, num_rows), choice), removed_aside, compression="zstd")
            _move_into_place({removed_aside: removed, kept_aside: target}, overwrite)
    reasons = Counter(removal.reason for removal in choice.removed)
    return DedupFiles(target, removed, Counts(num_rows, len(choice.kept), dict(sorted(reasons.items()))))


def _check_outputs(source: Path, target: Path, removed: Path, overwrite: bool) -> None:
    """Before any work: nothing is written over the input, nor, unless `overwrite`, over anything else."""
    if target.name.casefold() == removed.name:  # some file systems do not tell the case of letters
        raise RecipeError(
            f"{target}: is where the removed rows are listed; give another name for the rows that are kept"
        )
    for path in (target, removed):
        if path.exists() and os.path.samefile(source, path):
            what = "what is kept" if path == target else f"what is kept, in a folder without {REMOVED_FILE}"
            raise RecipeError(f"{path}: is the file that is read; give another name for {what}")
        if path.is_dir():
            raise RecipeError(f"{path}: is a folder; give the name of a file in it")
        if os.path.lexists(path) and not overwrite:
            raise _exists(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"{target}: cannot be written ({error.strerror}: {error.filename}); give another") from error


def _exists(path: Path) -> RecipeError:
    return RecipeError(f"{path}: exists already; give another name, or --overwrite to replace what is there")


def _texts(file: pq.ParquetFile) -> Iterator[pa.LargeStringArray]:
    for batch in file.iter_batches(BATCH_ROWS, columns=["text"], use_threads=False):
        texts = batch["text"].cast(pa.large_string())
        yield pc.fill_null(texts, "") if texts.null_count else texts  # a scalar made imports pandas: half a second


def _ids(path: Path, num_rows: int) -> pa.Array:
    """The column `id` as strings, row numbers where there is none."""
    with opened(path) as file:
        if "id" not in file.schema_arrow.names:
            return arrow.numbers(np.arange(num_rows)).cast(pa.string())
        return file.read(columns=["id"])["id"].cast(pa.string()).combine_chunks()


def _write_kept(file: pq.ParquetFile, aside: Path, choice: KeeperChoice, num_rows: int) -> None:
    keep = np.zeros(num_rows, bool)
    keep[choice.kept] = True
    first = 0
    packed = file.metadata.row_group(0).column(0).compression if file.metadata.num_row_groups else "snappy"
    with pq.ParquetWriter(aside, file.schema_arrow, compression=packed) as writer:
        waiting: list[pa.RecordBatch] = []
        for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
            waiting.append(batch.filter(arrow.flags(keep[first : first + batch.num_rows])))
            first += batch.num_rows
            if sum(batch.nbytes for batch in waiting) >= GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting.clear()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))


def _removed(ids: pa.Array, choice: KeeperChoice) -> pa.Table:
    kept = np.array(choice.kept, np.int64)
    rows = np.array([removal.row for removal in choice.removed], np.int64)
    keepers = kept[np.array([removal.keeper for removal in choice.removed], np.int64)]
    columns = [
        pc.take(ids, arrow.numbers(rows)),
        pc.take(ids, arrow.numbers(keepers)),
        arrow.numbers(np.array([removal.similarity for removal in choice.removed], np.float64)),
        arrow.strings([removal.reason for removal in choice.removed]),
    ]
    return pa.Table.from_arrays(columns, schema=FILE_REMOVED)


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, gone when the block ends unless it was moved.

    Not storage.atomic's: two files take their places together, or neither does.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    aside = Path(name)
    try:
        aside.chmod(0o644)
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def _move_into_place(targets: Mapping[Path, Path], overwrite: bool) -> None:
    """All files or none: where one cannot be placed, what stood in the place of the others is put back."""
    for aside in targets:
        sync_path(aside)
    with contextlib.ExitStack() as undo:
        for aside, path in targets.items():
            try:
                _place(aside, path, undo, overwrite)
            except FileExistsError:
                raise _exists(path) from None
        undo.pop_all()
    for path in targets.values():
        _old(path).unlink(missing_ok=True)


def _place(aside: Path, path: Path, undo: contextlib.ExitStack, overwrite: bool) -> None:
    """Without `overwrite` by a link, which replaces nothing that came meanwhile."""
    if not (overwrite and os.path.lexists(path)):
        _link(aside, path)
        undo.callback(path.unlink)
        return
    if path.is_dir():  # it came meanwhile
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    _link(path, _old(path))
    undo.callback(_put_back, path)
    os.replace(aside, path)


def _link(file: Path, name: Path) -> None:
    """Give a file another name, which nobody has; where the file system has no links (exFAT), instead of its own."""
    try:
        os.link(file, name, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if os.path.lexists(name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(name)) from None
        os.rename(file, name)


def _put_back(path: Path) -> None:
    os.replace(_old(path), path)
    _old(path).unlink(missing_ok=True)  # both are names of one file where `path` was not replaced yet


def _old(path: Path) -> Path:
    """Where what is overwritten stays until all is in its place."""
    return path.with_name(f".{path.name}.{os.getpid()}.old")
