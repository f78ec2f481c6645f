"""The `prosemill` command.

Exit codes: 0 complete, 1 failed, 2 wrong usage, 3 partial (a source could not be read to its end), 4 refused (the
recipe, a source, the base or the store is not as it has to be; no model was changed), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import corpus, operations, screen
from flows.cli import models as model_commands
from flows.cli.compat import WrongUsage
from flows.cli.options import JsonOption, RecipePath, StoreOption, VerboseOption, open_store
from flows.support import local_server
from prosemill.config import environment
from prosemill.config.recipe import check_sources, load_recipe
from prosemill.config.settings import Recipe
from prosemill.errors import EXIT_FAILED, EXIT_PARTIAL, EXIT_STOPPED, EXIT_USAGE, ProsemillError

if TYPE_CHECKING:
    from prosemill.models.bases import Base

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Keeps a language model writing like a body of text that grows.",
)

STOPPED = "stopped; run the same command again to go on from here"

Reference = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME (its champion), NAME/3, NAME@previous, or a finetune snapshot.")
]


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command and return its exit code; an error is one line on standard error."""
    try:
        status = app(arguments, prog_name="prosemill", standalone_mode=False)
    except ProsemillError as error:
        return _complain(error, error.exit_code)
    except WrongUsage as error:
        return _complain(f"{error.format_message()} (see prosemill --help)", EXIT_USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return _complain(STOPPED, EXIT_STOPPED)
    except Exception as error:  # a person gets a line; --verbose gives the traceback
        if "--verbose" in arguments:
            raise
        return _complain(f"{type(error).__name__}: {error} (run again with --verbose for the traceback)", EXIT_FAILED)
    if status == EXIT_STOPPED:  # Typer's answer to Ctrl-C
        return _complain(STOPPED, EXIT_STOPPED)
    return status if isinstance(status, int) else 0


def _complain(what: Exception | str, status: int) -> int:
    screen.errors.print(f"prosemill: {' '.join(str(what).split())}", markup=False)
    return status


@app.command()
def check(recipe: RecipePath, store: StoreOption = "", as_json: JsonOption = False) -> None:
    """Read a recipe and say what it would do, or in one line what is wrong with it."""
    loaded, base = _checked(recipe)
    url, _ = open_store(store)
    facts = {
        "recipe": loaded.name,
        "language": loaded.language,
        "sources": {source.name: source.kind for source in loaded.sources},
        "base": {"name": base.name, "context_tokens": base.context_tokens, "vocabulary": base.vocabulary_size},
        "store": url,
    }
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    for key, value in facts.items():
        text = ", ".join(f"{name} {entry}" for name, entry in value.items()) if isinstance(value, dict) else value
        screen.output.print(f"{key:>9}  {text}", markup=False)
    screen.output.print(f"\nRecipe OK. Next: prosemill retrain {recipe}", markup=False)


@app.command()
def retrain(
    recipe: RecipePath,
    as_of: Annotated[
        str, typer.Option(help="Date of the corpus, ISO 8601. A site is read once for each. Default: today (UTC).")
    ] = "",
    store: StoreOption = "",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Trust no cached result; rebuild what the store lacks.")
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Scrape, clean, train, evaluate, decide: the model takes over only if it is shown to be better."""
    loaded, _ = _checked(recipe)
    report = _retrain(loaded, as_of, store, refresh=refresh, quiet=as_json, verbose=verbose)
    _finish(report, as_json, [f'prosemill write {loaded.name} "…"', f"prosemill models {loaded.name}", "prosemill up"])


def _checked(path: Path) -> tuple[Recipe, Base]:
    """The recipe and its base, or the reason why they cannot work, before anything is started."""
    from prosemill.chunk import check_length
    from prosemill.models import bases

    recipe = load_recipe(path)
    check_sources(recipe)
    base = bases.resolve(recipe.finetune.base)
    check_length(base, recipe.chunk)
    return recipe, base


def _retrain(recipe: Recipe, as_of: str, store: str, *, refresh: bool, quiet: bool, verbose: bool) -> dict[str, Any]:
    url, opened = open_store(store, verbose)
    if refresh:
        environment.refresh_cache()
    opened.check_writable()
    environment.prefect_home()
    local_server.start_if_none_is_named()
    with screen.showing_progress(quiet):
        from flows.retrain import retrain as flow

        report: dict[str, Any] = flow(recipe, as_of=as_of, store=url)
    return report


def _finish(report: dict[str, Any], as_json: bool, next_steps: list[str]) -> None:
    if report["decision"] == "awaiting-approval":
        next_steps = [f"prosemill approve {report['recipe']} [--refuse]", *next_steps]
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        screen.show_report(report, next_steps)
    if report["partial"]:
        raise typer.Exit(EXIT_PARTIAL)


@app.command()
def demo(
    week: Annotated[int, typer.Option(min=1, max=5, help="Which week of the demo it is; each has more messages.")] = 1,
    port: Annotated[int, typer.Option(min=1024, max=65_535, help="Port of the demo site; part of its URLs.")] = 8423,
    store: StoreOption = "",
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Serve the demo site on loopback and run the whole of `retrain` on it."""
    from prosemill.demo import WEEKS, data_folder, render_site, serve

    recipe = load_recipe(data_folder() / "recipe.toml")
    with tempfile.TemporaryDirectory() as folder:
        render_site(Path(folder), until_year=WEEKS[week].until_year)
        with serve(Path(folder), port) as serving:
            if not as_json:
                screen.errors.print(f"The demo site as of week {week} is at {serving.url}")
            sources = [recipe.sources[0].model_copy(update={"urls": [f"{serving.url}/"]})]
            report = _retrain(
                recipe.model_copy(update={"sources": sources}), WEEKS[week].as_of, store,
                refresh=False, quiet=as_json, verbose=verbose,
            )  # fmt: skip
    steps = [f'prosemill write {recipe.name} "Fellow-citizens"', f"prosemill models {recipe.name}", "prosemill up"]
    if week < max(WEEKS):
        steps.insert(0, f"prosemill demo --week {week + 1}")
    _finish(report, as_json, steps)


@app.command()
def write(
    model: Reference,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="How the text begins.")] = "",
    temperature: Annotated[
        float | None, typer.Option(min=0, max=10, help="Lower is tamer; 0 always takes the likeliest token.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="Draw among the k likeliest; 0: all.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0.001, max=1, help="Draw among the likeliest that make up this probability.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(min=1, max=10, help="Makes what was said less likely; 1: no penalty.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, max=100_000, help="Longest text, in tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same text.")] = 0,
    samples: Annotated[int, typer.Option(min=1, max=64, help="How many texts.")] = 1,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let a model write: the champion of a name, any version of it, or a snapshot; as its recipe sets."""
    url, opened = open_store(store)
    from prosemill.config.settings import Write
    from prosemill.models.generation import generate
    from prosemill.registry.registry import Registry
    from prosemill.reporting.summary import write_settings_of

    snapshot = Registry.open(url).resolve(model)
    options = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "repetition_penalty": repetition_penalty,
        "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    chosen = {key: value for key, value in options.items() if value is not None}
    settings = Write.model_validate(write_settings_of(opened, model).model_dump() | chosen)
    texts = generate(opened.local(f"{snapshot}/model"), prompt, settings, seed=seed, num_samples=samples)
    if as_json:
        print(json.dumps({"model": model, "snapshot": snapshot, "seed": seed, "texts": texts}, ensure_ascii=False))
        return
    print("\n\n---\n\n".join(texts))


@app.command()
def models(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Only this model.")] = "",
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """List models and their versions, with scores and decisions."""
    url, _ = open_store(store)
    from prosemill.registry.registry import Registry

    registry = Registry.open(url)
    rows = [row for model in ([name] if name else registry.list_models()) for row in registry.describe(model)]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    if rows:
        screen.show_models(rows)
    else:
        screen.output.print("No model yet. Next: prosemill retrain RECIPE")


@app.command(name="roll-back")
def roll_back(name: Annotated[str, typer.Argument(metavar="NAME", help="The model.")], store: StoreOption = "") -> None:
    """Make the previous champion the champion again."""
    url, _ = open_store(store)
    from prosemill.registry.registry import Registry

    version = Registry.open(url).roll_back(name)
    screen.output.print(f"{name}/{version.version} ({version.snapshot}) is the champion again.")


@app.command()
def trace(
    what: Annotated[str, typer.Argument(metavar="THING", help="A sentence, URL, document, chunk, snapshot or model.")],
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Trace the lineage of a sentence, page, document, snapshot or model: its sources and what was made from it."""
    url, opened = open_store(store)
    from prosemill.lineage.tracing import Tracer
    from prosemill.registry.registry import Registry

    named = Registry.open(url).resolve_or_none(what)
    nodes = [node.as_dict() for node in Tracer(opened).trace(named or what)]
    if as_json:
        print(json.dumps(nodes, ensure_ascii=False))
        return
    for node in nodes:
        screen.show_trace(node)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="A snapshot or model.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="A later one of the same stage.")],
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say what changed between two snapshots, or two models."""
    url, opened = open_store(store)
    from prosemill.lineage import diff as compare
    from prosemill.registry.registry import Registry

    registry = Registry.open(url)
    changes = compare.diff(opened, *(registry.resolve_or_none(reference) or reference for reference in (before, after)))
    if as_json:
        print(json.dumps(changes, ensure_ascii=False))
        return
    screen.show_changes(changes)


@app.command()
def up(
    recipes: Annotated[list[Path] | None, typer.Argument(metavar="RECIPE", help="Deploy these as well.")] = None,
    port: Annotated[int, typer.Option(min=1024, max=65_535, help="Port of the Prefect server.")] = 4200,
    store: StoreOption = "",
) -> None:
    """Start a local Prefect server with pools, workers and deployments; Ctrl-C stops them all."""
    for recipe in recipes or []:
        load_recipe(recipe)
    url, opened = open_store(store)
    opened.check_writable()
    recipe_paths = [str(recipe) for recipe in recipes or []]
    # A program of its own: flows/ must not import deployments/, which stands above it.
    program = [sys.executable, "-m", "deployments.up", "--store", url, "--port", str(port), *recipe_paths]
    os.execve(sys.executable, program, environment.of_child())


operations.add_to(app)
corpus.add_to(app)
model_commands.add_to(app)
