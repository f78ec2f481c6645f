"""A model as a plain Hugging Face directory: weights, config, tokenizer and card, and on request on the hub."""

from __future__ import annotations

import shutil
from pathlib import Path

from prosemill.errors import RegistryError
from prosemill.registry.model_card import model_card
from prosemill.registry.registry import ModelVersion, Registry
from prosemill.storage.atomic import new_folder
from prosemill.storage.store import Store


def version_of(registry: Registry, reference: str) -> ModelVersion:
    """The version that a reference (name, name/3, name@previous, snapshot id) means; RegistryError if it is none."""
    snapshot = registry.resolve(reference)
    for name in registry.list_models():
        for version in registry.list_versions(name):
            if version.snapshot == snapshot:
                return version
    raise RegistryError(f"{snapshot} was trained, but is not a version of a model: there is no decision on it yet")


def card_of(store: Store, version: ModelVersion) -> str:
    return model_card(store, version.name, version.version, version.snapshot, version.evaluation, version.gate)


def export(store: Store, version: ModelVersion, folder: Path) -> list[str]:
    """Copy the model into `folder`, which must be new or empty; the names of its files.

    `AutoModelForCausalLM.from_pretrained(folder)` loads it; a baseline,
    after `import prosemill.models.baselines.modeling`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RegistryError(f"{folder}: exists and is not an empty folder; name another one")
    source = store.local(f"{version.snapshot}/model")
    with new_folder(folder) as target:
        shutil.copytree(source, target, dirs_exist_ok=True)
        (target / "README.md").write_text(card_of(store, version), encoding="utf-8")
    return sorted(path.name for path in folder.iterdir())


def push(folder: Path, name: str, token: str) -> str:
    """Upload an exported folder to the Hugging Face hub as the private model `name`; its address."""
    if not token:
        raise RegistryError(
            "HF_TOKEN is not set; make a token that may write on huggingface.co/settings/tokens, and set it"
        )
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(token=token)
    try:
        url = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="A model made by prosemill")
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RegistryError(f"{name}: the hub did not take it ({reason}); the export is in {folder}") from error
    return str(url)
