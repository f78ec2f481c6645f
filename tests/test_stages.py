"""The table of stages: whatever a new stage lacks is named here."""

import pkgutil
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from prosemill.storage import stages
from prosemill.storage.stages import STAGES, Members, Samples, Stage

ROOT = Path(__file__).parent.parent
DOCUMENT = pa.schema([("id", pa.string())])


def columns_missing(stage: Stage) -> list[str]:
    """Roles and columns that the stage names elsewhere in its entry and does not list."""
    wanted = list[tuple[str, str]]()
    if stage.members:
        wanted += [(stage.members.role, stage.members.name), (stage.members.role, stage.members.value)]
    wanted += [(role, "url") for role in stage.samples or ()]
    return [
        f"roles: {role} has no column {column}"
        for role, column in wanted
        if not isinstance(columns := stage.roles.get(role), pa.Schema) or column not in columns.names
    ]


def missing(stage: Stage, documented: str, tasks: str) -> list[str]:
    """What the entry of a stage lacks. `documented`: the table in docs/architecture.md; `tasks`: the code of tasks/."""
    lacking = [name for name in ("entry", "documentation", "parents") if not getattr(stage, name)]
    try:
        entry = pkgutil.resolve_name(stage.entry) if stage.entry else None
        lacking += [] if entry is None or entry.__doc__ else ["entry: no docstring"]
    except (ImportError, AttributeError) as error:
        lacking.append(f"entry: {error}")
    lacking += [f"parents: {parent} is not a stage" for parent in stage.parents if parent not in STAGES]
    lacking += columns_missing(stage)
    if not re.search(rf"\| `{stage.name}` \|.*\| `{re.escape(stage.entry)}` \|", documented):
        lacking.append("docs/architecture.md")
    if stage.makes_snapshots:
        lacking += [name for name in ("version", "roles", "figures") if not getattr(stage, name)]
        lacking += [] if f'by_ids("{stage.name}")' in tasks else ["tasks: no task is cached by_ids of it"]
    return lacking


@pytest.fixture(scope="module")
def documented() -> str:
    return (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tasks() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tasks").glob("*.py"))


@pytest.mark.parametrize("name", STAGES)
def test_the_entry_of_each_stage_is_complete(name: str, documented: str, tasks: str) -> None:
    assert missing(stages.of(name), documented, tasks) == []


def test_an_incomplete_stage_is_told_what_it_lacks(documented: str, tasks: str) -> None:
    lacks = missing(Stage("translate"), documented, tasks)
    assert lacks == [
        "entry", "documentation", "parents", "docs/architecture.md", "version", "roles", "figures",
        "tasks: no task is cached by_ids of it",
    ]  # fmt: skip
    wrong = replace(
        stages.of("chunk"),
        entry="prosemill.chunk.stage:cut",
        parents=("dedup", "divide"),
        roles={"map": DOCUMENT},
        members=Members("map", "document", "id"),
        samples=Samples("train", "map"),
    )
    lacking = missing(wrong, documented, tasks)
    assert "has no attribute 'cut'" in lacking[0]
    assert lacking[1:] == [
        "parents: divide is not a stage",
        "roles: map has no column document",
        "roles: train has no column url",
        "roles: map has no column url",
        "docs/architecture.md",
    ]


def test_a_stage_that_the_table_does_not_hold_has_its_name_alone() -> None:
    assert stages.of("translate") == Stage("translate")


def test_a_version_is_stated_in_one_place() -> None:
    stated = [
        path.relative_to(ROOT).as_posix()
        for folder in ("prosemill", "tasks", "flows")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"STAGE_VERSION|\bstage_version = \d", path.read_text(encoding="utf-8"))
    ]
    assert stated == []
