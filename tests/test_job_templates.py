"""Jobs of the three kinds of work pools, rendered as their workers do and read by Docker's and Kubernetes' models."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.models.containers import _create_container_args
from kubernetes_asyncio.client import ApiClient, Configuration
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect_docker.worker import DockerWorkerJobConfiguration
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from deployments import job_templates
from deployments.checks import check
from deployments.plan import plan
from prosemill.errors import ProsemillError
from tests.stories import recipe_text


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


def recipe(home: Path, deploy: str, name: str = "other") -> Path:
    path = home / f"{name}.toml"
    path.write_text(recipe_text(more=deploy).replace('"stories"', f'"{name}"'))
    return path


@pytest.mark.parametrize("pool", job_templates.POOLS)
@pytest.mark.parametrize("kind", job_templates.KINDS)
def test_templates_keep_in_step_with_the_workers(kind: job_templates.Kind, pool: str) -> None:
    text = (job_templates.FOLDER / f"{kind}-{pool}.json").read_text(encoding="utf-8")
    assert json.loads(text) == job_templates.make(kind, pool), "run `python -m deployments.job_templates`"


def test_containers_need_an_image_and_pods_a_store_that_they_see(home: Path) -> None:
    with pytest.raises(ProsemillError, match="--pools docker needs --image"):
        plan([], "/store", kind="docker")
    with pytest.raises(ProsemillError, match="pods do not see the folder /store"):
        check(plan([], "/store", kind="kubernetes", image="prosemill:1"))
    check(plan([recipe(home, "")], "s3://bucket/store", kind="kubernetes", image="prosemill:1"))


def configured(kind: job_templates.Kind, name: str, recipes: list[Path], store: str) -> Any:
    """The job that a worker of this kind would start for a run of the deployment `name`, as the worker prepares it."""
    planned = plan(recipes, store, kind=kind, image="registry.example.org/prosemill:1")
    check(planned)
    (wanted,) = [deployment for deployment in planned.deployments if deployment.full_name == name]
    (pool,) = [pool for pool in planned.pools if pool.name == wanted.pool]
    configuration = {"docker": DockerWorkerJobConfiguration, "kubernetes": KubernetesWorkerJobConfiguration}[kind]

    async def render() -> Any:
        async with get_client() as client:
            return await configuration.from_template_and_values(
                pool.base_job_template, wanted.job_variables, client=client
            )

    rendered = run_coro_as_sync(render())
    rendered.prepare_for_flow_run(FlowRun(flow_id="11111111-1111-1111-1111-111111111111", name="a-run"))
    return rendered


def as_job(manifest: dict[str, Any]) -> Any:
    """The manifest as Kubernetes' own models read it: they refuse what is missing, and keep only what they know."""

    async def read() -> tuple[Any, Any]:
        settings = Configuration()
        settings.client_side_validation = True
        async with ApiClient(settings) as client:
            job = client.deserialize(SimpleNamespace(data=json.dumps(manifest)), "V1Job")
            return job, client.sanitize_for_serialization(job)

    job, known = asyncio.run(read())
    pod = json.loads(json.dumps(manifest["spec"]["template"]["spec"]))
    limits = pod["containers"][0]["resources"]["limits"]
    limits.update({name: str(value) for name, value in limits.items()})  # a quantity may be written as a number
    for misplaced in ("completions", "parallelism"):  # by Prefect, whose worker insists on them
        del pod[misplaced]
    assert known["spec"]["template"]["spec"] == pod
    return job


@pytest.mark.usefixtures("prefect_api")
def test_a_pod_of_the_gpu_pool_asks_for_a_gpu(home: Path) -> None:
    deploy = '[deploy.gpu_job]\ngpu_count = 2\nnode_selector = {"nvidia.com/gpu.product" = "NVIDIA-H100"}\n'
    path = recipe(home, deploy, "pods")
    manifest = configured("kubernetes", "train-model/pods", [path], "s3://bucket/store").job_manifest

    job = as_job(manifest)
    pod, (container,) = job.spec.template.spec, job.spec.template.spec.containers
    assert container.image == "registry.example.org/prosemill:1"
    assert container.resources.limits["nvidia.com/gpu"] == "2"
    assert pod.node_selector == {"nvidia.com/gpu.product": "NVIDIA-H100"}
    assert [(toleration.key, toleration.operator, toleration.effect) for toleration in pod.tolerations] == [
        ("nvidia.com/gpu", "Exists", "NoSchedule")
    ]
    (memory,) = pod.volumes
    (mount,) = container.volume_mounts
    assert (memory.empty_dir.medium, memory.empty_dir.size_limit, mount.mount_path) == ("Memory", "8Gi", "/dev/shm")
    assert mount.name == memory.name
    assert container.env_from[0].secret_ref.name == "prosemill"
    assert container.env_from[0].secret_ref.optional
    assert job.metadata.namespace == "prosemill"
    env = {variable.name: variable.value for variable in container.env}
    assert env["PROSEMILL_STORE"] == "s3://bucket/store"
    assert env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert (pod.restart_policy, job.spec.backoff_limit, job.spec.ttl_seconds_after_finished) == ("Never", 0, 86_400)


@pytest.mark.usefixtures("prefect_api")
def test_a_pod_of_the_cpu_pool_asks_for_none_and_may_mount_a_store(home: Path) -> None:
    volume = '{name = "store", persistentVolumeClaim = {claimName = "prosemill"}}'
    job = f'store_volume = {volume}\nstore_mount = {{name = "store", mountPath = "/store"}}\n'
    path = recipe(home, f"[deploy.cpu_job]\n{job}[deploy.gpu_job]\n{job}", "claims")
    pod = configured("kubernetes", "build-corpus/claims", [path], "s3://b").job_manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "nvidia.com/gpu" not in json.dumps(pod)
    assert pod["volumes"] == [{"name": "store", "persistentVolumeClaim": {"claimName": "prosemill"}}]
    assert container["volumeMounts"] == [{"name": "store", "mountPath": "/store"}]
    training = configured("kubernetes", "train-model/claims", [path], "s3://b").job_manifest
    mounts = training["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert [mount["mountPath"] for mount in mounts] == ["/store", "/dev/shm"]


@pytest.mark.usefixtures("prefect_api")
def test_a_container_of_the_gpu_pool_is_given_its_card(home: Path) -> None:
    path = recipe(home, '[deploy.gpu_job]\ngpu_ids = ["1"]\n', "cards")
    rendered = configured("docker", "train-model/cards", [path], "/srv/store")
    kwargs = _create_container_args(
        {"version": "1.45", "image": rendered.image, "volumes": rendered.volumes, **rendered.container_create_kwargs}
    )
    host = kwargs["host_config"]
    assert host["DeviceRequests"] == [
        {"Driver": "nvidia", "Count": 0, "DeviceIDs": ["1"], "Capabilities": [["gpu"]], "Options": {}}
    ]
    assert host["ShmSize"] == 8 * 2**30
    assert host["Binds"] == ["/srv/store:/srv/store"]
    assert rendered.env["PROSEMILL_STORE"] == "/srv/store"
    corpus = configured("docker", "build-corpus/cards", [path], "/srv/store")
    assert not corpus.container_create_kwargs
