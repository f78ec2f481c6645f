"""Apply the deployments of `prefect.yaml`, and one more for each recipe, to the Prefect server in use.

    python -m deployments.apply [--dry-run] [--store URL] [RECIPE ...]

Prefect's own `deploy` accepts a flow that cannot be imported, and only the worker fails; so every entry point is
imported here first.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from prosemill.environment import store_url
from prosemill.errors import ProsemillError
from prosemill.recipe import load_recipe
from prosemill.settings import Recipe

PREFECT_YAML = Path(__file__).with_name("prefect.yaml")
POOLS = ("cpu", "gpu")


def deployments(recipes: Sequence[Recipe], store: str) -> dict[str, Any]:
    """The content of prefect.yaml with a `retrain` deployment for each recipe, which holds the recipe."""
    content: dict[str, Any] = yaml.safe_load(PREFECT_YAML.read_text(encoding="utf-8"))
    for deployment in content["deployments"]:
        deployment["parameters"] = {**deployment.get("parameters", {}), "store": store}
    (parent,) = [each for each in content["deployments"] if each["entrypoint"] == "flows.retrain.retrain"]
    for recipe in recipes:
        parameters = {**parent["parameters"], "recipe": recipe.model_dump(mode="json")}
        description = recipe.description or f"Retrain {recipe.name}."
        content["deployments"].append(
            {**parent, "name": recipe.name, "description": description, "parameters": parameters}
        )
    return content


def check_entrypoints(content: dict[str, Any]) -> None:
    """Import every flow, and find each parameter that a deployment sets among the flow's own."""
    for deployment in content["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        unknown = set(deployment["parameters"]) - set(flow.parameters.properties)
        if unknown:
            raise ProsemillError(f"prefect.yaml: {deployment['entrypoint']} has no parameter {sorted(unknown)[0]}")


def apply(content: dict[str, Any]) -> None:
    """Create the work pools and the deployments; doing it twice changes nothing."""
    for pool in POOLS:
        _prefect("work-pool", "create", pool, "--type", "process", "--overwrite")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(content, file, allow_unicode=True, sort_keys=False)
        file.flush()
        _prefect("--no-prompt", "deploy", "--all", "--prefect-file", file.name)


def _prefect(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments], capture_output=True, text=True, check=False,
        cwd=PREFECT_YAML.parent.parent,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()
        raise ProsemillError(f"prefect {' '.join(arguments[:3])}: {last[-1] if last else done.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Apply work pools and deployments.")
    parser.add_argument("recipes", nargs="*", type=Path, metavar="RECIPE")
    parser.add_argument("--dry-run", action="store_true", help="import every flow and print what would be applied")
    parser.add_argument("--store", default="", help="folder or URL; default: PROSEMILL_STORE, else data/store")
    arguments = parser.parse_args()
    try:
        content = deployments([load_recipe(path) for path in arguments.recipes], store_url(arguments.store))
        check_entrypoints(content)
        if arguments.dry_run:
            sys.stdout.write(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
        else:
            apply(content)
    except ProsemillError as error:
        sys.exit(f"prosemill: {error}")


if __name__ == "__main__":
    main()
