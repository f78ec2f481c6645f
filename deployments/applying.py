"""Apply a plan to a Prefect server, changing only what differs.

Each function says what it did as a `Change`; done twice, the second time everything is unchanged. What a plan does not
name is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import ConcurrencyOptions, DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.filesystems import RemoteFileSystem

from deployments import automations, crash_safety, pools
from deployments.changes import Change, change, differing
from deployments.plan import SCHEDULE, Deployment, DeploymentPlan
from prosemill.config import environment


def apply(planned: DeploymentPlan) -> Iterator[Change]:
    """Make it so on the server that PREFECT_API_URL names, one change after another; `check` comes first."""
    with get_client(sync_client=True) as client:
        for pool in planned.pools:
            pools.existing(client, pool)  # refuses a pool of another kind, before anything is written
        served = [(entry.recipe, entry.deploy) for entry in planned.served]
        alert_block = environment.alert_block()
        automations.apply(client, served, alert_block=alert_block, dry_run=True)  # refuses a block that is not there
        if "://" in planned.store:
            yield _apply_results_block(client, planned.store)
        for pool in planned.pools:
            yield from pools.apply_pool(client, pool)
        for deployment in planned.deployments:
            yield _apply_deployment(client, deployment)
        for name, kind in automations.apply(client, served, alert_block=alert_block).items():
            yield Change("automation", name, kind)


def _apply_results_block(client: SyncPrefectClient, store: str) -> Change:
    """Where runs leave their results when the store is not a folder. Credentials: the workers' environment, as ever."""
    block_type, _, name = environment.RESULTS_BLOCK.partition("/")
    wanted = RemoteFileSystem(basepath=f"{store}/prefect/results")
    try:
        document = client.read_block_document_by_name(name, block_type)
    except ObjectNotFound:
        wanted.save(name)
        return Change("block", name, "created")
    fields = [] if document.data.get("basepath") == wanted.basepath else ["basepath"]
    if fields:
        wanted.save(name, overwrite=True)
    return change("block", name, fields)


def _apply_deployment(client: SyncPrefectClient, deployment: Deployment) -> Change:
    try:
        current = client.read_deployment_by_name(deployment.full_name)
    except ObjectNotFound:
        _create(client, deployment)
        return Change("deployment", deployment.full_name, "created")
    wanted = _wanted(deployment)
    fields = differing(wanted, _as_read(current))
    if fields:
        # Pool and queue belong together: the queue of a name alone is one without a pool.
        together = (
            {"work_pool_name", "work_queue_name"} if {"work_pool_name", "work_queue_name"} & set(fields) else set()
        )
        update = {name: wanted[name] for name in {*fields, *together}}
        client.update_deployment(current.id, DeploymentUpdate(**update))
    if _apply_schedule(client, current, deployment):
        fields.append("schedule")
    return change("deployment", deployment.full_name, fields)


def _create(client: SyncPrefectClient, deployment: Deployment) -> None:
    schedules = [DeploymentScheduleCreate(schedule=deployment.schedule, slug=SCHEDULE)] if deployment.schedule else []
    client.create_deployment(
        client.create_flow(deployment.flow), deployment.name, schedules=schedules, **_wanted(deployment)
    )


def _wanted(deployment: Deployment) -> dict[str, Any]:
    return {
        "entrypoint": deployment.entrypoint,
        "path": None,
        "pull_steps": None,
        "description": deployment.description,
        "tags": deployment.tags,
        "work_pool_name": deployment.pool,
        "work_queue_name": deployment.queue,
        "parameters": deployment.parameters,
        "enforce_parameter_schema": True,
        "parameter_openapi_schema": deployment.flow.parameters.model_dump_for_openapi(),
        "job_variables": deployment.job_variables,
        "concurrency_limit": deployment.limit.limit,
        "concurrency_options": ConcurrencyOptions(**deployment.limit.model_dump(exclude={"limit"})),
    }


def _as_read(current: DeploymentResponse) -> dict[str, Any]:
    fields = {name: getattr(current, name) for name in type(current).model_fields if name != "concurrency_limit"}
    limit = current.global_concurrency_limit  # the field concurrency_limit of an answer is always empty
    return fields | {"concurrency_limit": limit.limit if limit else None, "pull_steps": current.pull_steps or None}


def _apply_schedule(client: SyncPrefectClient, current: DeploymentResponse, deployment: Deployment) -> bool:
    """The one schedule that is the recipe's; those that people added, and whether one is paused, stay as they are."""
    ours: DeploymentSchedule | None = next(
        (schedule for schedule in current.schedules if schedule.slug == SCHEDULE), None
    )
    if deployment.schedule is None:
        if ours is not None:
            client.delete_deployment_schedule(current.id, ours.id)
        return ours is not None
    if ours is None:
        wanted = DeploymentScheduleCreate(schedule=deployment.schedule, slug=SCHEDULE)
        client.create_deployment_schedules(current.id, [wanted])
        return True
    if ours.schedule == deployment.schedule:
        return False
    client.update_deployment_schedule(current.id, ours.id, schedule=deployment.schedule)
    return True


def as_dict(planned: DeploymentPlan) -> dict[str, Any]:
    """All changes that `apply` would make, for a person to read. Ids that only a server gives are all zeros."""
    return {
        "work_pools": [asdict(pool) for pool in planned.pools],
        "deployments": [deployment.as_dict() for deployment in planned.deployments],
        "automations": [automation.model_dump(mode="json", exclude={"id"}) for automation in _automations(planned)],
    }


def _automations(planned: DeploymentPlan) -> Iterator[AutomationCore]:
    for entry in planned.served:
        yield from automations.automations(entry.recipe, entry.deploy, automations.DRY_RUN_ID)
    yield from crash_safety.automations()
    if block := environment.alert_block():
        yield from automations.alerts(block.partition("/")[0], automations.DRY_RUN_ID)
