"""The commands about a model: why a model was taken or refused, its card, its export, whether it can be made again.

Each is registered on `flows.cli.app` by `add_to`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli import screen
from flows.cli.options import JsonOption, StoreOption, open_store
from prosemill.config import environment
from prosemill.errors import EXIT_FAILED

Reference = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME (its champion), NAME/3, NAME@previous, or a finetune snapshot.")
]


def add_to(app: typer.Typer) -> None:
    """Put the commands of this module on the `prosemill` command."""
    for command in COMMANDS:
        app.command()(command)
    app.command("verdict", hidden=True)(decision)  # the old name, for one release


def decision(model: Reference, store: StoreOption = "", as_json: JsonOption = False) -> None:
    """Say why a model was promoted or rejected: every slice with its numbers."""
    from prosemill.storage.decision_record import read_decision, with_old_key

    opened, version = _version(model, store)
    fields, title = read_decision(opened, version.gate), f"{version.name}/{version.version}"
    if as_json:
        print(json.dumps({"model": title, **with_old_key(fields)}, ensure_ascii=False))
        return
    screen.output.print(f"{title}: {fields['decision']}", markup=False)
    screen.output.print(fields["reason"], markup=False)
    for row in fields.get("slices", []):
        screen.output.print(f"  {row['slice']:>12}  {row['answer']:<18} {row['why']}", markup=False)


def card(model: Reference, store: StoreOption = "") -> None:
    """Print the model card: data, licences, scores with intervals, limits, energy."""
    from prosemill.registry.export import card_of

    opened, version = _version(model, store)
    print(card_of(opened, version))


def export(
    model: Reference,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    push_to_hub: Annotated[
        str, typer.Option(metavar="NAME", help="Also upload it to the Hugging Face hub (private); needs HF_TOKEN.")
    ] = "",
    store: StoreOption = "",
) -> None:
    """Copy a model into a plain Hugging Face directory, with its card."""
    from prosemill.registry import export as registry_export

    opened, version = _version(model, store)
    files = registry_export.export(opened, version, folder)
    screen.output.print(f"{version.name}/{version.version} is in {folder}: {', '.join(files)}", markup=False)
    if push_to_hub:
        url = registry_export.push(folder, push_to_hub, environment.hub_token())
        screen.output.print(f"and at {url}", markup=False)


def reproduce(model: Reference, store: StoreOption = "", as_json: JsonOption = False) -> None:
    """Train a model again from what is recorded and compare the weights; exit code 1 when they differ."""
    url, opened = open_store(store)
    from prosemill.registry.registry import Registry
    from prosemill.registry.reproduce import reproduce as train_again

    reproduction = train_again(opened, Registry.open(url).resolve(model))
    if as_json:
        facts = {
            "snapshot": reproduction.snapshot,
            "same": reproduction.is_same,
            "recorded": reproduction.recorded_sha256,
            "found": reproduction.new_sha256,
        }
        print(json.dumps({**facts, "differences": reproduction.differences}))
    else:
        screen.output.print(
            f"recorded  {reproduction.recorded_sha256}\nfound     {reproduction.new_sha256}", markup=False
        )
        for line in reproduction.differences:
            screen.output.print(f"  differs: {line}", markup=False)
        screen.output.print("The same weights." if reproduction.is_same else "Weights differ.", markup=False)
    if not reproduction.is_same:
        raise typer.Exit(EXIT_FAILED)


def _version(reference: str, store: str) -> tuple[Any, Any]:
    """The opened store and the model version that is meant."""
    url, opened = open_store(store)
    from prosemill.registry.export import version_of
    from prosemill.registry.registry import Registry

    return opened, version_of(Registry.open(url), reference)


COMMANDS: list[Callable[..., Any]] = [decision, card, export, reproduce]
