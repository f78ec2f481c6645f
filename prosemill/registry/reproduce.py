"""Make a model again, from the recorded chunks, base, settings and plan, and compare the weights' hash."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prosemill.config.settings import Finetune
from prosemill.errors import RegistryError
from prosemill.models import bases
from prosemill.storage import provenance
from prosemill.storage.ancestry import walk
from prosemill.storage.manifest import Manifest, stage_of
from prosemill.storage.store import Store

DECIDING = ("torch", "transformers", "accelerate", "numpy", "tokenizers")  # libraries that can change the weights

LEARNED_FROM = ("chunk", "finetune")


@dataclass(frozen=True)
class Reproduction:
    """What came out. `differences`: what is not as it was recorded, in lines for a person."""

    snapshot: str
    recorded_sha256: str
    new_sha256: str
    differences: list[str]

    @property
    def is_same(self) -> bool:
        return self.recorded_sha256 == self.new_sha256


def reproduce(store: Store, snapshot: str) -> Reproduction:
    """Train the model of a finetune snapshot anew, beside the store; nothing in the store changes.

    The same weights, to the bit, on the same kind of processor with the same code, libraries and number of threads.
    """
    manifest = store.manifest(snapshot)
    recorded = manifest.totals.get("weights_sha256")
    if manifest.stage != "finetune" or not recorded:
        raise RegistryError(f"{snapshot}: holds no trained weights with a hash to compare")
    from prosemill.finetune import finetune

    settings = _settings(manifest)
    base = bases.resolve(settings.base)
    (chunk,) = [parent for parent in manifest.parents[:1] if stage_of(parent) == "chunk"] or [""]
    start = next((parent for parent in manifest.parents if stage_of(parent) == "finetune"), "")
    differences = differing(manifest)
    with _beside(store, manifest) as scratch:
        remade = finetune(scratch, chunk, base, settings, start=start, plan=manifest.totals.get("plan"))
        weights_sha256 = str(scratch.manifest(remade).totals["weights_sha256"])
    if remade != snapshot:
        differences.append(
            f"its inputs are no longer those recorded (they make {remade}): the base or the code changed"
        )
    return Reproduction(snapshot, str(recorded), weights_sha256, differences)


def differing(manifest: Manifest) -> list[str]:
    """How this machine's code and libraries differ from those that made a snapshot."""
    here, differences = provenance.library_versions(), []
    commit = provenance.code_commit()
    if commit != manifest.code_commit or commit.endswith("+"):
        differences.append(f"code: made by commit {manifest.code_commit or 'unknown'}, this is {commit or 'unknown'}")
    for name in DECIDING:
        if name in manifest.libraries and manifest.libraries[name] != here.get(name):
            differences.append(f"{name}: made with {manifest.libraries[name]}, this is {here.get(name, 'missing')}")
    return differences


def _settings(manifest: Manifest) -> Finetune:
    known = {key: value for key, value in manifest.settings.items() if key in Finetune.model_fields}
    return Finetune.model_validate(known)


@contextmanager
def _beside(store: Store, manifest: Manifest) -> Iterator[Store]:
    """A store in a temporary folder that holds, by links, everything the training reads, but not its result."""
    with tempfile.TemporaryDirectory(prefix="prosemill-reproduce-") as folder:
        scratch = Store(str(Path(folder) / "store"))
        scratch.check_writable()
        for needed in sorted(_needed(store, manifest)):
            (Path(scratch.root) / "snapshots" / needed).symlink_to(store.local(needed), target_is_directory=True)
        yield scratch


def _needed(store: Store, manifest: Manifest) -> set[str]:
    """Chunk and finetune ancestors, and the snapshots whose files they list."""

    def parents_of(id: str) -> list[str]:
        store.require(id)
        return [parent for parent in store.manifest(id).parents if stage_of(parent) in LEARNED_FROM]

    manifests = [store.manifest(id) for id in walk([manifest.id], parents_of) if id != manifest.id]
    return {ancestor.id for ancestor in manifests} | {
        shard.path.split("/")[0] for ancestor in manifests for shard in ancestor.shards
    }
