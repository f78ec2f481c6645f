"""Near-duplicate removal, Parquet to kept Parquet, beside its peers: speed, memory, and how right each is.

Threshold .8, 128 permutations, word 5-grams. The truth is exact: every planted pair's Jaccard similarity is computed
from its shingles; documents of different clusters share at most a few of their thirty sentences.

recall      share of the pairs at or above the threshold of which not both were kept
precision   share of the removed documents that resemble another document of the corpus
uncovered   share of the removed documents that resemble no document that was kept
"""

from __future__ import annotations

import itertools
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from xxhash import xxh64_intdigest

from benchmarks import environments, measure

THRESHOLD = 0.8
OURS = {"prosemill": "numba", "prosemill-datasketch": "datasketch"}  # tool -> --engine
PEERS = ("rensa", "datasketch", "text-dedup", "datatrove")
SCRIPTS = Path(__file__).parent / "peers"

Pairs = dict[str, list[str]]  # document -> documents at or above the threshold


def exact_pairs(documents: Path, clusters: Path) -> Pairs:
    """Every pair at or above the threshold, both ways."""
    cluster = dict(zip(*pq.read_table(clusters).to_pydict().values(), strict=True))
    members: defaultdict[int, list[str]] = defaultdict(list)
    for id, number in cluster.items():
        members[number].append(id)
    wanted = pa.array([id for ids in members.values() if len(ids) > 1 for id in ids], pa.string())
    shingles: dict[str, NDArray[np.uint64]] = {}
    with pq.ParquetFile(documents) as file:
        for batch in file.iter_batches(5000):
            chosen = batch.filter(pc.is_in(batch["id"], value_set=wanted))
            for id, text in zip(chosen["id"].to_pylist(), chosen["text"].to_pylist(), strict=True):
                shingles[id] = _shingles(text)
    pairs: Pairs = defaultdict(list)
    for ids in members.values():
        for one, other in itertools.combinations(ids, 2):
            common = len(np.intersect1d(shingles[one], shingles[other], assume_unique=True))
            if common >= THRESHOLD * (len(shingles[one]) + len(shingles[other]) - common):
                pairs[one].append(other)
                pairs[other].append(one)
    return dict(pairs)


def _shingles(text: str) -> NDArray[np.uint64]:
    words = re.findall(r"\w+", text.lower())
    hashes = (xxh64_intdigest(" ".join(words[at : at + 5]).encode()) for at in range(max(1, len(words) - 4)))
    return np.unique(np.fromiter(hashes, np.uint64))


def rightness(all_ids: list[str], kept: set[str], pairs: Pairs) -> dict[str, float]:
    removed = [id for id in all_ids if id not in kept]
    both_kept = sum(other in kept for one, others in pairs.items() if one in kept for other in others)
    true = sum(id in pairs for id in removed)
    uncovered = sum(not any(other in kept for other in pairs.get(id, [])) for id in removed)
    number = sum(map(len, pairs.values()))
    return {
        "removed": len(removed),
        "recall": round(1 - both_kept / number, 4),
        "precision": round(true / max(1, len(removed)), 4),
        "uncovered": round(uncovered / max(1, len(removed)), 4),
    }


def compare(documents: Path, clusters: Path, cache: Path, peers: tuple[str, ...] = PEERS) -> list[dict[str, Any]]:
    """One row a tool, ours first; a peer that fails has its error for a row."""
    all_ids: list[str] = pq.read_table(documents, columns=["id"])["id"].to_pylist()
    pairs = exact_pairs(documents, clusters)
    rows = []
    for name in (*OURS, *peers):
        target, log = cache / f"kept-{name}.parquet", cache / f"{name}.log"
        if name in OURS:
            prosemill = Path(sys.executable).with_name("prosemill")
            command = [prosemill, "dedup", documents, target, "--overwrite", "--engine", OURS[name]]
        else:
            script = SCRIPTS / f"dedup_{name.replace('-', '_')}.py"
            command = [environments.python_of(name, cache), script, documents, target]
        try:
            cost = measure.run(command, log)
        except RuntimeError as error:
            rows.append({"tool": name, "error": str(error)})
            continue
        kept = set(pq.read_table(target, columns=["id"])["id"].to_pylist())
        speed = {"documents_per_cpu_second": round(len(all_ids) / cost.cpu_seconds, 1)}
        rows.append({"tool": name, **speed, **cost.as_dict(), **rightness(all_ids, kept, pairs)})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows
