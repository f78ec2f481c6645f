"""Twenty runs on a growing corpus: what is published stays, splits stay, a run costs what is new.

    python -m benchmarks.increments [--first 2000] [--increment 200] [--increments 20] [--cache FOLDER] [--out FILE]

Real sentences (benchmarks.synthetic_corpus); in every run a fifth of what is new are copies of older documents, some
exact, some with up to 8 % of the words changed. Dedup and split run as in a flow, on snapshots. Asked after each run:
was a keeper withdrawn, did a document change its split, has a held-out document a twin in training. At the end: are
the keepers those of one run over everything. And one run of the same size on a small and on a large history.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks import synthetic_corpus
from prosemill.config.settings import Dedup, Split
from prosemill.dedup import dedup
from prosemill.split.stage import split
from prosemill.storage.store import Store
from tests.increments import write_strip

SETTINGS, SPLIT = Dedup(), Split()
COPIES = 0.2


class SentenceCorpus:
    """Documents without end: (source, url, text); what was given before may come back changed."""

    def __init__(self, cache: Path, seed: int = 0) -> None:
        self.rng, self.pool = random.Random(seed), synthetic_corpus.sentences(cache)
        self.words = sorted({word for sentence in self.pool[:20_000] for word in sentence.split()})
        self.texts: list[str] = []

    def take(self, number: int) -> Iterator[tuple[str, str, str]]:
        old = len(self.texts)
        for _ in range(number):
            if old and self.rng.random() < COPIES:
                text = synthetic_corpus.changed(self.texts[self.rng.randrange(old)], self.rng, self.words)
            else:
                text = " ".join(self.rng.choices(self.pool, k=self.rng.randint(20, 40)))
            yield "site", f"/{len(self.texts):07d}", text
            self.texts.append(text)


def kept(store: Store, snapshot: str) -> set[str]:
    tables = (pq.read_table(store.local(shard.path)) for shard in store.manifest(snapshot).shards_of("keepers"))
    return {url for table in tables for url in table["url"].to_pylist()}


def splits(store: Store, snapshot: str) -> dict[str, str]:
    part_of_url: dict[str, str] = {}
    for shard in store.manifest(snapshot).shards_of("assignments"):
        table = pq.read_table(store.local(shard.path), columns=["url", "split"])
        part_of_url.update(zip(table["url"].to_pylist(), table["split"].to_pylist(), strict=True))
    return part_of_url


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def increment(
    store: Store, strip: str, as_of: str, before: tuple[str, str]
) -> tuple[tuple[str, str], dict[str, float]]:
    started = cpu_seconds()
    keepers = dedup(store, strip, SETTINGS, as_of=as_of, previous=before[0])
    middle = cpu_seconds()
    assigned = split(store, keepers, SPLIT, as_of=as_of, previous=before[1])
    costs = {"dedup_cpu_seconds": round(middle - started, 2), "split_cpu_seconds": round(cpu_seconds() - middle, 2)}
    return (keepers, assigned), costs


def live_through(store: Store, corpus: SentenceCorpus, first: int, later: int, increments: int) -> dict[str, Any]:
    """The first run and the runs after it; what was withdrawn, what changed its split, what a run cost."""
    rows, withdrawn, changed = [], 0, 0
    strip, before, published, parts = "", ("", ""), set[str](), dict[str, str]()
    everything: list[tuple[str, str, str]] = []
    for number in range(increments + 1):
        new = list(corpus.take(later if number else first))
        everything += new
        strip = write_strip(store, f"{number:04}", new, strip)
        before, costs = increment(store, strip, f"2026-01-{number + 1:02}", before)
        now, now_parts = kept(store, before[0]), splits(store, before[1])
        withdrawn += len(published - now)
        changed += sum(now_parts.get(url) != part for url, part in parts.items())
        published, parts = now, now_parts
        rows.append({"run": number, "new": len(new), "keepers": len(now), **costs})
        print(rows[-1], file=sys.stderr, flush=True)
    at_once = dedup(store, write_strip(store, "all", everything), SETTINGS, as_of="2026-03-01")
    one = kept(store, at_once)
    return {
        "runs": rows,
        "withdrawn": withdrawn,
        "changed_split": changed,
        "keepers": len(published),
        "keepers_of_one_run": len(one),
        "agreement": round(1 - len(published ^ one) / len(one), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=int, default=2000)
    parser.add_argument("--increment", type=int, default=200)
    parser.add_argument("--increments", type=int, default=20)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "prosemill-bench")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.cache, prefix="runs-") as folder:
        store = Store(folder)
        store.check_writable()
        corpus = SentenceCorpus(arguments.cache)
        result = live_through(store, corpus, arguments.first, arguments.increment, arguments.increments)
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    sys.exit(bool(result["withdrawn"] or result["changed_split"] or result["agreement"] < 0.998))


if __name__ == "__main__":
    main()
