"""What an operator copies: every setting in it exists, every image is pinned, every unit and reference is sound."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.production import FILES, ROOT, read_env
from tests.programs import need

GUIDE = ROOT / "deployments" / "README.md"
UNITS = sorted((FILES / "systemd").iterdir())
VALUES = sorted(FILES.glob("*.values.yaml"))
NAME = re.compile(r"(?:PROSEMILL|PREFECT|MLFLOW|OPENLINEAGE|AWS|HF|CUDA|XDG)_[A-Z0-9_]*[A-Z0-9]")


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FILES / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def known_settings() -> set[str]:
    """Every variable that Prefect, prefect-redis, MLflow or botocore reads, and those that prosemill does."""
    import mlflow.environment_variables as mlflow_settings
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES as AWS
    from mlflow.cli import server as mlflow_server
    from prefect.settings.legacy import _get_settings_fields
    from prefect.settings.models.root import Settings
    from prefect_redis.client import RedisMessagingSettings

    prefect = {f"PREFECT_REDIS_MESSAGING_{name.upper()}" for name in RedisMessagingSettings.model_fields}
    prefect |= set(_get_settings_fields(Settings))  # the names as `prefect config set` takes them
    mlflow = {getattr(variable, "name", "") for variable in vars(mlflow_settings).values()}
    mlflow |= {str(option.envvar) for option in mlflow_server.params if getattr(option, "envvar", None)}
    aws = {names for _, names, *_ in AWS.values() if isinstance(names, str)}
    aws |= {name for _, names, *_ in AWS.values() if isinstance(names, list) for name in names}
    credentials = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"}  # read by their own providers
    python = {"PYTHONPATH", "PYTHONSAFEPATH"}
    return prefect | mlflow | aws | credentials | python | read_by_prosemill()


def read_by_prosemill() -> set[str]:
    """The variables that environment.py names, docstrings aside, and the one that the backup's unit reads."""
    tree = ast.parse((ROOT / "prosemill" / "config" / "environment.py").read_text(encoding="utf-8"))
    constants = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {text for text in constants if NAME.fullmatch(text)} | {"PROSEMILL_BACKUP"}


def settings_table() -> set[str]:
    """First cells of the rows of the guide's table of settings."""
    section = GUIDE.read_text(encoding="utf-8").partition("## Settings")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([A-Z0-9_]+)`", cell)}


def test_every_variable_in_the_example_exists() -> None:
    own = {"POSTGRES_PASSWORD", "MLFLOW_HOST"}  # compose.yaml alone reads them
    assert set(read_env(FILES / "env.example")) - known_settings() - own == set()


def test_a_misspelt_variable_would_be_found() -> None:
    assert {"PREFECT_SERVER_API_AUTH_STRNG", "MLFLOW_BACKEND_STORE", "AWS_REGIO"} & known_settings() == set()


def test_every_variable_in_compose_and_values_exists() -> None:
    texts = [path.read_text(encoding="utf-8") for path in [*VALUES, FILES / "compose.yaml", FILES / "Dockerfile"]]
    named = {name for text in texts for name in NAME.findall(text)}
    assert named - known_settings() - {"MLFLOW_HOST"} == set()
    assert "PREFECT_SERVER_DOCKET_URL" in named


def test_the_guide_lists_what_prosemill_reads_and_what_the_example_sets() -> None:
    wanted = read_by_prosemill() | set(read_env(FILES / "env.example"))
    assert wanted - settings_table() == set(), "missing in the guide's table"
    assert settings_table() - known_settings() - {"POSTGRES_PASSWORD", "MLFLOW_HOST", "DO_NOT_TRACK"} == set(), (
        "nobody reads these"
    )


def test_the_guide_names_files_that_are_there() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    named = set(re.findall(r"deployments/production/[\w./@-]+\w", text))
    assert named
    assert [name for name in sorted(named) if not list(ROOT.glob(f"{name}*"))] == []


def test_images_are_pinned() -> None:
    images = [service["image"] for service in compose()["services"].values()]
    images += re.findall(r"^FROM (\S+)", (FILES / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(images) > 8
    unpinned = [image for image in images if not re.search(r":[^:/]*\d+(\.|-)\d+", image)]
    assert unpinned == []


def test_compose_refers_only_to_what_it_declares() -> None:
    content = compose()
    services = content["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], (
                    f"{name} waits for {needed} to be healthy, which nothing tells"
                )
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = source in content["volumes"] or source.startswith("/") or (FILES / source).exists()
            assert known, f"{name}: {volume}"
    variables = {*read_env(FILES / "env.example")}
    needed = set(re.findall(r"\$\{(\w+)\}", (FILES / "compose.yaml").read_text(encoding="utf-8")))
    assert needed <= variables


def test_compose_has_the_parts_of_a_production() -> None:
    commands = {name: " ".join(service.get("command", [])) for name, service in compose()["services"].items()}
    assert "--no-services" in commands["prefect-server"]
    assert commands["prefect-services"] == "prefect server services start"
    assert (
        compose()["services"]["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    )


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.name)
def test_values_have_the_keys_that_the_charts_take(path: Path) -> None:
    """As in values.schema.json and UPGRADING.md of prefect-helm, where misspelt keys are passed over in silence."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "server" in path.name:
        assert set(values) <= {"global", "server", "migrations", "backgroundServices", "secret", "postgresql", "redis",
                               "ingress", "service", "serviceAccount", "sqlite"}  # fmt: skip
        assert values["backgroundServices"]["runAsSeparateDeployment"] is True
        assert set(values["server"]) <= {"replicaCount", "basicAuth", "uiConfig", "env", "resources", "readinessProbe",
                                         "livenessProbe"}  # fmt: skip
    else:
        assert set(values) <= {"worker", "role", "rolebinding", "serviceAccount"}
        worker = values["worker"]
        assert set(worker) <= {"image", "config", "apiConfig", "selfHostedServerApiConfig", "extraEnvVarsSecrets",
                               "resources", "livenessProbe", "replicaCount"}  # fmt: skip
        assert set(worker["config"]) <= {"workPool", "type", "installPolicy", "limit", "name", "queryInterval"}
        assert worker["config"]["workPool"] in path.name


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_units(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    sections = re.findall(r"^\[(\w+)\]$", text, re.MULTILINE)
    assert sections[0] == "Unit"
    verify = need("systemd-analyze")
    here = text.replace("/opt/prosemill/.venv/bin/", "/usr/bin/env ").replace("User=prosemill", "User=root")
    name = path.name.replace("@", "@0")
    (tmp_path / name).write_text(here.replace("%i", "0"), encoding="utf-8")
    for other in UNITS:
        if other != path and "@" not in other.name:
            (tmp_path / other.name).write_text(other.read_text().replace("/opt/prosemill/.venv/bin/", "/usr/bin/env "))
    done = subprocess.run(
        [verify, "verify", "--man=no", str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if name in line]
    assert ours == []
