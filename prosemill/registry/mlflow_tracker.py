"""MLflow as the tracker of a store: a server, or an SQLite file in the store.

MLflow is imported when it is first needed: it takes two seconds.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prosemill.config import environment
from prosemill.errors import RegistryError
from prosemill.registry.compat import SystemMetrics
from prosemill.registry.mlflow_database import make_database
from prosemill.registry.tracker import Metric, TrackedVersion
from prosemill.storage.store import Store

TAG = "prosemill."  # before the names of our tags, so that others may have theirs
BATCH_METRICS = 1000  # MLflow takes no more at once
MOST_MODELS = 1000  # a page of the API; without asking it is 100
DESCRIPTION_CHARACTERS = 5000  # nor more than this, on PostgreSQL
PARAM_CHARACTERS = 500


class AlreadyExists(RegistryError):
    pass


class DoesNotExist(RegistryError):
    pass


class MlflowTracker:
    """A `tracker.Tracker`. An experiment for each name; versions and runs have tags of ours."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tracking_uri = environment.tracking_uri()
        self._opened: Any = None

    # --- models ------------------------------------------------------------------------------------------------------

    def list_models(self) -> list[str]:
        if self._is_empty():
            return []
        with self._errors():
            return [model.name for model in self.client().search_registered_models(max_results=MOST_MODELS)]

    def list_versions(self, name: str) -> list[TrackedVersion]:
        if self._is_empty():
            return []
        with self._errors():
            by_version: dict[int, list[str]] = {}
            for alias, version in self._aliases(name).items():
                by_version.setdefault(version, []).append(alias)
            versions = self.client().search_model_versions(f"name='{name}'")
            return [_version_of(row, by_version.get(int(row.version), [])) for row in versions]

    def add_version(self, name: str, snapshot: str, run: str, tags: Mapping[str, str], description: str) -> int:
        with self._errors():
            client = self.client()
            with contextlib.suppress(AlreadyExists), self._errors():
                client.create_registered_model(name)
            version = client.create_model_version(
                name,
                self._source(snapshot, run),
                run_id=run,
                tags=_ours(tags),
                description=description[:DESCRIPTION_CHARACTERS],
                await_creation_for=0,
            )
        return int(version.version)

    def change_version(self, name: str, version: int, tags: Mapping[str, str], description: str = "") -> None:
        for key, value in _ours(tags).items():
            self._put(self.client().set_model_version_tag, name, str(version), key, value)
        if description:
            with self._errors():
                cut = description[:DESCRIPTION_CHARACTERS]
                self.client().update_model_version(name, str(version), description=cut)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self._put(self.client().set_registered_model_alias, name, alias, str(version))

    # --- runs --------------------------------------------------------------------------------------------------------

    def find_run(self, name: str, tag: str, value: str) -> str:
        with self._errors():
            client = self.client()
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                return ""
            runs = client.search_runs(
                [experiment.experiment_id],
                f"tags.`{TAG}{tag}` = '{value}'",
                order_by=["start_time DESC"],
                max_results=1,
            )
        return str(runs[0].info.run_id) if runs else ""

    def open_run(self, name: str, title: str, tags: Mapping[str, str]) -> str:
        with self._errors():
            client = self.client()
            experiment = client.get_experiment_by_name(name)
            at = None if self.tracking_uri else Path(self.store.root, "mlflow-artifacts", name).as_uri()
            number = experiment.experiment_id if experiment else client.create_experiment(name, artifact_location=at)
            return str(client.create_run(number, tags=_ours(tags), run_name=title).info.run_id)

    def describe_run(self, run: str, title: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        cut = [Param(key, value[:PARAM_CHARACTERS]) for key, value in params.items()]
        named = [RunTag(key, value) for key, value in {**_ours(tags), "mlflow.runName": title}.items()]
        with self._errors():
            self.client().log_batch(run, params=cut, tags=named)

    def add_metrics(self, run: str, metrics: Sequence[Metric]) -> None:
        from mlflow import entities

        points = [entities.Metric(metric.name, metric.value, metric.at, metric.step) for metric in metrics]
        with self._errors():
            for first in range(0, len(points), BATCH_METRICS):
                self.client().log_batch(run, metrics=points[first : first + BATCH_METRICS])

    def steps(self, run: str, names: Collection[str]) -> set[tuple[str, int]]:
        with self._errors():
            client = self.client()
            return {(name, metric.step) for name in names for metric in client.get_metric_history(run, name)}

    def add_file(self, run: str, name: str, text: str) -> None:
        with self._errors():
            self.client().log_text(run, text, name)

    def close_run(self, run: str, status: str, tags: Mapping[str, str]) -> None:
        with self._errors():
            for key, value in _ours(tags).items():
                self.client().set_tag(run, key, value)
            self.client().set_terminated(run, status)

    def machine(self, run: str, *, resumes: bool) -> Callable[[], Sequence[Metric]]:
        """MLflow's own monitors (processors, memory, disk, network, GPUs), by the names on its page of them."""
        monitors = SystemMetrics(run, self.uri, resumed=resumes)

        def look() -> list[Metric]:
            step, now = monitors.step, int(time.time() * 1000)
            return [Metric(f"system/{name}", value, now, step) for name, value in monitors.look().items()]

        return look

    # --- access to MLflow ---------------------------------------------------------------------------------------------

    @property
    def uri(self) -> str:
        """Where MLflow is: the server, or the SQLite file in the store."""
        return self.tracking_uri or f"sqlite:///{self._database()}"

    def client(self) -> Any:
        """MLflow's client; an empty database is made first where there is none."""
        if self._opened is None:
            if not self.tracking_uri and not self.store.is_local:
                raise RegistryError(
                    f"{self.store.url}: a store that is not local needs an MLflow server; set MLFLOW_TRACKING_URI"
                )
            from mlflow.tracking import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.ERROR)
            if self._is_empty():
                make_database(self._database())
            self._opened = MlflowClient(self.uri, registry_uri=self.uri)
        return self._opened

    def _put(self, write: Callable[..., None], *arguments: str) -> None:
        """Write an alias or a tag. MLflow selects, then inserts: of two concurrent writers one fails, and
        updates on its second try."""
        from mlflow.exceptions import MlflowException

        with self._errors():
            try:
                write(*arguments)
            except MlflowException:
                write(*arguments)

    def _database(self) -> Path:
        return Path(self.store.root) / "mlflow.db"

    def _is_empty(self) -> bool:
        """True when nothing was ever recorded: no need to load MLflow to say so."""
        return not self.tracking_uri and self.store.is_local and not self._database().exists()

    def _source(self, snapshot: str, run: str) -> str:
        """Where the model lies. A server refuses paths on a disk that is not its own."""
        if self.tracking_uri.startswith("http") and self.store.is_local:
            return f"runs:/{run}"
        at = self.store.root if self.store.is_local else self.store.url.rstrip("/")
        return f"{at}/snapshots/{snapshot}/model"

    def _aliases(self, name: str) -> dict[str, int]:
        try:
            with self._errors():
                aliases = self.client().get_registered_model(name).aliases
        except DoesNotExist:
            return {}
        return {alias: int(version) for alias, version in aliases.items()}

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn MLflow's exceptions into one line."""
        try:
            yield
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "mlflow":
                raise
            code = getattr(error, "error_code", "")
            kind = {"RESOURCE_ALREADY_EXISTS": AlreadyExists, "RESOURCE_DOES_NOT_EXIST": DoesNotExist}.get(code)
            line = _in_words(" ".join(str(error).split()))
            raise (kind or RegistryError)(f"{self.tracking_uri or self._database()}: {line}") from error


def _in_words(message: str) -> str:
    """MLflow's message, with the next step where the server could not be reached."""
    if "Max retries exceeded" in message or "Connection refused" in message:
        return f"no MLflow server answers there; check that it is up, and MLFLOW_TRACKING_URI ({message[-120:]})"
    if "error code 401" in message:
        return "the MLflow server wants a login; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return f"MLflow says: {message[:300]}"


def _ours(tags: Mapping[str, str]) -> dict[str, str]:
    return {TAG + key: value for key, value in tags.items()}


def _version_of(version: Any, aliases: Sequence[str]) -> TrackedVersion:
    tags = {key.removeprefix(TAG): value for key, value in version.tags.items() if key.startswith(TAG)}
    return TrackedVersion(int(version.version), str(version.run_id or ""), tags, tuple(sorted(aliases)))
