"""Source kinds: where text comes from. One settings class each; `prosemill/scrape/readers/KIND.py` reads it.

A kind of your own subclasses `Source` with a `kind` of its own; `plugins` says how its module is found.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializeAsAny,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from prosemill.config import plugins
from prosemill.config.section import Section
from prosemill.errors import RecipeError

DEFAULT_KIND = "site"
_KINDS: dict[str, type[Source]] = {}


class Source(Section):
    """Where text comes from, with its own rate and licence: what every kind has."""

    kind: str = Field(description="What is read.")
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="Short name: lower-case letters, digits and hyphens."
    )
    include: list[str] = Field(
        default=[], description="Regular expressions; a URL (or relative file name) must match one of them."
    )
    exclude: list[str] = Field(default=[], description="Regular expressions; a URL that matches one is skipped.")
    licence: str = Field(default="", description="Under which licence or permission this text is used.")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Register the class under its `kind`; one without stands for no kind."""
        super().__pydantic_init_subclass__(**kwargs)
        kind = cls.model_fields["kind"].default
        if not isinstance(kind, str):
            return
        other = _KINDS.setdefault(kind, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"source kind {kind!r} exists already, in {other.__module__}; name yours differently")
        _KINDS[kind] = cls

    def identity(self) -> dict[str, Any]:
        """What enters the id of a snapshot, as JSON."""
        return self.model_dump(mode="json")

    def absolute(self, folder: Path) -> Self:
        """The same with relative paths taken from the recipe's `folder`."""
        return self

    def check(self) -> None:
        """Raise RecipeError if something local that it names is not there."""


def _needs(*names: str) -> Callable[[JsonSchemaValue], None]:
    """For the form: these must be filled, and keys of older recipes are not an error."""

    def change(schema: JsonSchemaValue) -> None:
        schema.pop("additionalProperties", None)
        schema["required"] = [*schema.get("required", []), *names]
        for name in names:
            field = schema["properties"][name]
            field["minItems" if field["type"] == "array" else "minLength"] = 1

    return change


def _needs_urls_or_path(schema: JsonSchemaValue) -> None:
    schema.pop("additionalProperties", None)
    schema["if"] = {"properties": {"path": {"minLength": 1}}, "required": ["path"]}
    schema["else"] = {"properties": {"urls": {"minItems": 1}}, "required": ["urls"]}


class _FormerSource(Source):
    """Once every kind had all of these: recipes may have them still, and ids are made of them."""

    urls: SkipJsonSchema[list[str]] = Field(default=[], exclude_if=operator.not_)
    path: SkipJsonSchema[str] = Field(default="", exclude_if=operator.not_)
    text_column: SkipJsonSchema[str] = Field(default="text", exclude_if=lambda value: value == "text")
    dataset_config: SkipJsonSchema[str] = Field(default="", exclude_if=operator.not_)
    dataset_split: SkipJsonSchema[str] = Field(default="train", exclude_if=lambda value: value == "train")

    def identity(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}

    def absolute(self, folder: Path) -> Self:
        return self.model_copy(update={"path": str(_at(folder, self.path))}) if self.path else self

    def _require(self, has_address: bool, what: str) -> Self:
        if not has_address:
            raise ValueError(f'kind "{self.kind}" needs {what}')
        return self

    def _check_path(self, kind: Literal["", "file", "folder"] = "") -> None:
        path = Path(self.path)
        if self.path and not path.exists():
            raise RecipeError(f"source {self.name!r}: path {path} does not exist; correct it in the recipe")
        if kind == "folder" and not path.is_dir():
            raise RecipeError(f"source {self.name!r}: path {path} is a file; kind folder needs a folder")
        if kind == "file" and not path.is_file():
            raise RecipeError(f"source {self.name!r}: path {path} is a folder; kind {self.kind} needs a file")


class SiteSource(_FormerSource):
    """A site: follow links from the start URLs, within their hosts."""

    model_config = ConfigDict(title="Site", json_schema_extra=_needs("urls"))
    kind: Literal["site"] = Field(default="site", description="Follow links from the start URLs.")
    urls: list[str] = Field(default=[], title="URLs", description="The start URLs.")

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        return self._require(bool(self.urls), "urls, the start URLs")


class WarcSource(_FormerSource):
    """A web archive that somebody else made."""

    model_config = ConfigDict(title="Web archive", json_schema_extra=_needs("path"))
    kind: Literal["warc"] = Field(default="warc", description="Read a web archive.")
    path: str = Field(default="", description="The archive, a .warc file. Relative to the recipe.")

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        return self._require(bool(self.path), "path")

    def check(self) -> None:
        self._check_path("file")


