"""What is settled once: in a folder and in a bucket, the first of many writers wins and all are told who it was."""

import threading
from pathlib import Path

import pytest

from prosemill.storage import write_once
from prosemill.storage.store import Store
from tests.test_remote import bucket, s3  # noqa: F401 - fixtures


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    address: str = request.getfixturevalue("bucket") if request.param == "bucket" else str(tmp_path / "store")
    return address


def test_the_first_writer_wins(url: str) -> None:
    store, path = Store(url), "approvals/house/gate-1/answer.json"
    assert write_once.read(store, path) is None
    assert write_once.write(store, path, {"who": "ada"}) == ({"who": "ada"}, True)
    assert write_once.write(store, path, {"who": "bob"}) == ({"who": "ada"}, False)
    assert write_once.read(store, path) == {"who": "ada"}


def test_of_many_at_once_one_wins_and_all_know(url: str) -> None:
    answers: list[tuple[write_once.Record, bool]] = []
    writers = [
        threading.Thread(
            target=lambda n=n: answers.append(write_once.write(Store(url), "started/run.json", {"number": n}))
        )  # type: ignore[misc]
        for n in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [ours for _, ours in answers].count(True) == 1
    stands = write_once.read(Store(url), "started/run.json")
    assert [record for record, _ in answers] == [stands] * 8


def test_what_is_settled_is_not_found_out_again(url: str) -> None:
    store, calls = Store(url), []

    def find_out() -> dict[str, int]:
        calls.append(1)
        return {"times": len(calls)}

    assert [write_once.get_or_create(store, "started/a.json", find_out) for _ in range(3)] == [{"times": 1}] * 3
    assert len(calls) == 1


def test_nothing_is_left_beside_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for number in range(2):
        write_once.write(store, "started/a.json", {"number": number})
    assert [path.name for path in (tmp_path / "started").iterdir()] == ["a.json"]
