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
        served, alert_block = [(each.recipe, each.deploy) for each in planned.served], environment.alert_block()
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
        found = client.read_block_document_by_name(name, block_type)
    except ObjectNotFound:
        wanted.save(name)
        return Change("block", name, "created")
    fields = [] if found.data.get("basepath") == wanted.basepath else ["basepath"]
    if fields:
        wanted.save(name, overwrite=True)
    return change("block", name, fields)


def _apply_deployment(client: SyncPrefectClient, each: Deployment) -> Change:
    try:
        found = client.read_deployment_by_name(each.full_name)
    except ObjectNotFound:
        _create(client, each)
        return Change("deployment", each.full_name, "created")
    wanted = _wanted(each)
    fields = differing(wanted, _as_found(found))
    if fields:
        # Pool and queue belong together: the queue of a name alone is one without a pool.
        together = (
            {"work_pool_name", "work_queue_name"} if {"work_pool_name", "work_queue_name"} & set(fields) else set()
        )
        update = {name: wanted[name] for name in {*fields, *together}}
        client.update_deployment(found.id, DeploymentUpdate(**update))
    if _apply_schedule(client, found, each):
        fields.append("schedule")
    return change("deployment", each.full_name, fields)


def _create(client: SyncPrefectClient, each: Deployment) -> None:
    schedules = [DeploymentScheduleCreate(schedule=each.schedule, slug=SCHEDULE)] if each.schedule else []
    client.create_deployment(client.create_flow(each.flow), each.name, schedules=schedules, **_wanted(each))


def _wanted(each: Deployment) -> dict[str, Any]:
    return {
        "entrypoint": each.entrypoint,
        "path": None,
        "pull_steps": None,
        "description": each.description,
        "tags": each.tags,
        "work_pool_name": each.pool,
        "work_queue_name": each.queue,
        "parameters": each.parameters,
        "enforce_parameter_schema": True,
        "parameter_openapi_schema": each.flow.parameters.model_dump_for_openapi(),
        "job_variables": each.job_variables,
        "concurrency_limit": each.limit.limit,
        "concurrency_options": ConcurrencyOptions(**each.limit.model_dump(exclude={"limit"})),
    }


def _as_found(found: DeploymentResponse) -> dict[str, Any]:
    fields = {name: getattr(found, name) for name in type(found).model_fields if name != "concurrency_limit"}
    limit = found.global_concurrency_limit  # the field concurrency_limit of an answer is always empty
    return fields | {"concurrency_limit": limit.limit if limit else None, "pull_steps": found.pull_steps or None}


def _apply_schedule(client: SyncPrefectClient, found: DeploymentResponse, each: Deployment) -> bool:
    """The one schedule that is the recipe's; those that people added, and whether one is paused, stay as they are."""
    ours: DeploymentSchedule | None = next((one for one in found.schedules if one.slug == SCHEDULE), None)
    if each.schedule is None:
        if ours is not None:
            client.delete_deployment_schedule(found.id, ours.id)
        return ours is not None
    if ours is None:
        wanted = DeploymentScheduleCreate(schedule=each.schedule, slug=SCHEDULE)
        client.create_deployment_schedules(found.id, [wanted])
        return True
    if ours.schedule == each.schedule:
        return False
    client.update_deployment_schedule(found.id, ours.id, schedule=each.schedule)
    return True


def as_dict(planned: DeploymentPlan) -> dict[str, Any]:
    """All changes that `apply` would make, for a person to read. Ids that only a server gives are all zeros."""
    return {
        "work_pools": [asdict(pool) for pool in planned.pools],
        "deployments": [each.as_dict() for each in planned.deployments],
        "automations": [each.model_dump(mode="json", exclude={"id"}) for each in _automations(planned)],
    }


def _automations(planned: DeploymentPlan) -> Iterator[AutomationCore]:
    for each in planned.served:
        yield from automations.automations(each.recipe, each.deploy, automations.DRY_RUN_ID)
    yield from crash_safety.automations()
    if block := environment.alert_block():
        yield from automations.alerts(block.partition("/")[0], automations.DRY_RUN_ID)
