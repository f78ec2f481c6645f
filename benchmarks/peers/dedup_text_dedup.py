"""text-dedup's MinHash command. IN.parquet KEPT.parquet"""

import runpy
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        out = Path(scratch) / "out"
        options = {
            "--path": "parquet", "--data_files": str(source.absolute()), "--split": "train", "--column": "text",
            "--output": str(out), "--cache_dir": str(Path(scratch) / "cache"), "--threshold": "0.8",
            "--num_perm": "128", "--ngram": "5", "--num_proc": "2", "--batch_size": "10000",
        }  # fmt: skip
        sys.argv = ["text_dedup.minhash", *(part for pair in options.items() for part in pair)]
        try:
            runpy.run_module("text_dedup.minhash", run_name="__main__")
        except SystemExit as stop:
            if stop.code:
                raise
        from datasets import load_from_disk

        pq.write_table(pa.table({"id": load_from_disk(str(out))["id"][:]}), target)
