"""rensa (Rust): signatures in batches, query before insert. IN.parquet KEPT.parquet"""

import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from rensa import RMinHash, RMinHashLSH

source, target = sys.argv[1:]
index = RMinHashLSH(threshold=0.8, num_perm=128, num_bands=16)
kept, number = [], 0
for batch in pq.ParquetFile(source).iter_batches(2000):
    sets = []
    for text in batch["text"].to_pylist():
        words = re.findall(r"\w+", text.lower())
        sets.append([" ".join(words[at : at + 5]) for at in range(max(1, len(words) - 4))])
    for id, minhash in zip(batch["id"].to_pylist(), RMinHash.from_token_sets(sets, 128, 42), strict=True):
        if not index.query(minhash):
            index.insert(number, minhash)
            kept.append(id)
        number += 1
pq.write_table(pa.table({"id": kept}), target)
