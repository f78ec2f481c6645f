"""MLflow for a store: a server, or an SQLite file in the store, and the runs that are recorded there.

MLflow is imported when it is first needed: it takes two seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prosemill.config import environment
from prosemill.errors import RegistryError
from prosemill.storage.store import Store

TAG = "prosemill."
BATCH_METRICS = 1000  # MLflow takes no more at once


class AlreadyExists(RegistryError):
    pass


class DoesNotExist(RegistryError):
    pass


class Tracking:
    """Where MLflow is, and the runs of the models of a store: an experiment for each name."""

    def __init__(self, store_url: str, tracking_uri: str = "") -> None:
        self.store = Store(store_url)
        self.tracking_uri = tracking_uri
        self._opened: Any = None

    def find_run(self, name: str, tag: str, value: str) -> str:
        """The newest MLflow run of `name` with that tag of ours; "" for none."""
        with self.errors():
            client = self.client()
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                return ""
            found = client.search_runs(
                [experiment.experiment_id],
                f"tags.`{TAG}{tag}` = '{value}'",
                order_by=["start_time DESC"],
                max_results=1,
            )
        return str(found[0].info.run_id) if found else ""

    def open_run(self, name: str, run_name: str, tags: Mapping[str, str]) -> str:
        """A new MLflow run in the experiment of `name`, with tags of ours; its id."""
        with self.errors():
            client = self.client()
            experiment = client.get_experiment_by_name(name)
            at = None if self.tracking_uri else Path(self.store.root, "mlflow-artifacts", name).as_uri()
            number = experiment.experiment_id if experiment else client.create_experiment(name, artifact_location=at)
            named = {TAG + key: value for key, value in tags.items()}
            return str(client.create_run(number, tags=named, run_name=run_name).info.run_id)

    def add_to_run(self, run: str, metrics: list[Any]) -> None:
        """Put MLflow metrics on a run."""
        with self.errors():
            for first in range(0, len(metrics), BATCH_METRICS):
                self.client().log_batch(run, metrics=metrics[first : first + BATCH_METRICS])

    def close_run(self, run: str, status: str, tags: Mapping[str, str]) -> None:
        """Say how a run ended: FINISHED, FAILED or KILLED; and put tags of ours on it."""
        with self.errors():
            for key, value in tags.items():
                self.client().set_tag(run, TAG + key, value)
            self.client().set_terminated(run, status)

    # --- access to MLflow ---------------------------------------------------------------------------------------------

    def put(self, write: Callable[..., None], *arguments: str) -> None:
        """Write an alias or a tag. MLflow selects, then inserts: of two concurrent writers one fails, and
        updates on its second try."""
        from mlflow.exceptions import MlflowException

        with self.errors():
            try:
                write(*arguments)
            except MlflowException:
                write(*arguments)

    def _database(self) -> Path:
        return Path(self.store.root) / "mlflow.db"

    def is_empty(self) -> bool:
        """True when nothing was ever recorded: no need to load MLflow to say so."""
        return not self.tracking_uri and self.store.is_local and not self._database().exists()

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
            if self.is_empty():
                make_database(self._database())
            self._opened = MlflowClient(self.uri, registry_uri=self.uri)
        return self._opened

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
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


def _in_words(said: str) -> str:
    """MLflow's message, with the next step where the server could not be reached."""
    if "Max retries exceeded" in said or "Connection refused" in said:
        return f"no MLflow server answers there; check that it is up, and MLFLOW_TRACKING_URI ({said[-120:]})"
    if "error code 401" in said:
        return "the MLflow server wants a login; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return f"MLflow says: {said[:300]}"


def make_database(path: Path) -> None:
    """An empty MLflow database: made aside and linked when it is whole; a copy of the first one of this machine."""
    from mlflow import __version__ as version

    first = environment.cache_folder() / f"mlflow-{version}.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")  # threads of one process share no name either
    try:
        shutil.copyfile(first, aside)
    except OSError:  # there is none yet, or no room for it
        aside.unlink(missing_ok=True)
        _migrate(aside)
        _keep(aside, first)
    with open(aside, "rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(aside, path)  # unlike a rename, it does not replace the database of somebody who was faster
    except FileExistsError:
        logging.getLogger(__name__).info("%s: another process made it meanwhile", path)
    aside.unlink()


def _migrate(path: Path) -> None:
    """Let MLflow make its database, which takes 70 migrations, without waiting for the disk after each of them.

    One second instead of seven. Only an unfinished file can be lost.
    """
    from mlflow.tracking import MlflowClient
    from sqlalchemy import Engine, event

    def hurry(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", hurry)
    try:
        MlflowClient(f"sqlite:///{path}").get_experiment_by_name("")
    finally:
        event.remove(Engine, "connect", hurry)


def _keep(made: Path, as_first: Path) -> None:
    """Put a copy into the cache of this machine; where that cannot be written, the next database is made anew."""
    with contextlib.suppress(OSError):
        as_first.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=as_first.parent)
        os.close(handle)
        shutil.copyfile(made, aside)
        os.replace(aside, as_first)
