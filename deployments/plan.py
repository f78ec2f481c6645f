"""What shall be on the server: work pools, queues and deployments, worked out from prefect.yaml and the recipes.

Nothing here talks to a server. `deployments.checks` refuses what a server would refuse, or a worker only
when a run starts.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from prefect import Flow
from prefect.client.schemas.schedules import CronSchedule
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments import job_templates
from deployments.job_templates import Kind, Template
from prosemill.config import environment
from prosemill.config.recipe import load_deploy, load_recipe
from prosemill.config.settings import Deploy, Recipe
from prosemill.errors import ProsemillError

PREFECT_YAML = Path(__file__).with_name("prefect.yaml")
GENERIC = "any"  # the deployment of a flow that holds no recipe: one is typed into the form
SCHEDULE = "recipe"  # slug of the schedule that a recipe asks for; schedules that people add are left alone
_WATCHING = "check-health"  # deployed for a recipe only if it asks for that


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(_Strict):
    """How many runs of a deployment at once, and what becomes of one more."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"]
    grace_period_seconds: int = Field(ge=60, le=86_400)  # Prefect's own bounds


class _PoolSection(_Strict):
    name: str
    work_queue_name: str


class _Entry(_Strict):
    name: Literal["any"]
    entrypoint: Annotated[str, Field(pattern=r"^flows\.\w+\.\w+$")]
    description: str
    tags: list[str]
    parameters: dict[str, Any] = {}
    work_pool: _PoolSection
    concurrency_limit: Limit


class _Pool(_Strict):
    name: Literal["cpu", "gpu"]
    description: str
    queues: list[str]


class _File(_Strict):
    name: str
    prefect_version: str = Field(alias="prefect-version")
    definitions: Any = None
    work_pools: list[_Pool]
    deployments: list[_Entry]


@dataclass(frozen=True)
class ServedRecipe:
    """A recipe and what it says of its deployment."""

    recipe: Recipe
    deploy: Deploy


@dataclass(frozen=True)
class Pool:
    name: str
    type: Kind
    description: str
    concurrency_limit: int | None
    queues: list[str]  # the first has priority 1, the highest
    base_job_template: Template


@dataclass(frozen=True)
class Deployment:
    entrypoint: str
    name: str
    description: str
    tags: list[str]
    pool: str
    queue: str
    parameters: dict[str, Any]
    job_variables: dict[str, Any]
    limit: Limit
    schedule: CronSchedule | None

    @cached_property
    def flow(self) -> Flow[..., Any]:
        """The flow itself; ProsemillError where it cannot be imported."""
        module, _, name = self.entrypoint.rpartition(".")
        try:
            flow = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise ProsemillError(f"prefect.yaml: {self.entrypoint} cannot be imported: {error}") from error
        if not isinstance(flow, Flow):
            raise ProsemillError(f"prefect.yaml: {self.entrypoint} is not a flow")
        return flow

    @property
    def full_name(self) -> str:
        return f"{self.flow.name}/{self.name}"

    def as_dict(self) -> dict[str, Any]:
        """What is applied, under the API's names; the form's schema, which follows from the flow, left out."""
        schedule = self.schedule and {"slug": SCHEDULE, "cron": self.schedule.cron, "timezone": self.schedule.timezone}
        return {
            "name": self.full_name, "entrypoint": self.entrypoint, "description": self.description, "tags": self.tags,
            "work_pool_name": self.pool, "work_queue_name": self.queue, "concurrency_limit": self.limit.limit,
            "concurrency_options": self.limit.model_dump(exclude={"limit"}), "schedule": schedule,
            "parameters": self.parameters, "job_variables": self.job_variables,
        }  # fmt: skip


@dataclass(frozen=True)
class DeploymentPlan:
    pools: list[Pool]
    deployments: list[Deployment]
    served: list[ServedRecipe]
    store: str


