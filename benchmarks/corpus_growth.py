"""What dedup and split cost in a flow: a first run of a corpus, and a run of 5,000 on top of it, by size of corpus.

    python -m benchmarks.corpus_growth [--sizes 10000,100000,500000] [--increment 5000] [--cache FOLDER] [--out FILE]

Each run is a process of its own, so that its memory is its own: the first run reads, cleans, signs, compares and
writes everything; the second has the same snapshot of documents with the new ones added. The second is lived through
five times, because it takes little more than a second; the figures are those of the median.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import measure, synthetic_corpus
from prosemill.config.settings import Dedup, Split
from prosemill.dedup import dedup
from prosemill.split.stage import split
from prosemill.storage.manifest import Counts
from prosemill.storage.schemas import DOCUMENT
from prosemill.storage.store import Store

SHARD_DOCUMENTS = 10_000
RUNS = 5


def write_strip(store: Store, name: str, documents: Path, first: int, end: int, earlier: str = "") -> str:
    """A strip snapshot, in shards, of some rows of a file of `synthetic_corpus.planted` and of `earlier`."""
    with store.write(f"strip-{name}", stage="strip", version=1, parents=[], settings={}) as writer:
        writer.inherit(store.manifest(earlier).shards if earlier else [])
        at = number = 0
        with pq.ParquetFile(documents) as file:
            for batch in file.iter_batches(SHARD_DOCUMENTS):
                chosen = batch.slice(max(0, first - at), max(0, min(end, at + len(batch)) - max(first, at)))
                at += len(batch)
                if len(chosen):
                    pq.write_table(_documents(chosen), writer.path(f"documents-{number}.parquet"))
                    writer.add(f"documents-{number}.parquet", "documents", len(chosen))
                    number += 1
        writer.counts = Counts(end - first, end - first)
    return f"strip-{name}"


def _documents(batch: pa.RecordBatch) -> pa.Table:
    texts = batch["text"].to_pylist()
    known = {
        "id": batch["id"],
        "url": batch["id"],
        "text": batch["text"],
        "size_bytes": pa.array([len(text.encode()) for text in texts], pa.int64()),
        "scrubbed": pa.array([0] * len(batch), pa.int32()),
    }
    empty = pa.array([""] * len(batch), pa.string())
    return pa.table([known.get(name, empty) for name in DOCUMENT.names], schema=DOCUMENT)


def one_increment(url: str, strip: str, as_of: str, before: str, parts_before: str, report: str) -> None:
    store = Store(url)
    started = time.process_time()
    keepers = dedup(store, strip, Dedup(), as_of=as_of, previous=before)
    middle = time.process_time()
    assigned = split(store, keepers, Split(), as_of=as_of, previous=parts_before)
    seconds = {"dedup_cpu_seconds": round(middle - started, 2)}
    seconds["split_cpu_seconds"] = round(time.process_time() - middle, 2)
    Path(report).write_text(json.dumps({"ids": [keepers, assigned], **seconds}), encoding="utf-8")


def measured(url: str, strip: str, as_of: str, before: list[str], cache: Path) -> dict[str, Any]:
    report = cache / "run.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.corpus_growth",
        "--one-increment",
        url,
        strip,
        as_of,
        *before,
        str(report),
    ]
    cost = measure.run(command, cache / "run.log")
    return {**cost.as_dict(), **json.loads(report.read_text(encoding="utf-8"))}


def compare(size: int, increment: int, cache: Path) -> dict[str, Any]:
    documents, _ = synthetic_corpus.planted(size, cache)
    with tempfile.TemporaryDirectory(dir=cache, prefix="history-") as url:
        store = Store(url)
        store.check_writable()
        old = write_strip(store, "one", documents, 0, size - increment)
        first = measured(url, old, "2026-01-05", ["", ""], cache)
        both = write_strip(store, "two", documents, size - increment, size, earlier=old)
        increments = []
        for _ in range(RUNS):
            increments.append(measured(url, both, "2026-01-06", first["ids"], cache))
            if len(increments) < RUNS:
                for id in increments[-1]["ids"]:
                    shutil.rmtree(store.local(id))
        by_cost = sorted(increments, key=lambda row: row["dedup_cpu_seconds"] + row["split_cpu_seconds"])
        second = by_cost[RUNS // 2]
        second["withdrawn"] = len(_ids(store, first["ids"][0]) - _ids(store, second["ids"][0]))
    return {"documents": size, "increment_documents": increment, "first": first, "run": second}


def _ids(store: Store, dedup_snapshot: str) -> set[str]:
    shards = store.manifest(dedup_snapshot).shards_of("keepers")
    return {id for shard in shards for id in pq.read_table(store.local(shard.path), columns=["id"])["id"].to_pylist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="10000,100000,500000")
    parser.add_argument("--increment", type=int, default=5000)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "prosemill-bench")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one-increment", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_increment:
        one_increment(*arguments.one_increment)
        return
    comparisons = []
    for size in map(int, arguments.sizes.split(",")):
        comparisons.append(compare(size, arguments.increment, arguments.cache))
        print(comparisons[-1], file=sys.stderr, flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(comparisons, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(comparisons, indent=1))


if __name__ == "__main__":
    main()
