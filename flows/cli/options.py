"""Options that several commands share, and the store that one of them names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from prosemill.config import environment
from prosemill.storage.store import Store

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a TOML file.")]
StoreOption = Annotated[
    str,
    typer.Option("--store", help="Where snapshots live: a folder or URL. Default: PROSEMILL_STORE, else data/store."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, for scripts.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show the log, and a traceback where something breaks.")]


def open_store(store: str, verbose: bool = False) -> tuple[str, Store]:
    """Settle where the store is and prepare the environment, before Prefect or MLflow is imported."""
    url = environment.store_url(store)
    environment.prepare(url, verbose=verbose)
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    return url, Store(url)
