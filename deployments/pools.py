"""Work pools and their queues: created where they are missing, changed only in what differs."""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool, WorkQueue
from prefect.exceptions import ObjectNotFound

from deployments.changes import Change, change, differing
from deployments.plan import Pool
from prosemill.errors import ProsemillError


def existing(client: SyncPrefectClient, pool: Pool) -> WorkPool | None:
    """The pool as it is; ProsemillError where it is there, but for workers of another kind."""
    try:
        current = client.read_work_pool(pool.name)
    except ObjectNotFound:
        return None
    if current.type != pool.type:
        raise ProsemillError(
            f"the work pool {pool.name} is of type {current.type}, which cannot be changed to {pool.type}; delete it "
            f"(`prefect work-pool delete {pool.name}`; deployments stay) and deploy again"
        )
    return current


def apply_pool(client: SyncPrefectClient, pool: Pool) -> list[Change]:
    """The pool, then its queues in order of priority. Whether something is paused stays as people left it."""
    wanted: dict[str, Any] = {
        "description": pool.description,
        "concurrency_limit": pool.concurrency_limit,
        "base_job_template": pool.base_job_template,
    }
    current = existing(client, pool)
    if current is None:
        client.create_work_pool(WorkPoolCreate(name=pool.name, type=pool.type, **wanted))
        pool_change = Change("work pool", pool.name, "created")
    else:
        fields = differing(wanted, {name: getattr(current, name) for name in wanted})
        if fields:
            client.update_work_pool(pool.name, WorkPoolUpdate(**{name: wanted[name] for name in fields}))
        pool_change = change("work pool", pool.name, fields)
    return [pool_change, *_apply_queues(client, pool)]


def _apply_queues(client: SyncPrefectClient, pool: Pool) -> list[Change]:
    """Priorities 1, 2, 3 … in the order given; setting one shifts the others, so they are set from the top."""
    before = _queues(client, pool)
    changes = []
    for priority, name in enumerate(pool.queues, start=1):
        queue = _queues(client, pool).get(name)
        if queue is None:
            client.create_work_queue(name=name, work_pool_name=pool.name, priority=priority)
        elif queue.priority != priority:
            client.update_work_queue(queue.id, priority=priority)
        if name not in before:
            changes.append(Change("queue", f"{pool.name}/{name}", "created"))
        else:
            fields = ["priority"] if before[name].priority != priority else []
            changes.append(change("queue", f"{pool.name}/{name}", fields))
    return changes


def _queues(client: SyncPrefectClient, pool: Pool) -> dict[str, WorkQueue]:
    return {queue.name: queue for queue in client.read_work_queues(work_pool_name=pool.name)}
