"""What is wrong with a plan, in one line, before anything is written to a server.

Prefect's own deploy passes over misspelt keys and over flows that cannot be imported; only the worker fails, at night.
"""

from __future__ import annotations

from typing import Any

from prefect.utilities.schema_tools import ValidationError, validate

from deployments.plan import Deployment, DeploymentPlan, Pool
from prosemill.errors import ProsemillError


def check(planned: DeploymentPlan) -> None:
    """Import every flow; find each parameter among its own, each job variable and queue among its pool's."""
    pools = {pool.name: pool for pool in planned.pools}
    names = {each.full_name for each in planned.deployments}
    for each in planned.deployments:
        _check_parameters(each)
        _check_job(each, pools[each.pool])
        if each.queue not in pools[each.pool].queues:
            raise ProsemillError(f"prefect.yaml: {each.full_name}: the pool {each.pool} has no queue {each.queue!r}")
        target = each.parameters.get("train_on", "")
        if target and target not in names:
            raise ProsemillError(f"prefect.yaml: {each.full_name}: train_on = {target!r} is not a deployment")


def _check_parameters(each: Deployment) -> None:
    unknown = set(each.parameters) - set(each.flow.parameters.properties)
    if unknown:
        raise ProsemillError(f"prefect.yaml: {each.entrypoint} has no parameter {sorted(unknown)[0]}")
    problem = _problem(each.parameters, each.flow.parameters.model_dump_for_openapi())
    if problem:
        raise ProsemillError(f"{each.full_name}: a parameter does not fit the flow: {problem}")


def _check_job(each: Deployment, pool: Pool) -> None:
    variables = pool.base_job_template["variables"]
    where = f"{each.full_name}: [deploy] {pool.name}_job"
    if unknown := sorted(set(each.job_variables) - set(variables["properties"])):
        known = ", ".join(sorted(variables["properties"]))
        raise ProsemillError(f"{where}: a {pool.type} pool has no job variable {unknown[0]!r}; known: {known}")
    if problem := _problem(each.job_variables, variables):
        raise ProsemillError(f"{where}: {problem}")
    store = each.job_variables["env"]["PROSEMILL_STORE"]
    if pool.type == "kubernetes" and "://" not in store and "store_volume" not in each.job_variables:
        raise ProsemillError(
            f"{each.full_name}: pods do not see the folder {store}; give --store a URL such as s3://bucket, or cpu_job "
            "and gpu_job of [deploy] a store_volume and a store_mount"
        )


def _problem(values: dict[str, Any], schema: dict[str, Any]) -> str:
    """Why the server, which asks the same function, would refuse these values; "" if it would not."""
    try:
        validate(values, schema, raise_on_error=True, ignore_required=True)
    except ValidationError as error:
        return " ".join(str(error).split())
    return ""
