"""Read a recipe, or say in one line what is wrong with it: file, key, value, what is allowed, the nearest name."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from prosemill.config.base_names import is_baseline
from prosemill.config.extensions import ByName
from prosemill.config.settings import Deploy, Evaluate, Finetune, Recipe, RecipeFile, Source
from prosemill.config.sources import DEFAULT_KIND, kinds
from prosemill.errors import RecipeError

_ORDER = ("extra_forbidden", "missing")  # a misspelt key also shows up as a missing one: name the misspelling first


def load_recipe(path: Path) -> Recipe:
    """The recipe in the TOML file `path`, relative paths made absolute; RecipeError in one line otherwise.

    Its table [deploy] is checked, but left out: when and where a recipe runs changes nothing of what it makes.
    """
    return parse_recipe(_read(path), where=str(path), folder=path.resolve().parent)


def load_deploy(path: Path) -> Deploy:
    """The table [deploy] of the recipe in `path`; what it does not say is as by default."""
    return _validated(_read(path), str(path)).deploy


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, _toml_files(path.parent), n=1)
        raise RecipeError(f"{path}: no such file{_did_you_mean(near)}") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: is a folder; name the recipe's .toml file") from None
    except PermissionError:
        raise RecipeError(f"{path}: may not be read; check its permissions") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: is not TOML: {error}") from None


def parse_recipe(fields: Mapping[str, Any], *, where: str, folder: Path) -> Recipe:
    """Validate `fields`; relative paths are taken from `folder`."""
    _validated(fields, where)
    recipe = Recipe.model_validate({key: value for key, value in fields.items() if key != "deploy"})
    _check_patterns(recipe, where)
    return recipe.model_copy(
        update={
            "sources": [source.absolute(folder) for source in recipe.sources],
            "finetune": _absolute_replay(_absolute_base(recipe.finetune, folder), folder),
            "evaluate": _absolute_general(recipe.evaluate, folder),
        }
    )


def _validated(fields: Mapping[str, Any], where: str) -> RecipeFile:
    try:
        return RecipeFile.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_first_problem(error, fields)}") from None


def check_sources(recipe: Recipe) -> None:
    """Refuse a recipe whose local files are not there, before anything is started."""
    general = recipe.evaluate.general_path
    if general and not Path(general).exists():
        raise RecipeError(f"evaluate.general_path = {general!r}: does not exist; correct it in the recipe")
    for source in recipe.sources:
        source.check()


def _first_problem(error: ValidationError, fields: Mapping[str, Any]) -> str:
    problems = sorted(
        error.errors(), key=lambda problem: _ORDER.index(problem["type"]) if problem["type"] in _ORDER else 9
    )
    rest = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return _sentence(problems[0], fields) + rest


def _sentence(problem: ErrorDetails, fields: Mapping[str, Any]) -> str:
    place, model = _place(problem["loc"]), _model_at(problem["loc"][:-1], fields)
    if problem["type"] == "extra_forbidden":
        known = [
            name for name, field in model.model_fields.items() if field.exclude_if is None
        ]  # what is only let through
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
        return f"unknown key {place}{_did_you_mean(near) or '; known here: ' + (', '.join(known) or 'nothing')}"
    if problem["type"] == "missing":
        return f"{place} is missing{_description(problem['loc'], model)}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] == "value_error":
        return f"{place}: {message}" if place else message
    value = "" if isinstance(problem["input"], dict | list) else f" = {problem['input']!r}"
    return f"{place}{value}: {_plain(message)}{_description(problem['loc'], model)}"


def _plain(message: str) -> str:
    return re.sub(r"^should match pattern '.*'$", "is not of the allowed form", message)


def _description(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """What the field means, as the settings describe it."""
    names = [part for part in loc if isinstance(part, str)]
    field = model.model_fields.get(names[-1]) if names else None
    return f" ({field.description.rstrip('.')})" if field and field.description else ""


def _model_at(loc: tuple[int | str, ...], fields: Mapping[str, Any]) -> type[BaseModel]:
    """The settings class that a place of the recipe is checked by; of a source, the class of its kind."""
    model: type[BaseModel] = RecipeFile
    for part in loc:
        if isinstance(part, int):
            continue
        if part == "sources":
            model = _source_at(loc, fields)
            continue
        annotation = _class_of(model.model_fields[part])
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return model
        model = annotation
    return model


def _class_of(field: FieldInfo) -> Any:
    tables = [marker.model() for marker in field.metadata if isinstance(marker, ByName)]
    return tables[0] if tables else field.annotation


def _is_hidden(field: FieldInfo) -> bool:
    """Whether a key is accepted for older recipes only, and listed nowhere."""
    return field.exclude_if is not None and not any(isinstance(marker, ByName) for marker in field.metadata)


def _source_at(loc: tuple[int | str, ...], fields: Mapping[str, Any]) -> type[BaseModel]:
    source = fields["sources"][loc[1]] if len(loc) > 1 else None
    kind = source.get("kind", DEFAULT_KIND) if isinstance(source, Mapping) else DEFAULT_KIND
    return kinds().get(kind, Source) if isinstance(kind, str) else Source


def _place(loc: tuple[int | str, ...]) -> str:
    place = ""
    for part in loc:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    return place


def _check_patterns(recipe: Recipe, where: str) -> None:
    for number, source in enumerate(recipe.sources):
        for key in ("include", "exclude"):
            for pattern in getattr(source, key):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise RecipeError(
                        f"{where}: sources[{number}].{key} = {pattern!r}: not a regular expression ({error})"
                    ) from None


def _absolute_base(finetune: Finetune, folder: Path) -> Finetune:
    """A base that looks like a path, or is a folder beside the recipe, becomes absolute, as word vectors do."""
    here = folder / Path(finetune.base).expanduser()
    if is_baseline(finetune.base):
        kind, colon, vectors = finetune.base.partition(":")
        path = str((folder / Path(vectors).expanduser()).resolve()) if vectors else ""
        return finetune.model_copy(update={"base": f"{kind}{colon if path else ''}{path}"})
    is_path = finetune.base.startswith((".", "/", "~")) or (finetune.base != "demo" and here.is_dir())
    return finetune.model_copy(update={"base": str(here.resolve())}) if is_path else finetune


def _absolute_replay(finetune: Finetune, folder: Path) -> Finetune:
    """Text to replay that lies beside the recipe, or looks like a path, becomes absolute."""
    here = folder / Path(finetune.replay).expanduser()
    is_path = here.exists() or finetune.replay.startswith((".", "/", "~"))
    return finetune.model_copy(update={"replay": str(here.resolve())}) if is_path else finetune


def _absolute_general(evaluate: Evaluate, folder: Path) -> Evaluate:
    if not evaluate.general_path:
        return evaluate
    here = folder / Path(evaluate.general_path).expanduser()
    return evaluate.model_copy(update={"general_path": str(here.resolve())})


def _toml_files(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.toml")] if folder.is_dir() else []


def _did_you_mean(near: list[str]) -> str:
    return f"; did you mean {near[0]!r}?" if near else ""
