"""Documents as strip leaves them, of words that nobody uses: what runs are made of in tests and benchmarks."""

import random
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from prosemill.storage.manifest import Counts, document_id
from prosemill.storage.schemas import DOCUMENT
from prosemill.storage.store import Store

SYLLABLES = ["ba", "ke", "li", "mo", "nu", "pra", "ste", "vi", "zo", "dar", "fen", "gul"]
WORDS = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES]


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def edited(rng: random.Random, text: str, share: float) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), max(1, round(share * len(words)))):
        words[place] = rng.choice(WORDS)
    return " ".join(words)


def write_strip(store: Store, name: str, documents: Iterable[tuple[str, str, str]], earlier: str = "") -> str:
    """A strip snapshot of (source, url, text), and of all that is in the snapshot `earlier`."""
    rows = [
        dict.fromkeys(DOCUMENT.names, "")
        | {"id": document_id(url, text), "source": source, "url": url, "text": text, "title": url}
        | {"size_bytes": len(text.encode()), "scrubbed": 0}
        for source, url, text in documents
    ]
    with store.write(f"strip-{name}", stage="strip", version=1, parents=[], settings={}) as writer:
        writer.inherit(store.manifest(earlier).shards if earlier else [])
        pq.write_table(pa.Table.from_pylist(rows, schema=DOCUMENT), writer.path("documents.parquet"))
        writer.add("documents.parquet", "documents", len(rows))
        writer.counts = Counts(len(rows), len(rows))
    return f"strip-{name}"
