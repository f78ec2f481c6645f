"""Backups: only what is new is copied, damage is found, what is there is not overwritten, and all of it comes back."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from prosemill.config.environment import artifacts, databases
from prosemill.errors import BackupError
from prosemill.operations.backup import Backup
from prosemill.operations.databases import Database
from prosemill.storage.store import Store
from tests.test_storage import write


@pytest.fixture
def database(store: Store) -> Database:
    file = Path(store.root, "mlflow.db")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE champions (name TEXT)")
        connection.execute("INSERT INTO champions VALUES ('first')")
    return Database("mlflow", f"sqlite:///{file}")


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    return Backup(str(tmp_path / "backup"))


def champions(store: Store) -> list[str]:
    with closing(sqlite3.connect(Path(store.root, "mlflow.db"))) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM champions")]


def test_all_of_it_comes_back(store: Store, database: Database, backup: Backup, tmp_path: Path) -> None:
    write(store, "note-1", "one")
    write(store, "note-2", "two", parents=("note-1",))
    store.record_run("news", "2026-01-05", {"strip": "note-1"})
    Path(store.root, "approvals").mkdir()
    Path(store.root, "approvals", "answer.json").write_text("yes")
    (Path(store.root, "tmp") / "half").write_text("being written")

    first = backup.save(store, None, [database], "")

    assert first.snapshots == ["note-1", "note-2"]
    assert backup.verify(first) > 4
    elsewhere = Store(str(tmp_path / "elsewhere"))
    again = Database("mlflow", f"sqlite:///{elsewhere.root}/mlflow.db")
    backup.restore(backup.point(), elsewhere, [again], "")
    assert elsewhere.snapshots() == ["note-1", "note-2"]
    assert elsewhere.manifest("note-2") == store.manifest("note-2")
    assert elsewhere.local("note-2/note.txt").read_text() == "two"
    assert elsewhere.runs("news") == store.runs("news")
    assert Path(elsewhere.root, "approvals", "answer.json").read_text() == "yes"
    assert not (Path(elsewhere.root) / "tmp" / "half").exists()
    assert champions(elsewhere) == ["first"]


def test_a_run_costs_what_is_new_and_every_point_stays_what_it_was(
    store: Store, database: Database, backup: Backup, tmp_path: Path
) -> None:
    write(store, "note-1")
    store.record_run("news", "2026-01-05", {"strip": "s"})
    first = backup.save(store, None, [database], "")
    assert first.copied["snapshots"] == 1
    write(store, "note-2")
    store.record_run("news", "2026-01-12", {"strip": "t"})
    with closing(sqlite3.connect(Path(store.root, "mlflow.db"))) as connection, connection:
        connection.execute("INSERT INTO champions VALUES ('second')")

    second = backup.save(store, None, [database], "")

    assert second.copied["snapshots"] == 1
    unchanged = "store/corpora/news/2026-01-05.json"
    assert second.files[unchanged].sha256 == first.files[unchanged].sha256
    name = first.name if first.name != second.name else ""
    for number, point in enumerate([backup.point(name), second]):
        target = Store(str(tmp_path / f"target-{number}"))
        backup.restore(point, target, [Database("mlflow", f"sqlite:///{target.root}/mlflow.db")], "")
        assert target.snapshots() == point.snapshots
        assert f"{len(target.runs('news'))}" == f"{sum(path.startswith('store/corpora') for path in point.files)}"


def test_what_is_there_is_not_overwritten_unless_asked(store: Store, database: Database, backup: Backup) -> None:
    write(store, "note-1")
    store.record_run("news", "2026-01-05", {"strip": "s"})
    point = backup.save(store, None, [database], "")
    store.record_run("news", "2026-01-05", {"strip": "later"})

    with pytest.raises(BackupError, match=r"the store .* and the database of mlflow: not empty.*--overwrite"):
        backup.restore(point, store, [database], "")
    assert store.runs("news")["2026-01-05"] == {"strip": "later"}

    backup.restore(point, store, [database], "", overwrite=True)
    assert store.runs("news")["2026-01-05"] == {"strip": "s"}
    assert champions(store) == ["first"]


@pytest.mark.parametrize("role", ["snapshots", "files"])
def test_damage_is_found_and_named(store: Store, database: Database, backup: Backup, role: str) -> None:
    write(store, "note-1", "a text")
    store.record_run("news", "2026-01-05", {"strip": "s"})
    point = backup.save(store, None, [database], "")
    victim = next(
        path for path in Path(backup.place.root, role).rglob("*") if path.suffix in ("", ".txt") and path.is_file()
    )
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")

    with pytest.raises(BackupError, match=f"{victim.name}.*is damaged"):
        backup.verify(point)
    victim.unlink()
    with pytest.raises(BackupError, match=r"missing"):
        backup.verify(point)


def test_a_snapshot_that_records_name_and_nobody_has_is_told(store: Store, backup: Backup) -> None:
    write(store, "strip-0123456789abcdef")
    store.record_run("news", "2026-01-05", {"strip": "strip-0123456789abcdef", "dedup": "dedup-0123456789abcdef"})
    assert backup.save(store, None, [], "").missing == ["dedup-0123456789abcdef"]


def test_a_backup_that_was_killed_is_made_whole_by_the_next(store: Store, backup: Backup) -> None:
    write(store, "note-1", "whole")
    half = Path(backup.place.root, "snapshots", "note-1", "note.txt")
    half.parent.mkdir(parents=True)
    half.write_text("ha")
    assert backup.snapshots() == []
    backup.verify(backup.save(store, None, [], ""))
    assert half.read_text() == "whole"


def test_a_store_that_is_damaged_is_not_saved_over_a_good_backup(store: Store, backup: Backup) -> None:
    write(store, "note-1", "good")
    write(store, "note-2", "good")
    Path(store.root, "snapshots", "note-2", "note.txt").write_text("bad!")
    with pytest.raises(BackupError, match=r"note-2/note\.txt: is damaged"):
        backup.save(store, None, [], "")
    assert backup.points() == []


def test_without_a_backup_there_is_nothing_to_bring_back(backup: Backup, store: Store) -> None:
    with pytest.raises(BackupError, match=r"there is no backup here; `prosemill backup` makes one"):
        backup.point()
    backup.save(store, None, [], "")
    with pytest.raises(BackupError, match=r"no backup 2001"):
        backup.point("2001")


def test_which_databases_belong_to_a_store(tmp_path: Path) -> None:
    home = {"PREFECT_HOME": str(tmp_path)}
    assert databases("/s", home) == {"mlflow": "sqlite:////s/mlflow.db", "prefect": f"sqlite:///{tmp_path}/prefect.db"}
    assert artifacts(home) == ""
    server = home | {
        "MLFLOW_TRACKING_URI": "https://mlflow.example.org",
        "PREFECT_API_URL": "https://p.example.org/api",
    }
    with pytest.raises(BackupError, match="MLFLOW_BACKEND_STORE_URI does not say"):
        databases("/s", server)
    server["MLFLOW_BACKEND_STORE_URI"] = "postgresql://m@h/mlflow"
    with pytest.raises(BackupError, match="PREFECT_SERVER_DATABASE_CONNECTION_URL does not say"):
        databases("/s", server)
    server["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = "postgresql+asyncpg://p@h/prefect"
    assert set(databases("/s", server).values()) == {"postgresql://m@h/mlflow", "postgresql+asyncpg://p@h/prefect"}
    with pytest.raises(BackupError, match="MLFLOW_ARTIFACTS_DESTINATION"):
        artifacts(server)


@pytest.mark.parametrize("url", ["mysql://h/mlflow", "postgresql://h", "no url"])
def test_a_database_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(BackupError, match=r"^the database of mlflow"):
        Database("mlflow", url).exists()


def test_a_point_is_readable_json(store: Store, backup: Backup) -> None:
    write(store, "note-1")
    point = backup.save(store, None, [], "")
    (file,) = Path(backup.place.root, "points").iterdir()
    assert json.loads(file.read_text())["snapshots"] == ["note-1"]
    assert backup.point() == point
