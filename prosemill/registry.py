"""Which models there are, how they scored, which one is in use: in MLflow, an SQLite file in the store by default.

A model version stands for one finetune snapshot, which its tag names. Aliases: `champion` is in use, `previous` was
before it, `challenger` is the newest. MLflow is imported when it is first needed: it takes two seconds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosemill import environment
from prosemill.card import model_card
from prosemill.errors import RegistryError
from prosemill.figures import figures_of
from prosemill.storage import Store

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
TAG = "prosemill."
BATCH_METRICS = 1000  # MLflow takes no more at once
MOST_MODELS = 1000  # a page of the API; without asking it is 100
DESCRIPTION_CHARACTERS = 5000  # nor more than this, on PostgreSQL
SNAPSHOT = re.compile(r"finetune-[0-9a-f]{16}")
REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]{0,39})(?:@(?P<alias>[a-z]+)|/(?P<version>[0-9]+))?")


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model. The decision and scores are those it got when it was last judged, as challenger."""

    name: str
    version: int
    snapshot: str
    evaluation: str
    decision: str
    as_of: str
    verdict: str
    metrics: Mapping[str, float]  # perplexity, bits_per_byte, validation_loss
    aliases: tuple[str, ...]
    approval: str = ""  # "approved by ada at …", where a person was asked
    promoted_by: str = ""  # the decision by which it took over after an approval


