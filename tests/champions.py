"""A champion without a training: a finetune snapshot of two small files, and the registry's word for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prosemill.registry.mlflow_tracker import TAG, MlflowTracker
from prosemill.registry.registry import CHAMPION, ModelVersion, Registry
from prosemill.storage.store import Store


def make_model(
    store: Store, number: int, parents: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> str:
    """A finetune snapshot that says it was trained on `parents`."""
    snapshot = f"finetune-{number:016}"
    with store.write(snapshot, stage="finetune", version=1, parents=parents, settings=settings or {}) as writer:
        for name in ("config.json", "model.safetensors"):
            writer.path(f"model/{name}").write_bytes(name.encode() * 1000)
            writer.add(f"model/{name}", "model", 0)
    return snapshot


def register(store: Store, name: str, snapshot: str) -> ModelVersion:
    """Make the snapshot the champion of `name`, in the MLflow of the store."""
    registry = Registry.open(store.url)
    tracker = registry.tracker
    assert isinstance(tracker, MlflowTracker)
    client = tracker.client()
    client.create_registered_model(name)
    version = client.create_model_version(name, f"{store.root}/snapshots/{snapshot}", tags={f"{TAG}snapshot": snapshot})
    client.set_registered_model_alias(name, CHAMPION, version.version)
    champion = registry.champion(name)
    assert champion is not None
    return champion
