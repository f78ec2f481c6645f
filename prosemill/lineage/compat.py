"""What is used of openlineage-python beside its documented interface; `tests/test_compat.py` checks each of it."""

from __future__ import annotations

from typing import Any


def with_schema(facet: Any, url: str) -> Any:
    """`facet` (a RunFacet with properties of our own) as one that follows the schema at `url`, not RunFacet's."""
    facet._schemaURL = url
    return facet
