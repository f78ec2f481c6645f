"""Base-job templates of the work pools: what Prefect's own workers expect, and what training needs beside it.

    python -m deployments.job_templates        (writes deployments/templates/*.json from the installed workers)

`prosemill deploy` reads the files, so that only the workers need prefect-docker or prefect-kubernetes; a test makes
them anew and compares, so that they keep in step with the pinned versions of both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, get_args

from prosemill.errors import ProsemillError

Kind = Literal["process", "docker", "kubernetes"]
Template = dict[str, Any]

KINDS: tuple[Kind, ...] = get_args(Kind)
POOLS = ("cpu", "gpu")
FOLDER = Path(__file__).with_name("templates")

# Variables beside Prefect's own: for the UI, and for the tables cpu_job and gpu_job of [deploy].
_DOCKER_GPU: dict[str, Any] = {
    "gpu_ids": {
        "type": "array",
        "items": {"type": "string"},
        "minItems": 1,
        "default": ["0"],
        "description": "Cards of the job, as nvidia-smi numbers them.",
    },
    "shared_memory": {
        "type": "string",
        "default": "8g",
        "description": "Size of /dev/shm, which data loaders share.",
    },
}
_KUBERNETES: dict[str, Any] = {
    "secret_name": {
        "type": "string",
        "default": "prosemill",
        "description": "Secret whose keys become environment variables: AWS keys, PREFECT_API_AUTH_STRING … It may be "
        "missing.",
    },
    "node_selector": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "default": {},
        "description": "Labels that a node must have.",
    },
    "store_volume": {
        "type": "object",
        "description": "Volume of a store that is a folder: {name: store, persistentVolumeClaim: {claimName: …}}.",
    },
    "store_mount": {"type": "object", "description": "Where that volume is: {name: store, mountPath: /store}."},
}
_KUBERNETES_GPU: dict[str, Any] = {
    "gpu_count": {
        "type": "integer",
        "minimum": 1,
        "maximum": 8,
        "default": 1,
        "description": "How many GPUs the pod asks for.",
    },
    "tolerations": {
        "type": "array",
        "items": {"type": "object"},
        # GPU nodes are tainted by NVIDIA's operator and by most clouds, so that nothing else lands on them.
        "default": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "description": "Taints that do not keep the pod away.",
    },
    "shared_memory": {
        "type": "string",
        "default": "8Gi",
        "description": "Size of /dev/shm, which data loaders share; counts as memory of the pod.",
    },
}


def read(kind: Kind, pool: str, image: str = "") -> Template:
    """The template of a pool; `image` becomes what its containers run unless a recipe says otherwise."""
    template: Template = json.loads((FOLDER / f"{kind}-{pool}.json").read_text(encoding="utf-8"))
    if kind == "process":
        return template
    if not image:
        raise ProsemillError(f"--pools {kind} needs --image, the image that holds prosemill; for example prosemill:0.1")
    template["variables"]["properties"]["image"]["default"] = image
    return template


def make(kind: Kind, pool: str) -> Template:
    """Prefect's template for this kind of worker with our changes; ImportError where the worker is not installed."""
    template: Template = deepcopy(_worker(kind).get_default_base_job_template())
    changes: dict[str, Callable[[Template, bool], None]] = {"docker": _docker, "kubernetes": _kubernetes}
    if kind in changes:
        changes[kind](template, pool == "gpu")
    return template


def _worker(kind: Kind) -> Any:
    if kind == "docker":
        from prefect_docker.worker import DockerWorker  # type: ignore[import-untyped]

        return DockerWorker
    if kind == "kubernetes":
        from prefect_kubernetes.worker import KubernetesWorker  # type: ignore[import-untyped]

        return KubernetesWorker
    from prefect.workers.process import ProcessWorker

    return ProcessWorker


def _docker(template: Template, is_gpu: bool) -> None:
    if not is_gpu:
        return
    _add(template, _DOCKER_GPU)
    # Prefect's variable of this name would replace the whole of it, cards included.
    del template["variables"]["properties"]["container_create_kwargs"]
    template["job_configuration"]["container_create_kwargs"] = {
        "device_requests": [{"Driver": "nvidia", "DeviceIDs": "{{ gpu_ids }}", "Capabilities": [["gpu"]]}],
        "shm_size": "{{ shared_memory }}",
    }


def _kubernetes(template: Template, is_gpu: bool) -> None:
    variables = template["variables"]["properties"]
    variables["namespace"]["default"] = "prosemill"  # where the guide puts the workers, their rights and the Secret
    variables["finished_job_ttl"]["default"] = 86_400  # by default finished jobs are never cleaned away
    variables["pod_watch_timeout_seconds"]["default"] = 1800  # 60 s are too few to pull an image with torch in it
    _add(template, _KUBERNETES)
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    container["envFrom"] = [{"secretRef": {"name": "{{ secret_name }}", "optional": True}}]
    pod["nodeSelector"] = "{{ node_selector }}"
    pod["volumes"] = ["{{ store_volume }}"]
    container["volumeMounts"] = ["{{ store_mount }}"]
    if is_gpu:
        _add(template, _KUBERNETES_GPU)
        container["resources"]["limits"]["nvidia.com/gpu"] = "{{ gpu_count }}"
        pod["tolerations"] = "{{ tolerations }}"
        memory = {"medium": "Memory", "sizeLimit": "{{ shared_memory }}"}
        pod["volumes"].append({"name": "shared-memory", "emptyDir": memory})
        container["volumeMounts"].append({"name": "shared-memory", "mountPath": "/dev/shm"})


def _add(template: Template, variables: dict[str, Any]) -> None:
    for name, schema in variables.items():
        title = name.replace("_", " ").capitalize().replace("Gpu", "GPU")
        template["variables"]["properties"][name] = {"title": title, **schema}


def main() -> None:
    for kind in KINDS:
        for pool in POOLS:
            text = json.dumps(make(kind, pool), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
            (FOLDER / f"{kind}-{pool}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
