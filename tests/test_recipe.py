"""A wrong recipe is refused in one line that names the place, the value, what is allowed and the nearest name."""

from pathlib import Path
from typing import Any

import pytest

from prosemill.config.recipe import check_sources, load_recipe, parse_recipe
from prosemill.config.settings import RecipeFile
from prosemill.errors import RecipeError

GOOD: dict[str, Any] = {"name": "news", "sources": [{"name": "site", "urls": ["https://example.org/"]}]}


def refused(fields: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as error:
        parse_recipe(fields, where="news.toml", folder=Path("."))
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("news.toml: ")
    return message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finetun": {}}, "unknown key finetun; did you mean 'finetune'?"),
        ({"finetune": {"epoch": 3}}, "unknown key finetune.epoch; did you mean 'epochs'?"),
        ({"dedup": {"treshold": 0.7}}, "unknown key dedup.treshold; did you mean 'threshold'?"),
        ({"chunk": {"zzz": 1}}, "known here: chunk_tokens"),
        ({"dedup": {"threshold": 3}}, "dedup.threshold = 3: should be less than or equal to 1"),
        ({"dedup": {"threshold": "high"}}, "dedup.threshold = 'high': should be a valid number"),
        ({"dedup": {"threshold": 0.6}}, "loose_threshold 0.65 is above threshold 0.6"),
        ({"name": "My Model"}, "name = 'My Model': "),
        ({"name": ""}, "name = '': "),
        ({"language": "english"}, "language = 'english': "),
        ({"sources": []}, "sources: "),
        ({"sources": "here"}, "sources = 'here': "),
        ({"sources": [{"name": "a", "kind": "sitte", "urls": ["x"]}]}, "sources[0].kind = 'sitte': should be 'site'"),
        ({"sources": [{"name": "a"}]}, 'sources[0]: kind "site" needs urls'),
        ({"sources": [{"name": "a", "kind": "folder"}]}, 'sources[0]: kind "folder" needs path'),
        ({"sources": [{"urls": ["x"]}]}, "sources[0].name is missing"),
        ({"sources": [{"name": "a", "urls": ["x"]}] * 2}, "two sources are named 'a'"),
        (
            {"sources": [{"name": "a", "urls": ["x"], "include": ["("]}]},
            "sources[0].include = '(': not a regular expression",
        ),
        ({"finetune": 3}, "finetune = 3"),
        (
            {"finetune": {"batch_chunks": 6, "micro_batch_chunks": 4}},
            "batch_chunks 6 is not a multiple of micro_batch_chunks 4",
        ),
        ({"finetune": {"learning_rate": -1}}, "finetune.learning_rate = -1: should be greater than or equal to 0"),
        ({"split": {"test_share": 0.8, "validation_share": 0.15}}, "leave less than a tenth to train on"),
        ({"evaluate": {"stride": 2048}}, "evaluate.stride 2048 is longer than chunk.chunk_tokens 1024"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(change: dict[str, Any], message: str) -> None:
    assert message in refused({**GOOD, **change})


def test_what_is_missing_is_said() -> None:
    assert "name is missing" in refused({"sources": GOOD["sources"]})


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "news.toml").write_text("name = news")
    (tmp_path / "latin.toml").write_bytes("name = 'café'".encode("latin-1"))
    for name, message in {
        "new.toml": "no such file; did you mean 'news.toml'?",
        "news.toml": "is not TOML",
        "latin.toml": "is not UTF-8",
        ".": "is a folder",
    }.items():
        with pytest.raises(RecipeError, match=message):
            load_recipe(tmp_path / name)


def test_paths_are_taken_from_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "my-base").mkdir()
    (tmp_path / "news.toml").write_text(
        'name = "news"\n[[sources]]\nname = "a"\nkind = "folder"\npath = "texts"\n[finetune]\nbase = "my-base"\n'
    )
    recipe = load_recipe(tmp_path / "news.toml")
    assert recipe.sources[0].path == str(tmp_path / "texts")
    assert recipe.finetune.base == str(tmp_path / "my-base")
    check_sources(recipe)


def test_hub_names_stay_names(tmp_path: Path) -> None:
    fields = {**GOOD, "finetune": {"base": "gpt2"}, "sources": [{"name": "a", "kind": "dataset", "path": "org/name"}]}
    recipe = parse_recipe(fields, where="news.toml", folder=tmp_path)
    assert (recipe.finetune.base, recipe.sources[0].path) == ("gpt2", "org/name")


def test_a_folder_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    fields = {**GOOD, "sources": [{"name": "a", "kind": "folder", "path": "nowhere"}]}
    with pytest.raises(RecipeError, match=r"source 'a': path .*nowhere does not exist"):
        check_sources(parse_recipe(fields, where="news.toml", folder=tmp_path))


def test_every_setting_is_described_and_has_a_default() -> None:
    def walk(model: Any, place: str) -> list[str]:
        bare = []
        for name, field in model.model_fields.items():
            inner = field.annotation
            if hasattr(inner, "model_fields"):
                bare += walk(inner, f"{place}{name}.")
            elif not field.description or (field.is_required() and f"{place}{name}" not in ("name", "sources")):
                bare.append(f"{place}{name}")
        return bare

    assert walk(RecipeFile, "") == []