def plan(
    recipes: Sequence[Path], store: str, *, kind: Kind = "process", image: str = "", gpus: int = 1
) -> DeploymentPlan:
    """Pools of one kind; every flow of prefect.yaml as `any`, and for each recipe under its name.

    `gpus`: how many runs the gpu pool may have at once, one a card.
    """
    content = read()
    served = [ServedRecipe(load_recipe(path), load_deploy(path)) for path in recipes]
    names = [GENERIC, *(served_recipe.recipe.name for served_recipe in served)]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ProsemillError(f"two deployments would be named {twice!r}; give the recipe another name")
    pools = [_pool(pool, kind, image, gpus) for pool in content.work_pools]
    base: dict[str, Any] = {"env": environment.of_job(store)}
    if kind == "docker" and "://" not in store:
        base["volumes"] = [f"{store}:{store}"]
    deployments = [_deployment(entry, None, store, base) for entry in content.deployments if not _watches(entry)]
    for served_recipe in served:
        wanted = [entry for entry in content.deployments if served_recipe.deploy.watches_health or not _watches(entry)]
        deployments += [_deployment(entry, served_recipe, store, base) for entry in wanted]
    return DeploymentPlan(pools, deployments, served, store)


def read(path: Path = PREFECT_YAML) -> _File:
    """prefect.yaml; ProsemillError names the first key that is unknown, missing or wrong."""
    try:
        return _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ProsemillError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        raise ProsemillError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def _pool(entry: _Pool, kind: Kind, image: str, gpus: int) -> Pool:
    limit = gpus if entry.name == "gpu" else None
    template = job_templates.read(kind, entry.name, image)
    return Pool(entry.name, kind, entry.description, limit, entry.queues, template)


def _watches(entry: _Entry) -> bool:
    return entry.entrypoint.endswith(f".{_WATCHING.replace('-', '_')}")


def _deployment(entry: _Entry, served: ServedRecipe | None, store: str, base: Mapping[str, Any]) -> Deployment:
    deploy = served.deploy if served else Deploy()
    name = served.recipe.name if served else GENERIC
    parameters = {key: _filled(value, name, deploy) for key, value in entry.parameters.items()} | {"store": store}
    if served:
        parameters["recipe"] = served.recipe.model_dump(mode="json")
    tags = list(dict.fromkeys([*entry.tags, *([name] if served else []), *deploy.tags]))
    job = deploy.gpu_job if entry.work_pool.name == "gpu" else deploy.cpu_job
    strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "CANCEL_NEW" if deploy.on_collision == "cancel-new" else "ENQUEUE"
    return Deployment(
        entrypoint=entry.entrypoint,
        name=name,
        description=_described(entry, served),
        tags=tags,
        pool=entry.work_pool.name,
        queue=entry.work_pool.work_queue_name if deploy.priority == "normal" else deploy.priority,
        parameters=parameters,
        job_variables=_merged(base, job),
        limit=entry.concurrency_limit.model_copy(update={"collision_strategy": strategy} if served else {}),
        schedule=_schedule(entry, deploy) if served else None,
    )


def _filled(value: Any, name: str, deploy: Deploy) -> Any:
    if value == "{max_age_days}":
        return deploy.max_age_days
    return value.replace("{name}", name) if isinstance(value, str) else value


def _described(entry: _Entry, served: ServedRecipe | None) -> str:
    if not served:
        return f"{entry.description} Needs a recipe: type it into the form, or deploy one with `prosemill deploy`."
    page = f"[The corpus and its models over time](/v2/artifacts/key/{served.recipe.name})"
    return " ".join(filter(None, [entry.description, served.recipe.description.rstrip(), page]))


def _schedule(entry: _Entry, deploy: Deploy) -> CronSchedule | None:
    flow = entry.entrypoint.rpartition(".")[2]
    cron = {"retrain": deploy.cron, "build_corpus": deploy.corpus_cron, "check_health": deploy.health_cron}.get(flow)
    return CronSchedule(cron=cron, timezone=deploy.timezone) if cron else None


def _merged(base: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's job variables over ours; env by its entries, volumes beside each other."""
    merged = {**base, **job, "env": {**base["env"], **job.get("env", {})}}
    if "volumes" in base and "volumes" in job:
        merged["volumes"] = [*base["volumes"], *job["volumes"]]
    return merged
