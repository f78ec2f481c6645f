"""text-dedup's MinHash command. IN.parquet KEPT.parquet"""

import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_from_disk

source, target = map(Path, sys.argv[1:])
with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
    out = Path(scratch) / "out"
    options = {
        "--path": "parquet", "--data_files": str(source.absolute()), "--split": "train", "--column": "text",
        "--output": str(out), "--cache_dir": str(Path(scratch) / "cache"), "--threshold": "0.8",
        "--num_perm": "128", "--ngram": "5", "--num_proc": "2", "--batch_size": "10000",
    }  # fmt: skip
    command = [sys.executable, "-m", "text_dedup.minhash", *(part for pair in options.items() for part in pair)]
    subprocess.run(command, check=True)
    pq.write_table(pa.table({"id": load_from_disk(str(out))["id"][:]}), target)
