"""datasketch as its README shows it: one MinHash a document, query before insert. IN.parquet KEPT.parquet"""

import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from datasketch import MinHash, MinHashLSH

source, target = sys.argv[1:]
index = MinHashLSH(threshold=0.8, num_perm=128)
kept = []
for batch in pq.ParquetFile(source).iter_batches(2000):
    for id, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
        words = re.findall(r"\w+", text.lower())
        minhash = MinHash(num_perm=128)
        for shingle in {" ".join(words[at : at + 5]) for at in range(max(1, len(words) - 4))}:
            minhash.update(shingle.encode("utf8"))
        if not index.query(minhash):
            index.insert(id, minhash)
            kept.append(id)
pq.write_table(pa.table({"id": kept}), target)
