"""Is an OpenLineage event valid? JSON Schema (draft 2020-12) says so, of the event and of every facet by its own URL.

No package ships the JSON files of the specification, and they are other people's text. The openlineage client's classes
are generated from them by its maintainers, and each names the file and definition that it stands for: from these,
`from_classes` builds the same files again, with which properties there are, which must be there, of which type and
format. `published` fetches the real ones, where there is an internet. Our own facet's is the file that prosemill ships.
"""

from __future__ import annotations

import enum
import functools
import json
import pkgutil
import types
import typing
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import attr
from jsonschema import Draft202012Validator, FormatChecker
from openlineage.client import generated
from referencing import Registry, Resource
from referencing.exceptions import NoSuchResource, Unresolvable

from prosemill.lineage import openlineage_events

Document = dict[str, Any]

_PLAIN: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
# What the specification asks of strings; the classes check it in code, if at all.
_FORMATS = {
    "eventTime": "date-time", "nominalStartTime": "date-time", "nominalEndTime": "date-time", "runId": "uuid",
    "producer": "uri", "schemaURL": "uri", "_producer": "uri", "_schemaURL": "uri", "url": "uri",
}  # fmt: skip
_ALWAYS = ("producer", "schemaURL", "_producer", "_schemaURL")  # required, though the classes fill them in
_formats = FormatChecker(formats=())


@_formats.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    return datetime.fromisoformat(str(value)).tzinfo is not None


@_formats.checks("uuid", raises=ValueError)
def _is_uuid(value: object) -> bool:
    return str(uuid.UUID(str(value))) == value


@_formats.checks("uri")
def _is_uri(value: object) -> bool:
    parts = urlsplit(str(value))
    return bool(parts.scheme and (parts.netloc or parts.path)) and " " not in str(value)


def from_classes(url: str) -> Document:
    """The file of the specification at `url`, as the client's classes have it."""
    return _documents()[url]


@functools.cache
def published(url: str) -> Document:
    """The file itself."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        schema: Document = json.loads(answer.read())
    return schema


def problems(event: Mapping[str, Any], files: Callable[[str], Document] = from_classes) -> list[str]:
    """Everything that is wrong with an event, by place; [] for a valid one."""

    def retrieve(url: str) -> Resource[Any]:
        own = json.loads(openlineage_events.FACET_SCHEMA.read_text(encoding="utf-8"))
        try:
            return Resource.from_contents(own if url == own["$id"] else files(url))
        except (KeyError, OSError) as error:
            raise NoSuchResource(url) from error

    registry: Registry[Any] = Registry(retrieve=retrieve)  # type: ignore[call-arg]
    errors = list(_errors("", event, event.get("schemaURL", ""), "RunEvent", registry))
    for place, facet, kind in _facets(event):
        errors += _errors(place, facet, facet.get("_schemaURL", ""), kind, registry)
    return errors


def _errors(place: str, value: Any, url: str, kind: str, registry: Registry[Any]) -> Iterator[str]:
    """`kind` is what the definition's name has to end with: a facet of a run is not a facet of a job."""
    if not url.endswith(kind):
        yield f"{place}: {url or 'nothing'} is not a {kind}"
        return
    validator = Draft202012Validator({"$ref": url}, registry=registry, format_checker=_formats)
    try:
        for error in validator.iter_errors(value):
            yield f"{place}/{'/'.join(str(part) for part in error.absolute_path)}: {error.message}"
    except Unresolvable:
        yield f"{place}: nothing is defined by {url}"


def _facets(event: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every facet with its place and its kind."""
    places: list[tuple[str, Mapping[str, Any], str, str]] = [
        ("run", event["run"], "facets", "RunFacet"),
        ("job", event["job"], "facets", "JobFacet"),
    ]
    for side, own, kind in (
        ("inputs", "inputFacets", "InputDatasetFacet"),
        ("outputs", "outputFacets", "OutputDatasetFacet"),
    ):
        for number, dataset in enumerate(event[side]):
            places.append((f"{side}/{number}", dataset, "facets", "DatasetFacet"))
            places.append((f"{side}/{number}", dataset, own, kind))
    for place, holder, key, kind in places:
        for name, facet in holder.get(key, {}).items():
            yield f"{place}/{key}/{name}", facet, kind


# --- from the client's classes ---------------------------------------------------------------------------------------


@functools.cache
def _documents() -> dict[str, Document]:
    documents: dict[str, Document] = {}
    for module in pkgutil.iter_modules(generated.__path__):
        for cls in vars(import_module(f"{generated.__name__}.{module.name}")).values():
            if isinstance(cls, type) and attr.has(cls) and hasattr(cls, "_get_schema"):
                file, _, place = cls._get_schema().partition("#/$defs/")
                document = documents.setdefault(file, {"$schema": Draft202012Validator.META_SCHEMA["$id"], "$defs": {}})
                document["$defs"].setdefault(place, _schema_of(cls, f"{file}/{place}"))
    return documents


def _schema_of(cls: type, id: str) -> Document:
    definitions: dict[str, Any] = {}
    return {"$id": id, **_refer(cls, definitions), "$defs": definitions}


def _refer(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    name = f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"
    if name not in definitions:
        definitions[name] = {}  # a field may be made of fields
        types_of = typing.get_type_hints(cls)
        fields = attr.fields(cls)
        definitions[name] = {
            "type": "object",
            "properties": {field.name: _property(field.name, types_of[field.name], definitions) for field in fields},
            "required": [field.name for field in fields if field.default is attr.NOTHING or field.name in _ALWAYS],
        }
    return {"$ref": f"#/$defs/{name}"}


def _property(name: str, kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _type(kind, definitions)
    return {**schema, "format": _FORMATS[name]} if name in _FORMATS else schema


def _type(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        rest = [argument for argument in typing.get_args(kind) if argument is not type(None)]
        return (
            _type(rest[0], definitions)
            if len(rest) == 1
            else {"anyOf": [_type(argument, definitions) for argument in rest]}
        )
    if typing.get_origin(kind) is list:
        return {"type": "array", "items": _type(typing.get_args(kind)[0], definitions)}
    if typing.get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _type(typing.get_args(kind)[1], definitions)}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    return _refer(kind, definitions) if attr.has(kind) else {}
