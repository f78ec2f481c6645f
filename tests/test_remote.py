"""A store on S3: the same promises as in a folder, one line for whatever is wrong, and a cache that is bounded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from prosemill.config import environment
from prosemill.errors import (
    EXIT_REFUSED,
    SnapshotMissing,
    StoreBusy,
    StoreError,
    StoreNotWritable,
    StoreRefused,
    StoreUnreachable,
)
from prosemill.storage.remote import KEPT_SECONDS, store_errors
from prosemill.storage.store import Store
from tests.production import free_port
from tests.test_storage import write

ROOT = Path(__file__).parent.parent
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server with a bucket named `mill`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    ).create_bucket(Bucket="mill")
    yield url
    server.stop()


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store's URL of its own, with credentials and cache in the environment, as an operator sets them."""
    for name, value in zip(KEYS, ("a", "b", "us-east-1", s3), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PROSEMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    return f"s3://mill/{tmp_path.name}"


def test_a_bucket_keeps_the_promises_of_a_folder(bucket: str) -> None:
    store = Store(bucket)
    store.check_writable()
    assert store.snapshots() == store.corpora() == []
    assert store.runs("news") == store.previous_run("news", "2026-01-05") == {}
    write(store, "note-1", "grüße")
    with pytest.raises(SnapshotMissing, match=r"no complete snapshot note-9"):
        store.manifest("note-9")
    with pytest.raises(SnapshotMissing):
        store.local("note-1/nothing.txt")

    other = Store(bucket)  # as another machine would see it, with nothing cached
    assert other.snapshots() == ["note-1"]
    assert other.manifest("note-1").shards[0].rows == 1
    with other.open("note-1/note.txt") as file:
        assert file.read().decode() == "grüße"
    assert not list(other.here.glob("tmp/*"))
    assert store.fs.find(f"{store.root}/tmp") == []


def test_what_others_write_is_seen_at_once(bucket: str) -> None:
    one, other = Store(bucket), Store(bucket)
    assert not other.has("note-1")
    assert other.snapshots() == []
    write(one, "note-1")
    one.record_run("news", "2026-01-05", {"strip": "s"})
    assert other.has("note-1")
    assert other.snapshots() == ["note-1"]
    assert other.runs("news") == {"2026-01-05": {"strip": "s"}}
    one.record_run("news", "2026-01-05", {"strip": "t"})
    one.record_run("news", "2026-01-12", {"strip": "u"})
    assert other.previous_run("news", "2026-01-12") == {"strip": "t"}
    assert other.corpora() == ["news"]
    assert [name.rsplit("/", 1)[-1] for name in one.fs.find(f"{one.root}/corpora")] == [
        "2026-01-05.json",
        "2026-01-12.json",
    ], "nothing written aside is left"


def test_files_are_fetched_once_and_folders_as_far_as_they_are_missing(bucket: str) -> None:
    store = Store(bucket)
    with store.write("model-1", stage="model", version=1, parents=[], settings={}) as writer:
        for name in ("model/config.json", "model/weights.bin", "log.txt"):
            writer.path(name).write_text(name)
            writer.add(name, "model", 0)
    config = store.local("model-1/model/config.json")
    assert not config.with_name("weights.bin").exists(), "only what was asked for"

    folder = store.local("model-1/model")

    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.bin"]
    store.fs.rm(f"{store.root}/snapshots/model-1/model/config.json")
    assert store.local("model-1/model/config.json").read_text() == "model/config.json", "it came from this machine"


def test_two_runs_of_one_corpus_on_one_machine_do_not_mix(bucket: str) -> None:
    with Store(bucket).one_run_at_a_time("news"), pytest.raises(StoreBusy):  # noqa: SIM117
        with Store(bucket).one_run_at_a_time("news"):
            pass


def test_the_cache_keeps_to_its_bound_and_what_is_in_use(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(bucket)
    for number in range(3):
        write(store, f"note-{number}", "x" * 1000)
    files = [store.local(f"note-{number}/note.txt") for number in range(3)]
    long_ago = time.time() - 2 * KEPT_SECONDS
    os.utime(files[0], (long_ago, long_ago))
    os.utime(files[1], (long_ago + 60, long_ago + 60))
    monkeypatch.setenv("PROSEMILL_CACHE_GB", str(2500 / 1e9))

    store.check_writable()

    assert [file.exists() for file in files] == [False, True, True], "what was used longest ago goes first"
    monkeypatch.setenv("PROSEMILL_CACHE_GB", "0")
    store.check_writable()
    assert [file.exists() for file in files] == [False, False, True], "nothing of the last day goes"
    assert store.local("note-0/note.txt").read_text() == "x" * 1000, "and what is gone is fetched again"
    monkeypatch.setenv("PROSEMILL_CACHE_GB", "much")
    with pytest.raises(StoreError, match="PROSEMILL_CACHE_GB = 'much'"):
        environment.cache_limit_bytes()


def refused(url: str) -> StoreError:
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StoreError) as raised:
        Store(url).check_writable()
    assert str(raised.value).startswith(url)
    assert "\n" not in str(raised.value)
    return raised.value


def test_what_is_wrong_with_a_bucket_is_said_in_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused("s3://misspelt/store")
    assert isinstance(error, StoreRefused)
    assert "no such bucket; create it" in str(error)
    assert "mill" in Store(bucket).fs.ls(""), "the listing works"
    assert "misspelt" not in Store(bucket).fs.ls(""), "nobody made the bucket"
    with pytest.raises(StoreRefused, match="no such bucket"):
        Store("s3://misspelt/store").local("note-1/note.txt")

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    error = refused(bucket)
    assert isinstance(error, StoreUnreachable)
    assert "AWS_ENDPOINT_URL" in str(error)

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = refused(bucket)
    assert isinstance(error, StoreRefused)
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(error)


@pytest.mark.parametrize(("writing", "kind"), [(True, StoreNotWritable), (False, StoreRefused)])
def test_no_permission_is_told_from_a_page_that_cannot_be_read(writing: bool, kind: type[StoreError]) -> None:
    with (
        pytest.raises(kind, match=r"s3://mill: not allowed to .*Access Denied"),
        store_errors("s3://mill", writing=writing),
    ):
        raise PermissionError("Access Denied")  # as s3fs says it; moto grants everything to everybody


@pytest.mark.parametrize("url", ["s4://mill/store", "gs://mill/store"])
def test_a_url_that_nothing_reads_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match=f"^{url}: "):
        Store(url)


def test_the_command_says_so_too(bucket: str) -> None:
    program = "from flows.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "diff", "note-1", "note-2", "--store", "s3://misspelt/store"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (EXIT_REFUSED, "")
    assert done.stderr.startswith("prosemill: s3://misspelt/store: there is no such bucket")
    assert done.stderr.count("\n") == 1
