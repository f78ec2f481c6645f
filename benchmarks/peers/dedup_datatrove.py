"""datatrove's four stages, as its examples/minhash_deduplication.py, on this machine. IN.parquet KEPT.parquet"""

import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.hashing import HashConfig

source, target = map(Path, sys.argv[1:])
TASKS = 4
config = MinhashConfig(hash_config=HashConfig(precision=64), n_grams=5, num_buckets=9, hashes_per_bucket=13)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        work = Path(scratch)
        table = pq.read_table(source)
        (work / "in").mkdir()
        for task in range(TASKS):
            rows = -(-table.num_rows // TASKS)
            pq.write_table(table.slice(task * rows, rows), work / "in" / f"{task}.parquet")
        del table

        def reader() -> ParquetReader:
            return ParquetReader(str(work / "in"), glob_pattern="*.parquet")

        stages = [
            ([reader(), MinhashDedupSignature(str(work / "signatures"), config=config)], TASKS),
            ([MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config)], config.num_buckets),
            ([MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=config)], 1),
            ([reader(), MinhashDedupFilter(str(work / "remove")), ParquetWriter(str(work / "out"))], TASKS),
        ]
        for number, (pipeline, tasks) in enumerate(stages):
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=2, logging_dir=str(work / f"logs{number}")).run()
        kept = [id for file in sorted((work / "out").glob("*.parquet")) for id in pq.read_table(file)["id"].to_pylist()]
        pq.write_table(pa.table({"id": kept}), target)