class UrlsSource(_FormerSource):
    """A list of URLs: just these pages."""

    model_config = ConfigDict(title="List of URLs", json_schema_extra=_needs_urls_or_path)
    kind: Literal["urls"] = Field(default="urls", description="Read just these URLs.")
    urls: list[str] = Field(default=[], title="URLs", description="Every URL to read.")
    path: str = Field(default="", description="A text file with one URL a line. Relative to the recipe.")

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        return self._require(bool(self.urls or self.path), "urls, or path to a file with one URL a line")

    def check(self) -> None:
        self._check_path()


class FolderSource(_FormerSource):
    """A folder of files on disk."""

    model_config = ConfigDict(title="Folder", json_schema_extra=_needs("path"))
    kind: Literal["folder"] = Field(default="folder", description="Read files on disk.")
    path: str = Field(default="", description="The folder. Relative to the recipe.")
    text_column: str = Field(default="text", description=".jsonl files: the column that holds the text.")

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        return self._require(bool(self.path), "path")

    def check(self) -> None:
        self._check_path("folder")


class DatasetSource(_FormerSource):
    """A data set of the Hugging Face hub, or tables on disk."""

    model_config = ConfigDict(title="Data set", json_schema_extra=_needs("path"))
    kind: Literal["dataset"] = Field(default="dataset", description="Read a data set.")
    path: str = Field(
        default="",
        description="A hub name, or a folder or file of parquet, json, csv or txt. Relative to the recipe.",
    )
    text_column: str = Field(default="text", description="The column that holds the text.")
    dataset_config: str = Field(default="", description="The configuration, where the data set has several.")
    dataset_split: str = Field(default="train", description="Which split of it to read.")

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        return self._require(bool(self.path), "path")

    def absolute(self, folder: Path) -> Self:
        """A path only if something lies there; else it is a hub name."""
        return super().absolute(folder) if _at(folder, self.path).exists() else self


def _at(folder: Path, path: str) -> Path:
    return (folder / Path(path).expanduser()).resolve()


# --- one of them -----------------------------------------------------------------------------------------------------


def kinds() -> dict[str, type[Source]]:
    """Every kind there is, those of plugins last."""
    plugins.load()
    return dict(_KINDS)


def _of_its_kind(value: Any) -> Any:
    """Fields of a source as the class of their kind. The places of errors lead to the fields, without the kind."""
    if not isinstance(value, Mapping):
        return value
    known, kind = kinds(), value.get("kind", DEFAULT_KIND)
    if isinstance(kind, str) and kind in known:
        return known[kind].model_validate(value)
    *most, last = map(repr, known)
    wrong: InitErrorDetails = {
        "type": "literal_error",
        "loc": ("kind",),
        "input": kind,
        "ctx": {"expected": f"{', '.join(most)} or {last}"},
    }
    raise ValidationError.from_exception_data("Source", [wrong])


class _ByKind:
    """The union of all kinds by `kind`, as it is when a recipe is read or the form made: a plugin's kind is in it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_of_its_kind, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """`anyOf` shows each kind with its own fields; if and else check by the kind that is chosen.

        Were the alternatives strict, a wrong value would be said to be "not valid under any of the given schemas";
        this way the form names the field.
        """
        chosen: JsonSchemaValue = {}
        alternatives = []
        for kind, model in reversed(kinds().items()):
            strict = handler(model.__pydantic_core_schema__)
            alternatives.append(_loose(handler.resolve_ref_schema(strict)))
            is_it: JsonSchemaValue = {"properties": {"kind": {"const": kind}}}
            if kind != DEFAULT_KIND:
                is_it["required"] = ["kind"]
            chosen = {"if": is_it, "then": strict} | ({"else": chosen} if chosen else {})
        return {"anyOf": alternatives[::-1], **chosen}


def _loose(schema: JsonSchemaValue) -> JsonSchemaValue:
    """What a form shows of a model, and no more than the types of its values."""
    kept = {name: schema[name] for name in ("title", "description", "type") if name in schema}
    bounds = ("pattern", "minLength", "minItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    fields = copy.deepcopy(schema["properties"])
    for field in fields.values():
        for bound in bounds:
            field.pop(bound, None)
    return kept | {"properties": fields}


AnySource = Annotated[SerializeAsAny[Source], _ByKind()]