class Registry:
    """The models of a store."""

    def __init__(self, store_url: str, tracking_uri: str = "") -> None:
        self.store = Store(store_url)
        self.tracking_uri = tracking_uri
        self._opened: Any = None

    # --- reading -----------------------------------------------------------------------------------------------------

    def list_models(self) -> list[str]:
        """Names of all models, sorted."""
        if self._is_empty():
            return []
        with self._errors():
            return sorted(model.name for model in self._client().search_registered_models(max_results=MOST_MODELS))

    def list_versions(self, name: str) -> list[ModelVersion]:
        """All versions, newest first; none for an unknown name."""
        if self._is_empty():
            return []
        with self._errors():
            by_version: dict[int, list[str]] = {}
            for alias, version in self._aliases(name).items():
                by_version.setdefault(version, []).append(alias)
            found = self._client().search_model_versions(f"name='{name}'")
            versions = [_version_of(each, by_version.get(int(each.version), [])) for each in found]
        return sorted(versions, key=lambda each: -each.version)

    def champion(self, name: str) -> ModelVersion | None:
        """The version in use, if any."""
        return next((each for each in self.list_versions(name) if CHAMPION in each.aliases), None)

    def version_of(self, name: str, snapshot: str) -> ModelVersion:
        """The version that stands for the finetune snapshot."""
        for each in self._versions_of_known(name):
            if each.snapshot == snapshot:
                return each
        raise RegistryError(f"{snapshot} is no version of {name}; record it first")

    def previous(self, name: str) -> ModelVersion | None:
        """The version that was in use before the champion, if any."""
        return next((each for each in self.list_versions(name) if PREVIOUS in each.aliases), None)

    def describe(self, name: str) -> list[dict[str, Any]]:
        """One row a version, newest first, for people: model, aliases, as_of, scores, verdict, snapshot."""
        return [
            {
                "model": f"{name}/{each.version}",
                "aliases": list(each.aliases),
                "as_of": each.as_of,
                "perplexity": each.metrics.get("perplexity"),
                "bits_per_byte": each.metrics.get("bits_per_byte"),
                "verdict": each.verdict,
                "approval": each.approval,
                "snapshot": each.snapshot,
            }
            for each in self._versions_of_known(name)
        ]

    def resolve(self, reference: str) -> str:
        """The finetune snapshot of "name" (its champion), "name@champion", "name/3" or a snapshot id."""
        if SNAPSHOT.fullmatch(reference):
            self.store.require(reference)
            return reference
        match = REFERENCE.fullmatch(reference)
        if match is None:
            raise RegistryError(
                f"{reference!r} names no model; write name, name@champion, name/3 or a snapshot id "
                "(`prosemill models` lists them)"
            )
        name, version = match["name"], match["version"]
        alias = match["alias"] or CHAMPION
        for each in self._versions_of_known(name):
            if each.version == int(version) if version else alias in each.aliases:
                return each.snapshot
        missing = f"version {version}" if version else alias
        raise RegistryError(f"{name} has no {missing}; `prosemill models {name}` lists what there is")

    def resolve_or_none(self, reference: str) -> str | None:
        """As `resolve`, and None for what is no model: a sentence, a URL, a name nobody gave."""
        try:
            return self.resolve(reference)
        except RegistryError:
            return None

    # --- writing -----------------------------------------------------------------------------------------------------

    def record(self, name: str, finetune: str, evaluation: str, decision: str) -> int:
        """Make the finetune snapshot the newest version of `name`, with scores, loss curve and decision; its number.

        A snapshot that is a version already keeps its number and gets this evaluation and decision.
        """
        facts = _Facts(self.store, finetune, evaluation, decision)
        known = next((each for each in self.list_versions(name) if each.snapshot == finetune), None)
        with self._errors():
            client = self._client()
            if known is None:
                run = self._record_run(name, facts)
                self._log_metrics(run, facts.figures())
                with contextlib.suppress(_AlreadyExists), self._errors():
                    client.create_registered_model(name)
                source = self._source(finetune, run)
                made = client.create_model_version(
                    name,
                    source,
                    run_id=run,
                    tags=facts.tags,
                    description=facts.reason[:DESCRIPTION_CHARACTERS],
                    await_creation_for=0,
                )
                version = int(made.version)
            else:
                version = known.version
                for key, value in facts.tags.items():
                    client.set_model_version_tag(name, str(version), key, value)
                client.update_model_version(name, str(version), description=facts.reason[:DESCRIPTION_CHARACTERS])
                run = client.get_model_version(name, str(version)).run_id
                self._log_metrics(run, facts.figures())
            client.log_text(run, model_card(self.store, name, version, finetune, evaluation, decision), "README.md")
            client.set_registered_model_alias(name, CHALLENGER, str(version))
        return version

    def promote(self, name: str, snapshot: str) -> bool:
        """Make the version of `snapshot` the champion and the old champion the previous one. Safe to repeat.

        Whether this changed anything.
        """
        versions = self._versions_of_known(name)
        new = next((each for each in versions if each.snapshot == snapshot), None)
        if new is None:
            raise RegistryError(f"{snapshot} is no version of {name}; record it first")
        old = next((each for each in versions if CHAMPION in each.aliases), None)
        if old == new:
            return False
        if old is not None:
            self._put(self._client().set_registered_model_alias, name, PREVIOUS, str(old.version))
        self._put(self._client().set_registered_model_alias, name, CHAMPION, str(new.version))
        return True

    def mark(self, name: str, snapshot: str, tags: Mapping[str, str]) -> None:
        """Put tags on the version of `snapshot`, for example who approved it."""
        version = self.version_of(name, snapshot).version
        for key, value in tags.items():
            self._put(self._client().set_model_version_tag, name, str(version), TAG + key, value)

    def roll_back(self, name: str) -> ModelVersion:
        """Exchange champion and previous; the champion from now on."""
        versions = self._versions_of_known(name)
        old = next((each for each in versions if CHAMPION in each.aliases), None)
        new = next((each for each in versions if PREVIOUS in each.aliases), None)
        if old is None or new is None or old == new:
            raise RegistryError(f"{name} has had no champion before this one; nothing to roll back to")
        self._put(self._client().set_registered_model_alias, name, CHAMPION, str(new.version))
        self._put(self._client().set_registered_model_alias, name, PREVIOUS, str(old.version))
        return next(each for each in self.list_versions(name) if each.version == new.version)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _put(self, write: Callable[..., None], *arguments: str) -> None:
        """Write an alias or a tag. MLflow looks, then inserts: of two who do so at once one fails, and updates when it
        tries again."""
        from mlflow.exceptions import MlflowException

        with self._errors():
            try:
                write(*arguments)
            except MlflowException:
                write(*arguments)

    def _versions_of_known(self, name: str) -> list[ModelVersion]:
        versions = self.list_versions(name)
        if not versions:
            names = self.list_models()
            there = f"there is {', '.join(names[:5])}" if names else "there is none yet: prosemill retrain RECIPE"
            raise RegistryError(f"no model is named {name}; {there}")
        return versions

    def _record_run(self, name: str, facts: _Facts) -> str:
        """An MLflow run with everything about the training, that which followed it if there was one; its id."""
        from mlflow.entities import Param, RunTag

        client, run_name = self._client(), facts.as_of or facts.snapshot
        run = self.find_run(name, "snapshot", facts.snapshot) or self.open_run(name, run_name, {})
        params = [Param(key, str(value)[:500]) for key, value in facts.params.items()]
        tags = [RunTag(key, value) for key, value in {**facts.tags, "mlflow.runName": run_name}.items()]
        client.log_batch(run, params=params, tags=tags)
        metrics = facts.metrics()
        known = {
            (key, each.step)
            for key in {metric.key for metric in metrics}
            for each in client.get_metric_history(run, key)
        }
        self._log_metrics(run, [metric for metric in metrics if (metric.key, metric.step) not in known])
        client.log_dict(run, facts.decision, "decision.json")
        client.set_terminated(run)
        return run

    # --- runs: the curves of a training ------------------------------------------------------------------------------

    def find_run(self, name: str, tag: str, value: str) -> str:
        """The newest MLflow run of `name` with that tag of ours; "" for none."""
        with self._errors():
            client = self._client()
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
        with self._errors():
            client = self._client()
            experiment = client.get_experiment_by_name(name)
            at = None if self.tracking_uri else Path(self.store.root, "mlflow-artifacts", name).as_uri()
            number = experiment.experiment_id if experiment else client.create_experiment(name, artifact_location=at)
            named = {TAG + key: value for key, value in tags.items()}
            return str(client.create_run(number, tags=named, run_name=run_name).info.run_id)

    def add_to_run(self, run: str, metrics: list[Any]) -> None:
        """Put MLflow metrics on a run."""
        with self._errors():
            self._log_metrics(run, metrics)

    def close_run(self, run: str, status: str, tags: Mapping[str, str]) -> None:
        """Say how a run ended: FINISHED, FAILED or KILLED; and put tags of ours on it."""
        with self._errors():
            for key, value in tags.items():
                self._client().set_tag(run, TAG + key, value)
            self._client().set_terminated(run, status)

    def _log_metrics(self, run: str, metrics: list[Any]) -> None:
        for first in range(0, len(metrics), BATCH_METRICS):
            self._client().log_batch(run, metrics=metrics[first : first + BATCH_METRICS])

    def _source(self, snapshot: str, run: str) -> str:
        """Where the model lies. A server refuses paths on a disk that is not its own."""
        if self.tracking_uri.startswith("http") and self.store.is_local:
            return f"runs:/{run}"
        at = self.store.root if self.store.is_local else self.store.url.rstrip("/")
        return f"{at}/snapshots/{snapshot}/model"

    def _aliases(self, name: str) -> dict[str, int]:
        try:
            with self._errors():
                aliases = self._client().get_registered_model(name).aliases
        except _DoesNotExist:
            return {}
        return {alias: int(version) for alias, version in aliases.items()}

    def _database(self) -> Path:
        return Path(self.store.root) / "mlflow.db"

    def _is_empty(self) -> bool:
        """True when nothing was ever recorded: no need to load MLflow to say so."""
        return not self.tracking_uri and self.store.is_local and not self._database().exists()

    @property
    def uri(self) -> str:
        """Where MLflow is: the server, or the SQLite file in the store."""
        return self.tracking_uri or f"sqlite:///{self._database()}"

    def _client(self) -> Any:
        if self._opened is None:
            if not self.tracking_uri and not self.store.is_local:
                raise RegistryError(
                    f"{self.store.url}: a store that is no local folder needs an MLflow server; set MLFLOW_TRACKING_URI"
                )
            from mlflow.tracking import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.ERROR)
            if self._is_empty():
                _make_database(self._database())
            self._opened = MlflowClient(self.uri, registry_uri=self.uri)
        return self._opened

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn MLflow's exceptions into one line."""
        try:
            yield
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "mlflow":
                raise
            code = getattr(error, "error_code", "")
            kind = {"RESOURCE_ALREADY_EXISTS": _AlreadyExists, "RESOURCE_DOES_NOT_EXIST": _DoesNotExist}.get(code)
            line = _in_words(" ".join(str(error).split()))
            raise (kind or RegistryError)(f"{self.tracking_uri or self._database()}: {line}") from error


