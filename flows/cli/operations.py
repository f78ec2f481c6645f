"""The operator's commands: deploy, approve, explain, check health, backup, restore.

Each is registered on `flows.cli.app` by `add_to`.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import screen
from flows.cli.options import JsonOption, OverwriteOption, StoreOption, open_store
from prosemill.config import environment
from prosemill.errors import EXIT_PARTIAL

if TYPE_CHECKING:
    from prosemill.gate.approval import ApprovalState
    from prosemill.operations.databases import Database


def add_to(app: typer.Typer) -> None:
    """Put the commands of this module on the `prosemill` command."""
    for command in COMMANDS:
        app.command()(command)


def deploy(
    recipes: Annotated[list[Path] | None, typer.Argument(metavar="RECIPE", help="Deploy these as well.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print what would be applied.")] = False,
    pools: Annotated[str, typer.Option(metavar="KIND", help="process, docker or kubernetes.")] = "process",
    image: Annotated[str, typer.Option(help="docker, kubernetes: the image that holds prosemill.")] = "",
    gpus: Annotated[int, typer.Option(min=1, max=1024, help="Runs at once on the gpu pool: one a card.")] = 1,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Apply work pools, deployments and automations to the Prefect server; the second time changes nothing."""
    if pools not in ("process", "docker", "kubernetes"):
        raise typer.BadParameter(f"--pools {pools}: process, docker or kubernetes")
    url, _ = open_store(store)
    arguments = ["--store", url, "--pools", pools, "--image", image, "--gpus", str(gpus), *map(str, recipes or [])]
    arguments += [name for name, is_on in (("--dry-run", dry_run), ("--json", as_json)) if is_on]
    # A program of its own: flows/ must not import deployments/, which stands above it.
    os.execve(sys.executable, [sys.executable, "-m", "deployments.deploy", *arguments], environment.of_child())


def approve(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model.")],
    refuse: Annotated[bool, typer.Option("--refuse", help="Do not let the challenger take over.")] = False,
    comment: Annotated[str, typer.Option(help="Why; recorded with the answer.")] = "",
    who: Annotated[str, typer.Option(help="Who decides. Default: the user of this shell.")] = "",
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let the newest challenger of a model take over, or refuse it; a run that waits for the answer goes on."""
    url, opened = open_store(store)
    from prosemill.gate import approval
    from prosemill.registry.registry import Registry

    registry, who = Registry.open(url), who or getpass.getuser()
    question = approval.open_question(opened, registry, name)
    answered = approval.answer(opened, registry, question, approve=not refuse, who=who, comment=comment)
    resumed = _tell_server(answered, approve=not refuse)
    if as_json:
        screen.output.print_json(json.dumps({**answered.as_dict(), "resumed": resumed}, ensure_ascii=False))
        return
    use = "is the champion now" if answered.state == approval.APPROVED else "stays what it is, a challenger"
    screen.output.print(f"{answered.sentence}. {answered.model} {use}.", markup=False)
    for run in resumed:
        screen.output.print(f"The run {run} goes on.", markup=False)


def _tell_server(answered: ApprovalState, *, approve: bool) -> list[str]:
    """The names of the runs that waited for the answer; none where no server is in use."""
    if not environment.api_url():
        return []
    from flows import approval as approval_flow

    try:
        resumed = approval_flow.resume_waiting(
            answered.name, approve=approve, who=answered.who, comment=answered.comment
        )
        approval_flow.send_event(answered)
    except Exception as error:  # noqa: BLE001 - the answer stands; a run that waits learns of it when it is resumed
        screen.errors.print(
            f"The answer is recorded, but the Prefect server could not be reached: {error}", markup=False
        )
        return []
    return resumed


def explain(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help='A flow run id, the name of a run, NAME, or "NAME DATE" of a corpus.')
    ],
    date: Annotated[str, typer.Argument(metavar="DATE", help="With NAME: the date of its corpus.")] = "",
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say for each stage of a run whether it was found or made anew, and then which input had changed."""
    _, opened = open_store(store)
    from prosemill.lineage.explain import explain as ask

    explanation = ask(opened, f"{run} {date}".strip())
    if as_json:
        screen.output.print_json(json.dumps(explanation.as_dict(), ensure_ascii=False))
        return
    screen.show_explanation(explanation)


StoreOnlyOption = Annotated[bool, typer.Option("--store-only", help="The store alone, no database.")]


def backup(
    to: Annotated[
        str, typer.Argument(metavar="FOLDER|URL", help="Where backups are kept; only what is new is copied.")
    ],
    verify: Annotated[bool, typer.Option("--verify", help="Read all of the newest backup again; make none.")] = False,
    store_only: StoreOnlyOption = False,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Save everything: store, models, Prefect's database. Runs may go on."""
    url, opened = open_store(store)
    from prosemill.operations.backup import Backup, facts
    from prosemill.registry.registry import Registry

    place = Backup(environment.store_url(to))
    if verify:
        point = place.point()
        point_facts = {**facts(point), "verified": place.verify(point)}
    else:
        databases, artifacts = ([], "") if store_only else _beside(url)
        registry = None if store_only else Registry.open(url)
        point_facts = facts(place.save(opened, registry, databases, artifacts))
    _print_facts(point_facts, as_json)
    if point_facts["missing"]:
        screen.errors.print("Records name snapshots that the store does not have; see `missing`.")
        raise typer.Exit(EXIT_PARTIAL)


def restore(
    source: Annotated[str, typer.Argument(metavar="FOLDER|URL", help="Where backups are kept.")],
    point: Annotated[str, typer.Option(help="Which backup; default: the newest.")] = "",
    overwrite: OverwriteOption = False,
    store_only: StoreOnlyOption = False,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Bring a backup back: store, models, Prefect's database. Stop the servers of both databases first."""
    url, opened = open_store(store)
    from prosemill.operations.backup import Backup, facts

    place = Backup(environment.store_url(source))
    backup_point = place.point(point)
    databases, artifacts = ([], "") if store_only else _beside(url)
    place.restore(backup_point, opened, databases, artifacts, overwrite=overwrite)
    _print_facts(facts(backup_point), as_json)


def _print_facts(point_facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        screen.output.print_json(json.dumps(point_facts, ensure_ascii=False))
        return
    for key, value in point_facts.items():
        text = (", ".join(value) or "none") if isinstance(value, list) else value
        screen.output.print(f"{key.replace('_', ' '):>13}  {text}", markup=False)


def _beside(store: str) -> tuple[list[Database], str]:
    """The databases and the place of MLflow's artifacts that belong to a store."""
    from prosemill.operations.databases import Database

    return [Database(name, url) for name, url in environment.databases(store).items()], environment.artifacts()


COMMANDS: list[Callable[..., Any]] = [deploy, approve, explain, backup, restore]
