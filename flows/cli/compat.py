"""What is used of Typer beside its documented interface; `tests/test_compat.py` checks each of it."""

from __future__ import annotations

from typing import Any

import typer

# What the parser raises over wrong usage. Typer carries a Click of its own and does not export this class.
WrongUsage: Any = typer.BadParameter.__bases__[0]
