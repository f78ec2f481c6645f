"""What datasets are called in OpenLineage events: namespace and name, by OpenLineage's naming rules."""

from __future__ import annotations

import re
from typing import Protocol
from urllib.parse import urlsplit

from prosemill.config import environment


class Location(Protocol):
    """Where snapshots lie: a Store, or a StageRun."""

    @property
    def url(self) -> str: ...

    @property
    def root(self) -> str: ...

    @property
    def is_local(self) -> bool: ...


def snapshot_name(store: Location, snapshot: str) -> tuple[str, str]:
    """Namespace and name of a snapshot: ("file", path), ("s3://bucket", key)."""
    return _named(store, f"snapshots/{snapshot}")


def model_name(store: Location, model: str) -> tuple[str, str]:
    """Namespace and name of a registered model: on its server, or in the store's own registry."""
    server = environment.tracking_uri()
    if server.startswith("http"):
        parts = urlsplit(server)
        return f"mlflow://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}", f"models/{model}"
    return _named(store, f"models/{model}")


def origin_name(origin: str) -> tuple[str, str]:
    """Namespace and name of what a stage reads from outside: a site, a folder, something on a hub."""
    if match := re.fullmatch(r"(hf|prosemill):([^/].*)", origin):
        return match[1], match[2]
    if "://" not in origin:
        return "file", origin
    parts = urlsplit(origin)
    host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    return f"{parts.scheme}://{host}", parts.path or "/"


def _named(store: Location, path: str) -> tuple[str, str]:
    if store.is_local:
        return "file", f"{store.root}/{path}"
    parts = urlsplit(store.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", f"{parts.path.strip('/')}/{path}".lstrip("/")
