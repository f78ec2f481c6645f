"""Duplicates out, keepers in: repeated lines, exact copies, near-copies, in that order."""

from prosemill.dedup.api import DedupResult, remove_duplicates
from prosemill.dedup.files import dedup_file
from prosemill.dedup.stage import dedup

__all__ = ["DedupResult", "dedup", "dedup_file", "remove_duplicates"]
