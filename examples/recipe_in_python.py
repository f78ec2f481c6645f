"""A recipe made in Python, and its corpus: python examples/recipe_in_python.py FOLDER STORE

FOLDER holds .html, .txt, .md, .epub, .json or .jsonl files. Training and judging too, with Prefect:
`flows.retrain.retrain(recipe, store=STORE)`.
"""

import sys
from pathlib import Path

import prosemill
from prosemill.dedup import dedup
from prosemill.scrape import scrape_source
from prosemill.strip import merge_shards, shards_to_strip, strip_shard

folder, url = sys.argv[1:]
recipe = prosemill.Recipe.model_validate(
    {
        "name": "my-texts",
        "sources": [{"name": "files", "kind": "folder", "path": str(Path(folder).resolve())}],
        "strip": {"min_words": 20},
        "dedup": {"threshold": 0.7},
    }
)
store, as_of = prosemill.Store(url), "2026-01-05"
pages = [scrape_source(store, source, recipe.scrape, as_of=as_of) for source in recipe.sources]
shards = [strip_shard(store, file, recipe.strip, language=recipe.language) for file in shards_to_strip(store, pages)]
documents = merge_shards(store, pages, shards, recipe.strip, language=recipe.language, as_of=as_of)
keepers = dedup(store, documents, recipe.dedup, as_of=as_of)
for snapshot in (*pages, documents, keepers):
    counts = store.manifest(snapshot).counts
    print(f"{snapshot}: {counts.kept} of {counts.seen} kept, dropped {counts.dropped}")
