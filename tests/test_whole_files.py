"""One way each to write a file whole, to write one once, to write a moment, to hold a lock."""

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import fsspec
import pytest

from prosemill.storage import atomic, remote
from prosemill.storage.times import moment, parse

ROOT = Path(__file__).parent.parent


class Died(Exception):
    """As a writer that is stopped half-way."""


def die_writing(path: Path) -> None:
    with atomic.new_file(path) as file:
        file.write_text("half")
        assert path.read_text() == "first"
        raise Died


def die_filling(path: Path) -> None:
    with atomic.new_folder(path) as folder:
        (folder / "half").touch()
        raise Died


def be_slower_than_another(path: Path) -> None:
    with atomic.new_file(path, once=True) as file:
        file.write_text("slow")
        atomic.write(path, "fast", once=True)


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan.json"
    atomic.write(path, "first")
    with pytest.raises(Died):
        die_writing(path)
    assert (path.read_text(), list(path.parent.iterdir())) == ("first", [path])
    atomic.write(path, b"second")
    assert path.read_text() == "second"
    path.parent.chmod(0o750)
    atomic.write(path, "third")
    assert path.stat().st_mode & 0o777 == 0o640, "as its folder is shared"


def test_what_is_written_once_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    with pytest.raises(FileExistsError):
        be_slower_than_another(path)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("fast", [path])


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(Died):
        die_filling(path)
    assert list(tmp_path.iterdir()) == []
    path.mkdir()
    with atomic.new_folder(path) as folder:
        (folder / "config.json").write_text("{}")
    with pytest.raises(OSError, match="not empty"), atomic.new_folder(path):
        pass
    assert [entry.name for entry in tmp_path.rglob("*")] == ["model", "config.json"]


@pytest.mark.parametrize("url", ["file", "memory"])
def test_a_store_anywhere_has_files_that_are_whole(url: str, tmp_path: Path) -> None:
    files, folder = fsspec.filesystem(url), f"{tmp_path}/store/runs"
    source = tmp_path / "source"
    source.write_bytes(b"from a file")
    remote.write_whole(files, f"{folder}/1.json", b"first")
    remote.write_whole(files, f"{folder}/1.json", source)
    assert files.cat_file(f"{folder}/1.json") == b"from a file"
    with pytest.raises(FileNotFoundError):
        remote.write_whole(files, f"{folder}/1.json", tmp_path / "nothing")
    assert [Path(str(name)).name for name in files.find(folder)] == ["1.json"]
    assert files.cat_file(f"{folder}/1.json") == b"from a file"


def test_moments_are_written_in_one_way_and_sort_by_time() -> None:
    at = datetime(2026, 1, 5, 21, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    assert moment(at) == "2026-01-05T19:30:00Z"
    assert moment(at, "milliseconds") == "2026-01-05T19:30:00.123Z"
    assert parse(moment(at, "microseconds")) == at
    assert parse("2026-01-05") == parse("2026-01-05T00:00") == parse("2026-01-05T00:00:00+00:00")
    assert parse("2026-01-05T02:00+02:00") == datetime(2026, 1, 5, tzinfo=UTC)
    with pytest.raises(ValueError, match="isoformat"):
        parse("yesterday")


OWN_WAYS = {  # what else writes aside, writes moments or takes locks, and why it may
    r"\bfcntl\.": {
        "prosemill/storage/disk.py",  # a lock that follows its file through a rename
        "prosemill/storage/remote.py",  # readers share it
    },
    r"os\.(replace|link)\(": {
        "prosemill/storage/atomic.py",
        "prosemill/storage/remote.py",
        "prosemill/config/environment.py",  # private files, below the storage package
        "prosemill/dedup/files.py",  # two files take their places together
    },
    r"\.isoformat\(timespec|strftime\(": {"prosemill/storage/times.py"},
}


@pytest.mark.parametrize("pattern", OWN_WAYS)
def test_there_is_one_way_of_each(pattern: str) -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for storey in ("prosemill", "tasks", "flows", "deployments")
        for path in (ROOT / storey).rglob("*.py")
        if re.search(pattern, path.read_text(encoding="utf-8"))
    }
    assert users == OWN_WAYS[pattern]
