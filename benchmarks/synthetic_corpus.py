"""A corpus of any size out of real sentences, with near-copies planted whose similarity is known.

The sentences are those of Debian's documentation packages, fetched when the benchmark runs; nothing of them is kept in
the repository. A document is a run of sentences drawn from all of them, so that documents that were not planted as
copies share next to nothing, and any number can be made.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from lxml import html

PACKAGES = ("postgresql-doc-15", "python3.11-doc", "git-doc", "debian-policy")
CLUSTER_SHARE = 0.15  # of the originals have copies
CHANGED = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08)  # share of the words of a copy that differ
ROW_GROUP = 10_000


def sentences(cache: Path) -> list[str]:
    """Sentences of 8 to 40 words of the packages' HTML, each once, in a stable order."""
    path = cache / "sentences.json"
    if not path.exists():
        sentences: dict[str, None] = {}
        for package in PACKAGES:
            for page in sorted(filter(Path.is_file, _unpacked(package, cache).rglob("*.html"))):
                for sentence in _sentences_of(page):
                    sentences[sentence] = None
        path.write_text(json.dumps(list(sentences), ensure_ascii=False), encoding="utf-8")
    listed: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return listed


def _unpacked(package: str, cache: Path) -> Path:
    folder = cache / package
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "--quiet", package], cwd=cache, check=True, stdout=subprocess.DEVNULL)
        (archive,) = cache.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
    return folder


def _sentences_of(page: Path) -> Iterator[str]:
    tree = html.document_fromstring(page.read_bytes())
    for block in tree.iter("p", "dd", "li"):
        text = " ".join(block.text_content().split())
        for sentence in re.split(r"(?<=[.!?])\s+", text):
            if 8 <= len(sentence.split()) <= 40:
                yield sentence


def planted(size: int, cache: Path, seed: int = 0) -> tuple[Path, Path]:
    """A Parquet file of `size` rows (id, text) in random order, and one of the planted clusters (id, cluster).

    Documents have 20 to 40 sentences, about 2.7 KB. 15 % of the originals have one to three copies, in which 0 to 8 %
    of the words were replaced: similarities from 1 down to below .5.
    """
    documents, clusters = cache / f"documents-{size}-{seed}.parquet", cache / f"clusters-{size}-{seed}.parquet"
    if documents.exists() and clusters.exists():
        return documents, clusters
    rng, pool = random.Random(seed), sentences(cache)
    words = sorted({word for sentence in pool[:20_000] for word in sentence.split()})
    rows: list[tuple[str, int]] = []
    number = 0
    while len(rows) < size:
        original = " ".join(rng.choices(pool, k=rng.randint(20, 40)))
        rows.append((original, number))
        if rng.random() < CLUSTER_SHARE:
            rows += [(changed(original, rng, words), number) for _ in range(rng.randint(1, 3))]
        number += 1
    del rows[size:]
    rng.shuffle(rows)
    ids = [f"d{row:07d}" for row in range(size)]
    pq.write_table(pa.table({"id": ids, "cluster": [cluster for _, cluster in rows]}), clusters)
    pq.write_table(pa.table({"id": ids, "text": [text for text, _ in rows]}), documents, row_group_size=ROW_GROUP)
    return documents, clusters


def of_all_lengths(size: int, cache: Path, seed: int = 0) -> Path:
    """A Parquet file of `size` rows (id, text) whose lengths differ as those of web pages do: log-normal, half of them
    below 13 sentences, one in a hundred above 130."""
    target = cache / f"lengths-{size}-{seed}.parquet"
    if not target.exists():
        rng, pool = random.Random(seed), sentences(cache)
        numbers = [max(1, round(rng.lognormvariate(2.56, 1.0))) for _ in range(size)]
        texts = [" ".join(rng.choices(pool, k=number)) for number in numbers]
        pq.write_table(pa.table({"id": [f"d{row:07d}" for row in range(size)], "text": texts}), target)
    return target


def changed(text: str, rng: random.Random, words: list[str]) -> str:
    changed = text.split(" ")
    for place in rng.sample(range(len(changed)), round(rng.choice(CHANGED) * len(changed))):
        changed[place] = rng.choice(words)
    return " ".join(changed)
