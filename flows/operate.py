"""The commands of those who operate prosemill: what is deployed, what runs, what may take over, what is kept safe.

Each is registered on `flows.cli.app` by `add_to`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer


def add_to(app: typer.Typer) -> None:
    """Put the commands of this module on the `prosemill` command."""
    for command in COMMANDS:
        app.command()(command)


COMMANDS: list[Callable[..., Any]] = []
