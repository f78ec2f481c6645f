"""What is wrong with a plan, in one line, before anything is written to a server.

Prefect's own deploy passes over misspelt keys and over flows that cannot be imported; only the worker fails, when a run
starts.
"""

from __future__ import annotations

from typing import Any

from prefect.utilities.schema_tools import ValidationError, validate

from deployments.plan import Deployment, DeploymentPlan, Pool
from prosemill.errors import ProsemillError


def check(planned: DeploymentPlan) -> None:
    """Import every flow; find each parameter among its own, each job variable and queue among its pool's."""
    pools = {pool.name: pool for pool in planned.pools}
    names = {deployment.full_name for deployment in planned.deployments}
    for deployment in planned.deployments:
        _check_parameters(deployment)
        _check_job(deployment, pools[deployment.pool])
        if deployment.queue not in pools[deployment.pool].queues:
            raise ProsemillError(
                f"prefect.yaml: {deployment.full_name}: the pool {deployment.pool} has no queue {deployment.queue!r}"
            )
        target = deployment.parameters.get("train_on", "")
        if target and target not in names:
            raise ProsemillError(f"prefect.yaml: {deployment.full_name}: train_on = {target!r} is not a deployment")


def _check_parameters(deployment: Deployment) -> None:
    unknown = set(deployment.parameters) - set(deployment.flow.parameters.properties)
    if unknown:
        raise ProsemillError(f"prefect.yaml: {deployment.entrypoint} has no parameter {sorted(unknown)[0]}")
    problem = _problem(deployment.parameters, deployment.flow.parameters.model_dump_for_openapi())
    if problem:
        raise ProsemillError(f"{deployment.full_name}: a parameter does not fit the flow: {problem}")


def _check_job(deployment: Deployment, pool: Pool) -> None:
    variables = pool.base_job_template["variables"]
    where = f"{deployment.full_name}: [deploy] {pool.name}_job"
    if unknown := sorted(set(deployment.job_variables) - set(variables["properties"])):
        known = ", ".join(sorted(variables["properties"]))
        raise ProsemillError(f"{where}: a {pool.type} pool has no job variable {unknown[0]!r}; known: {known}")
    if problem := _problem(deployment.job_variables, variables):
        raise ProsemillError(f"{where}: {problem}")
    store = deployment.job_variables["env"]["PROSEMILL_STORE"]
    if pool.type == "kubernetes" and "://" not in store and "store_volume" not in deployment.job_variables:
        raise ProsemillError(
            f"{deployment.full_name}: pods do not see the folder {store}; give --store a URL such as s3://bucket, "
            "or cpu_job and gpu_job of [deploy] a store_volume and a store_mount"
        )


def _problem(values: dict[str, Any], schema: dict[str, Any]) -> str:
    """Why the server, which asks the same function, would refuse these values; "" if it would not."""
    try:
        validate(values, schema, raise_on_error=True, ignore_required=True)
    except ValidationError as error:
        return " ".join(str(error).split())
    return ""