def _in_words(said: str) -> str:
    """What MLflow says, with the next step where it is the way to the server that is wrong."""
    if "Max retries exceeded" in said or "Connection refused" in said:
        return f"no MLflow server answers there; check that it is up, and MLFLOW_TRACKING_URI ({said[-120:]})"
    if "error code 401" in said:
        return "the MLflow server wants a login; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return f"MLflow says: {said[:300]}"


class _AlreadyExists(RegistryError):
    pass


class _DoesNotExist(RegistryError):
    pass


class _Facts:
    """What a version is recorded with, gathered from its snapshots."""

    def __init__(self, store: Store, finetune: str, evaluation: str, decision: str) -> None:
        self.snapshot = finetune
        self.tuned = store.manifest(finetune)
        self.summary = _read_json(store, evaluation, "summary")
        self.decision = _read_json(store, decision, "decision")
        self.as_of = store.manifest(decision).as_of
        self.reason = self.decision["reason"]
        (log,) = self.tuned.shards_of("log")
        with store.open(log.path) as file:
            self.log = [json.loads(line) for line in file.read().decode().splitlines()]
        self.params = {**self.tuned.settings, "precision": self.tuned.totals.get("precision", "")}
        scores = self.summary["models"]["challenger"]
        figures = {name: scores[name] for name in ("perplexity", "bits_per_byte")}
        if self.tuned.totals.get("validation_loss") is not None:
            figures["validation_loss"] = self.tuned.totals["validation_loss"]
        self.tags = {
            f"{TAG}snapshot": finetune,
            f"{TAG}evaluation": evaluation,
            f"{TAG}decision": decision,
            f"{TAG}as_of": self.as_of,
            f"{TAG}verdict": self.decision["verdict"],
            f"{TAG}metrics": json.dumps(figures),
        }

    def metrics(self) -> list[Any]:
        """The loss curve by step, as MLflow metrics."""
        from mlflow.entities import Metric

        return [
            Metric(name, float(value), 0, row["step"])
            for row in self.log
            for name, value in row.items()
            if name != "step" and value is not None
        ]

    def figures(self) -> list[Any]:
        """The figures of the model card, as MLflow metrics; their latest value is that of the latest judgement."""
        from mlflow.entities import Metric

        now, found = int(time.time() * 1000), figures_of(self.summary, self.decision, self.tuned.totals)
        return [Metric(name, value, now, 0) for name, value in found.items()]


def _version_of(found: Any, aliases: list[str]) -> ModelVersion:
    tags = {key.removeprefix(TAG): value for key, value in found.tags.items() if key.startswith(TAG)}
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        snapshot=tags.get("snapshot", ""),
        evaluation=tags.get("evaluation", ""),
        decision=tags.get("decision", ""),
        as_of=tags.get("as_of", ""),
        verdict=tags.get("verdict", ""),
        metrics=json.loads(tags.get("metrics", "{}")),
        aliases=tuple(sorted(aliases)),
        approval=tags.get("approval", ""),
        promoted_by=tags.get("promoted_by", ""),
    )


def _make_database(path: Path) -> None:
    """An empty MLflow database: made aside and linked when it is whole; a copy of the first one of this machine."""
    from mlflow import __version__ as version

    first = environment.cache_folder() / f"mlflow-{version}.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
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


def _read_json(store: Store, snapshot: str, role: str) -> Any:
    (shard,) = store.manifest(snapshot).shards_of(role)
    with store.open(shard.path) as file:
        return json.loads(file.read())
