"""Filters and gate slices that a recipe names: `[strip.filters.NAME]` and `[gate.slices.NAME]`, whose settings are a
class of their own. To define a class with a `name` is to register it; `plugins` says how its module is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticOmit, core_schema

from prosemill.config import plugins
from prosemill.config.section import Section


class Extension(Section):
    """Settings of something that does its work where a recipe has a table of its name, be it an empty one."""

    name: ClassVar[str] = ""
    registered: ClassVar[dict[str, type[Extension]]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not cls.name:
            return
        other = cls.registered.setdefault(cls.name, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"{cls.name!r} exists already, in {other.__module__}; name yours differently")
        cls.registered[cls.name] = cls


class FilterSettings(Extension):
    """Settings of a filter of strip: `prosemill.strip.filters.Filter` of the same name judges by them."""

    registered: ClassVar[dict[str, type[Extension]]] = {}


class SliceSettings(Extension):
    """Settings of a slice of the gate: `prosemill.gate.slices.Slice` of the same name decides by them."""

    registered: ClassVar[dict[str, type[Extension]]] = {}


class _Tables(BaseModel):
    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class ByName:
    """Annotates a dict from names to settings: each is validated as the class registered under its name."""

    base: type[Extension]

    def model(self) -> type[BaseModel]:
        """A model with a table for each name, as things are when a recipe is read or the form made."""
        plugins.load()
        fields: dict[str, Any] = {
            name: (settings, Field(default=None, json_schema_extra=_has_no_default))
            for name, settings in self.base.registered.items()
        }
        return create_model("Tables", __base__=_Tables, **fields)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._validated, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        model = self.model()
        if not model.model_fields:
            raise PydanticOmit  # nothing to show
        json_schema = handler.resolve_ref_schema(handler(model.__pydantic_core_schema__))
        return {key: value for key, value in json_schema.items() if key != "title"}  # the field has one

    def _validated(self, value: Any) -> Any:
        if not isinstance(value, Mapping) or not value:
            return value
        tables = self.model().model_validate(dict(value))
        return {name: getattr(tables, name) for name in value}


def _has_no_default(schema: JsonSchemaValue) -> None:
    schema.pop("default", None)
