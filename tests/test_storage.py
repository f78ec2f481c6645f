"""Snapshots: written aside, complete or not there at all, found again by what they were made of."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prosemill.errors import SnapshotMissing, StoreBusy, StoreNotWritable
from prosemill.storage.disk import sweep
from prosemill.storage.manifest import Counts, Manifest, snapshot_id
from prosemill.storage.store import Store


def write(store: Store, snapshot: str, text: str = "hello", parents: tuple[str, ...] = ()) -> None:
    with store.write(
        snapshot, stage="note", version=1, parents=list(parents), settings={"a": 1}, as_of="2026-01-05"
    ) as w:
        w.path("note.txt").write_text(text)
        w.add("note.txt", "note", rows=1)
        w.counts = Counts(seen=3, kept=2, dropped={"thin": 1})


def test_a_snapshot_comes_back_as_it_was_written(store: Store) -> None:
    write(store, "note-1", "grüße")

    manifest = store.manifest("note-1")

    assert store.snapshots() == ["note-1"]
    assert manifest.counts == Counts(3, 2, {"thin": 1})
    assert manifest.libraries["pyarrow"]
    assert Manifest.from_json(manifest.to_json()) == manifest
    shard = store.local(manifest.shards_of("note")[0].path)
    assert shard.read_text() == "grüße"
    assert shard.parent.stat().st_mode == (Path(store.root) / "snapshots").stat().st_mode, "private to its writer"


def test_nothing_is_left_of_a_snapshot_whose_making_failed(store: Store) -> None:
    def fail() -> None:
        with store.write("note-2", stage="note", version=1, parents=[], settings={}) as w:
            w.path("half.txt").write_text("half")
            raise ValueError("stage broke")

    with pytest.raises(ValueError, match="stage broke"):
        fail()

    assert not store.has("note-2")
    assert list(Path(store.root, "tmp").iterdir()) == []


def test_a_writer_that_was_killed_leaves_no_snapshot_and_is_swept(store: Store) -> None:
    program = (
        "import sys, time; from prosemill.storage.store import Store\n"
        "with Store(sys.argv[1]).write('note-3', stage='note', version=1, parents=[], settings={}) as w:\n"
        "    w.path('half.txt').write_text('half'); print('writing', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, store.url], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"writing\n"
    aside = Path(store.root, "tmp")
    sweep(aside)
    assert len(list(aside.glob("note-3.*/half.txt"))) == 1, "a living writer's files must not be swept"

    child.send_signal(signal.SIGKILL)
    child.wait()
    write(store, "note-4")

    assert store.snapshots() == ["note-4"]
    assert list(aside.iterdir()) == []


def test_the_second_writer_of_the_same_snapshot_loses_quietly(store: Store) -> None:
    with store.write("note-5", stage="note", version=1, parents=[], settings={}) as slow:
        write(store, "note-5", "first")
        slow.path("note.txt").write_text("second")

    assert store.local("note-5/note.txt").read_text() == "first"


def test_a_missing_snapshot_is_named_with_the_command_that_rebuilds_it(store: Store) -> None:
    with pytest.raises(SnapshotMissing, match=r"no complete snapshot note-9.*prosemill retrain RECIPE --refresh"):
        store.require("note-9")


def test_equal_inputs_give_equal_ids_and_any_difference_another() -> None:
    def name(**change: object) -> str:
        arguments = {"inputs": ["a-1"], "settings": {"x": 1, "y": 2}, "as_of": "2026-01-05", **change}
        return snapshot_id("dedup", 1, **arguments)  # type: ignore[arg-type]

    assert name() == name(settings={"y": 2, "x": 1})
    others = {name(inputs=["a-2"]), name(settings={"x": 1, "y": 3}), name(as_of="2026-01-06"), name()}
    assert len(others) == 4


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        Counts(seen=3, kept=1, dropped={"thin": 1})


def test_the_run_before_is_the_newest_older_one(store: Store) -> None:
    for as_of in ("2026-01-05", "2026-01-12", "2026-01-19"):
        store.record_run("news", as_of, {"strip": f"strip-{as_of}"})

    assert store.previous_run("news", "2026-01-12") == {"strip": "strip-2026-01-05"}
    assert store.previous_run("news", "2026-01-05") == {}
    assert store.corpora() == ["news"]


def test_two_runs_of_one_corpus_do_not_mix(store: Store) -> None:
    with store.one_run_at_a_time("news"), pytest.raises(StoreBusy, match="another run of 'news'"):  # noqa: SIM117
        with Store(store.url).one_run_at_a_time("news"):
            pass
    with store.one_run_at_a_time("news"):
        pass


def test_a_store_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("I am a file")

    with pytest.raises(StoreNotWritable, match="choose another with --store") as error:
        Store(str(tmp_path / "store")).check_writable()

    assert "\n" not in str(error.value)


def test_a_remote_store_keeps_the_same_promises() -> None:
    store = Store(f"memory://store-{os.getpid()}-{time.monotonic_ns()}")
    store.check_writable()
    write(store, "note-6", "far away")

    assert store.snapshots() == ["note-6"]
    assert store.local("note-6/note.txt").read_text() == "far away"
    with store.open("note-6/note.txt") as file:
        assert file.read() == b"far away"
    store.record_run("news", "2026-01-05", {"strip": "s"})
    assert store.runs("news") == {"2026-01-05": {"strip": "s"}}
