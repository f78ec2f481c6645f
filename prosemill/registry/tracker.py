"""What keeps models, their versions and the curves of their training, whoever makes it: the registry has one.

PROSEMILL_TRACKER names another ("module:class", called with the store) in the place of MLflow.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from prosemill.config import environment
from prosemill.errors import RegistryError
from prosemill.storage.store import Store

MLFLOW = "prosemill.registry.mlflow_tracker:MlflowTracker"


class Metric(NamedTuple):
    """A point of a curve. `at`: milliseconds since 1970, 0 where it is not known."""

    name: str
    value: float
    at: int
    step: int


@dataclass(frozen=True)
class TrackedVersion:
    """A version of a model as a tracker keeps it: what it means is in its tags."""

    number: int
    run: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]


class Tracker(Protocol):
    """Every method raises RegistryError, in one line with the next step, where the tracker cannot do it."""

    def list_models(self) -> list[str]:
        """Names of all models."""

    def list_versions(self, name: str) -> list[TrackedVersion]:
        """All versions of a model; none for an unknown name."""

    def add_version(self, name: str, snapshot: str, run: str, tags: Mapping[str, str], description: str) -> int:
        """Make the finetune snapshot the next version of `name` (a new model, where there is none); its number."""

    def change_version(self, name: str, version: int, tags: Mapping[str, str], description: str = "") -> None:
        """Set tags of a version, and its description unless that is ""."""

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Let `alias` mean this version and no other."""

    def find_run(self, name: str, tag: str, value: str) -> str:
        """The newest run of the model `name` with that tag; "" for none."""

    def open_run(self, name: str, title: str, tags: Mapping[str, str]) -> str:
        """A new run, a training of the model `name`; its id."""

    def describe_run(self, run: str, title: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Set the title, settings and tags of a run."""

    def add_metrics(self, run: str, metrics: Sequence[Metric]) -> None:
        """Put points on the curves of a run."""

    def steps(self, run: str, names: Collection[str]) -> set[tuple[str, int]]:
        """(name, step) of the points that these curves of a run have."""

    def add_file(self, run: str, name: str, text: str) -> None:
        """Keep a text with a run, in the place of an earlier one of that name."""

    def close_run(self, run: str, status: str, tags: Mapping[str, str]) -> None:
        """Say how a run ended: FINISHED, FAILED or KILLED; and set tags."""

    def machine(self, run: str, *, resumes: bool) -> Callable[[], Sequence[Metric]]:
        """What looks at the machine that a run trains on, each time it is called; it may see nothing."""


def tracker_of(store: Store) -> Tracker:
    """The tracker that PROSEMILL_TRACKER names; MLflow without it."""
    named = environment.tracker() or MLFLOW
    try:
        tracker: Tracker = pkgutil.resolve_name(named)(store)
    except (ImportError, AttributeError, ValueError) as error:
        raise RegistryError(
            f"PROSEMILL_TRACKER = {named!r}: cannot be imported ({error}); give module:class, or unset it for MLflow"
        ) from error
    return tracker
