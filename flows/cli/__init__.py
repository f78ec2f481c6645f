"""The command `prosemill`."""

from flows.cli.app import main, run

__all__ = ["main", "run"]
