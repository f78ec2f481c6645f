"""Source kinds, filters and gate slices of your own: modules that register them, imported before a recipe is read.

A module is named by PROSEMILL_PLUGINS (`my_sources,my_filters`), or by an installed package as an entry point of the
group `prosemill.plugins`. To define a class is to register it, so importing the module is all there is to do.
"""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import entry_points

from prosemill.config import environment
from prosemill.errors import RecipeError

GROUP = "prosemill.plugins"


@functools.cache
def load() -> None:
    """Import every plugin, once a process. RecipeError names one that cannot be imported.

    Called where a name is looked up or the form is made, in every process that does: no process has to be told.
    """
    for name in environment.plugins():
        _import(name, "PROSEMILL_PLUGINS")
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        _import(entry.module, f"entry point {entry.name} of {GROUP}")


def _import(name: str, where: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RecipeError(
            f"{where}: {name!r} cannot be imported ({what}); correct it, or put its folder on PYTHONPATH"
        ) from error
