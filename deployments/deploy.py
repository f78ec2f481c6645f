"""Apply work pools, queues, deployments and automations to the Prefect server in use.

    python -m deployments.deploy [RECIPE ...] [OPTION ...]        (--help lists them)

What `prosemill deploy` runs. Everything is checked before the first write.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from deployments import job_templates
from prosemill.config import environment
from prosemill.errors import ProsemillError

if TYPE_CHECKING:
    from deployments.plan import DeploymentPlan

WAIT_SECONDS = 30  # for a server that is just being started again


def run(arguments: argparse.Namespace) -> None:
    """Plan, check, then print or apply. Prefect reads the environment when it is imported, so that comes late."""
    store = environment.store_url(arguments.store)
    environment.prepare(store)
    environment.prefect_home()
    from deployments.checks import check
    from deployments.plan import plan

    planned = plan(arguments.recipes, store, kind=arguments.pools, image=arguments.image, gpus=arguments.gpus)
    check(planned)
    if arguments.dry_run:
        _print(planned, as_json=arguments.json)
    else:
        _apply(planned, as_json=arguments.json)


def _print(planned: DeploymentPlan, *, as_json: bool) -> None:
    from deployments.applying import as_dict

    content = as_dict(planned)
    text = json.dumps(content) if as_json else yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    sys.stdout.write(text.rstrip("\n") + "\n")


def _apply(planned: DeploymentPlan, *, as_json: bool) -> None:
    from httpx import HTTPError, HTTPStatusError
    from prefect.exceptions import PrefectException

    from deployments.applying import apply

    api_url = environment.api_url()
    if not api_url:
        raise ProsemillError("no Prefect server is named or running here; set PREFECT_API_URL, or run `prosemill up`")
    _wait_for(api_url)
    done = []
    try:
        for change in apply(planned):
            done.append(asdict(change))
            if not as_json:
                sys.stdout.write(f"{change}\n")
    except (HTTPError, PrefectException) as error:
        more = error.response.text if isinstance(error, HTTPStatusError) else str(error)
        raise ProsemillError(f"{api_url}: {type(error).__name__}: {' '.join(more.split())[:500]}") from error
    if as_json:
        sys.stdout.write(json.dumps({"changes": done}) + "\n")


def _wait_for(api_url: str) -> None:
    """Until the server answers: at its first start it may end once, and be started again by its supervisor."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not environment.answers(api_url):
        if time.monotonic() > deadline:
            raise ProsemillError(f"no Prefect server answers at {api_url}; start it, or correct PREFECT_API_URL")
        time.sleep(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="prosemill deploy", description="Apply work pools and deployments.")
    parser.add_argument("recipes", nargs="*", type=Path, metavar="RECIPE")
    parser.add_argument("--dry-run", action="store_true", help="check everything and print what would be applied")
    parser.add_argument("--pools", choices=job_templates.KINDS, default="process", help="what the workers start")
    parser.add_argument("--image", default="", help="docker, kubernetes: the image that holds prosemill")
    parser.add_argument("--gpus", type=int, default=1, help="runs at once on the gpu pool, one a card; default: 1")
    parser.add_argument("--store", default="", help="folder or URL; default: PROSEMILL_STORE, else data/store")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser.parse_args()


def main() -> None:
    try:
        run(_arguments())
    except ProsemillError as error:
        sys.stderr.write(f"prosemill: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
