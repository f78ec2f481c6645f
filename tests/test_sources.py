"""Source kinds: ids of snapshots are what they always were, and the form shows each kind with its own fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import build_error_obj, validate

from flows.retrain import retrain
from prosemill.config.recipe import parse_recipe
from prosemill.config.settings import Recipe, Source
from prosemill.config.sources import FolderSource, SiteSource, kinds
from prosemill.errors import RecipeError
from prosemill.scrape.readers import reader_of
from prosemill.scrape.stage import snapshot_of

SITE = {"name": "s", "urls": ["https://example.org/"]}


def recipe_of(fields: dict[str, Any], folder: Path) -> Recipe:
    return parse_recipe({"name": "x", "sources": [fields]}, where="x.toml", folder=folder)


# As computed before each kind had a class of its own: a store's snapshots keep their names.
@pytest.mark.parametrize(
    ("fields", "id"),
    [
        (SITE, "scrape-0f3060ab1184674b"),
        (
            SITE
            | {"kind": "site", "path": "list.txt", "include": ["a"], "exclude": ["b"], "licence": "CC0"}
            | {"text_column": "story", "dataset_split": "x"},
            "scrape-5e0688c21ab38309",
        ),
        ({"name": "u", "kind": "urls", "urls": ["https://example.org/"]}, "scrape-462d15ad8f7aa15d"),
        ({"name": "u", "kind": "urls", "path": "list.txt"}, "scrape-baaf0612f88eaacd"),
        ({"name": "f", "kind": "folder", "path": "texts"}, "scrape-183a12e63eda29a6"),
        (
            {"name": "f", "kind": "folder", "path": "texts", "text_column": "story", "dataset_config": "z"},
            "scrape-c29094caa19fdaf9",
        ),
        ({"name": "w", "kind": "warc", "path": "a.warc"}, "scrape-a0b8b081dbab70de"),
        (
            {"name": "d", "kind": "dataset", "path": "t.csv", "text_column": "story", "licence": "MIT"}
            | {"dataset_config": "en", "dataset_split": "test"},
            "scrape-b0e66ceb65eb2613",
        ),
        ({"name": "d", "kind": "dataset", "path": "org/name"}, "scrape-5cdef038c23959c6"),
    ],
)
def test_ids_of_snapshots_stay(fields: dict[str, Any], id: str, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("hello")
    (tmp_path / "a.warc").write_bytes(b"WARC/1.0\r\n")
    (tmp_path / "list.txt").write_text("https://example.org/a\n")
    (tmp_path / "t.csv").write_text("text\nhi\n")
    recipe = recipe_of(fields, tmp_path)
    assert snapshot_of(reader_of(recipe.sources[0], recipe.scrape), as_of="2026-01-05", previous="") == id
    again = Recipe.model_validate(recipe.model_dump(mode="json"))  # as a flow run is given it
    assert again == recipe


def test_every_kind_has_a_reader() -> None:
    assert list(kinds()) == ["site", "warc", "urls", "folder", "dataset"]
    for kind, model in kinds().items():
        source = model.model_validate({"name": "a", "kind": kind, "urls": ["https://example.org/"], "path": "p"})
        assert reader_of(source, Recipe(name="x", sources=[source]).scrape).kind == kind


def test_a_source_tells_its_own_fields_only() -> None:
    assert set(SiteSource(name="s", urls=["u"]).model_dump()) == {
        "kind", "name", "include", "exclude", "licence", "urls"
    }  # fmt: skip
    with pytest.raises(RecipeError, match=r"known here: kind, name, include, exclude, licence, path, text_column$"):
        recipe_of({"name": "f", "kind": "folder", "path": "texts", "zzzzz": 1}, Path("."))


def test_a_kind_has_one_class() -> None:
    with pytest.raises(TypeError, match=r"source kind 'folder' exists already, in prosemill\.config\.sources"):
        type("Mine", (FolderSource,), {"__module__": "mine"})
    assert kinds()["folder"] is FolderSource


# --- the form --------------------------------------------------------------------------------------------------------


def refused(source: dict[str, Any]) -> dict[str, Any]:
    """What the Prefect server says of a run with this source, by field."""
    schema = retrain.parameters.model_dump_for_openapi()
    answer = build_error_obj(validate({"recipe": {"name": "x", "sources": [source]}}, schema))
    errors: list[Any] = answer["errors"]
    while errors and not isinstance(errors[0], str) and errors[0].get("property") in ("recipe", "sources"):
        errors = errors[0]["errors"]
    return {error["property"]: error["errors"] for error in errors[0]["errors"]} if errors else {}


@pytest.mark.parametrize(
    ("source", "field", "message"),
    [
        ({"name": "a"}, "urls", "'urls' is a required property"),
        ({"name": "a", "kind": "urls"}, "urls", "'urls' is a required property"),
        ({"name": "a", "kind": "folder"}, "path", "'path' is a required property"),
        ({"name": "a", "kind": "warc", "path": ""}, "path", "'' should be non-empty"),
        ({"name": "Bad Name!", "kind": "dataset", "path": "x"}, "name", "'Bad Name!' does not match"),
    ],
)
def test_the_form_names_the_wrong_field(source: dict[str, Any], field: str, message: str) -> None:
    errors = refused(source)
    assert list(errors) == [field]
    assert message in errors[field][0]


def test_the_form_takes_what_a_recipe_may_hold_and_shows_each_kind() -> None:
    for source in (SITE, SITE | {"text_column": "story"}, {"name": "u", "kind": "urls", "path": "list.txt"}):
        assert refused(source) == {}
    items = retrain.parameters.model_dump_for_openapi()["definitions"]["Recipe"]["properties"]["sources"]["items"]
    fields = {kind["title"]: list(kind["properties"]) for kind in items["anyOf"]}
    common = list(Source.model_fields)
    assert fields == {
        "Site": [*common, "urls"],
        "Web archive": [*common, "path"],
        "List of URLs": [*common, "urls", "path"],
        "Folder": [*common, "path", "text_column"],
        "Data set": [*common, "path", "text_column", "dataset_config", "dataset_split"],
    }
