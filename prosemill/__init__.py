"""prosemill as a library: what its stages do, as functions of text, tables and files. It knows nothing of Prefect.

    import prosemill

    prosemill.strip_html(html).text                   # the main text of a page
    prosemill.remove_duplicates(table).keepers        # a table without near-copies
    prosemill.chunk_file("text.parquet", "gpt2", "chunks")
    prosemill.score("gpt2", texts).bits_per_byte
    prosemill.decide(one.nats, other.nats, one.size_bytes).reason

A name is imported when it is first asked for: torch comes with `score` alone, and nothing imports MLflow or Prefect.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prosemill.chunk.files import chunk_file
    from prosemill.config.recipe import load_recipe
    from prosemill.config.settings import Recipe
    from prosemill.dedup.api import remove_duplicates
    from prosemill.evaluation.api import score
    from prosemill.gate.api import decide
    from prosemill.storage.store import Store
    from prosemill.strip.document import strip_html

    __version__: str

__all__ = [
    "Recipe",
    "Store",
    "__version__",
    "chunk_file",
    "decide",
    "load_recipe",
    "remove_duplicates",
    "score",
    "strip_html",
]

_MODULES = {
    "Recipe": "config.settings",
    "Store": "storage.store",
    "chunk_file": "chunk.files",
    "decide": "gate.api",
    "load_recipe": "config.recipe",
    "remove_duplicates": "dedup.api",
    "score": "evaluation.api",
    "strip_html": "strip.document",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from prosemill.storage.provenance import version

        return version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
