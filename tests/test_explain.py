"""Which stage of a run was found, which was made, and which input had changed: planted differences are named."""

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from flows.cli import run as prosemill
from prosemill.errors import EXIT_REFUSED, RunUnknown
from prosemill.lineage.explain import RunExplanation, explain
from prosemill.storage import run_log
from prosemill.storage.manifest import Counts, snapshot_id, stage_of
from prosemill.storage.run_log import RunLog
from prosemill.storage.store import Store

ONE, TWO, THREE = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", "3" * 36)
STARTED = {ONE: "2026-01-05T02:00:00", TWO: "2026-01-12T02:00:00", THREE: "2026-01-19T02:00:00"}


def make(
    store: Store, stage: str, run: str, *, parents: Sequence[str] = (), settings: Mapping[str, Any] | None = None,
    version: int = 1, as_of: str = "2026-01-05", hidden: str = "", totals: Mapping[str, Any] | None = None,
    kept: int = 1,
) -> str:  # fmt: skip
    """A snapshot named as the stages name theirs; `hidden` is an input that its manifest does not hold."""
    used = dict(settings or {})
    id = snapshot_id(stage, version, inputs=[*parents, hidden], settings=used, as_of=as_of)
    if not store.has(id):
        with store.write(
            id, stage=stage, version=version, parents=parents, settings=used, as_of=as_of, flow_run_id=run
        ) as writer:
            writer.counts, writer.totals = Counts(kept, kept), dict(totals or {})
    return id


def log_run(store: Store, run: str, *snapshots: str, name: str = "", flow: str = "build-corpus", **more: Any) -> RunLog:
    """A run that came to these snapshots, one a stage."""
    date = STARTED[run][:10]
    run_log.begin(store, RunLog(run, flow, name or f"docs {date} corpus", "docs", date, STARTED[run], **more))
    for snapshot in snapshots:
        run_log.add(store, run, stage_of(snapshot), [snapshot], 0.25)
    ended = run_log.end(store, run, state="COMPLETED", ended=STARTED[run])
    assert ended is not None
    return ended


def words(explanation: RunExplanation) -> list[list[str]]:
    return [[str(change) for change in stage.why] for stage in explanation.stages]


def test_the_first_run_has_nothing_to_be_compared_with(store: Store) -> None:
    log_run(store, ONE, make(store, "strip", ONE))
    explanation = explain(store, ONE)
    assert explanation.before is None
    assert [(stage.cache, *map(str, stage.why)) for stage in explanation.stages] == [
        ("miss", "first run of this stage")
    ]


def test_what_is_found_says_who_made_it(store: Store) -> None:
    strip = make(store, "strip", ONE)
    log_run(store, ONE, strip)
    log_run(store, TWO, strip)
    explanation = explain(store, TWO)
    assert explanation.before is not None
    assert explanation.before.id == ONE
    (stage,) = explanation.stages
    assert (stage.cache, stage.seconds, stage.why) == ("hit", 0.25, [])
    assert stage.made_by == "build-corpus docs 2026-01-05 corpus"


def test_a_setting_that_changed_is_named_with_both_values(store: Store) -> None:
    log_run(store, ONE, make(store, "dedup", ONE, settings={"threshold": 0.8, "seed": {"a": 1}}))
    log_run(store, TWO, make(store, "dedup", TWO, settings={"threshold": 0.7, "seed": {"a": 2}}))
    assert words(explain(store, TWO)) == [["setting seed.a: 1 → 2", "setting threshold: 0.8 → 0.7"]]


def test_another_version_of_a_stage_and_a_parent_are_named(store: Store) -> None:
    old, new = make(store, "strip", ONE), make(store, "strip", TWO, hidden="other")
    log_run(store, ONE, old, make(store, "dedup", ONE, parents=[old]))
    log_run(store, TWO, new, make(store, "dedup", TWO, parents=[new], version=2))
    explanation = explain(store, TWO)
    assert words(explanation)[1] == ["stage version: 1 → 2", f"input strip: {old} → {new}"]
    assert [stage.stage for stage in explanation.stages] == ["strip", "dedup"]


def test_a_run_that_goes_on_from_the_last_says_so(store: Store) -> None:
    first = make(store, "split", ONE)
    log_run(store, ONE, first)
    log_run(store, TWO, make(store, "split", TWO, parents=[first], as_of="2026-01-12"))
    assert words(explain(store, TWO)) == [[f"goes on from: none → {first}", "as_of: 2026-01-05 → 2026-01-12"]]


def test_many_parents_are_counted(store: Store) -> None:
    shards = [make(store, "strip-shard", ONE, hidden=str(number)) for number in range(5)]
    log_run(store, ONE, make(store, "strip", ONE, parents=shards[:4]))
    log_run(store, TWO, make(store, "strip", TWO, parents=shards[1:]))
    assert words(explain(store, TWO)) == [["input strip-shard: 1 new, 1 gone, 3 as before"]]


def test_a_snapshot_that_was_deleted_and_made_again(store: Store) -> None:
    strip = make(store, "strip", ONE)
    log_run(store, ONE, strip)
    shutil.rmtree(store.local(strip))
    log_run(store, TWO, make(store, "strip", TWO))
    assert "the snapshot was deleted in between" in words(explain(store, TWO))[0][0]

    shutil.rmtree(store.local(strip))
    (gone,) = explain(store, TWO).stages
    assert (gone.made_by, [str(change) for change in gone.why]) == ("", ["the snapshot was deleted since"])


def test_the_run_before_whose_snapshot_was_deleted(store: Store) -> None:
    old = make(store, "chunk", ONE, hidden="old")
    log_run(store, ONE, old)
    shutil.rmtree(store.local(old))
    log_run(store, TWO, make(store, "chunk", TWO, hidden="new"))
    assert words(explain(store, TWO)) == [[f"cannot be compared: the snapshot of the run before, {old}, was deleted"]]


def test_an_input_that_manifests_do_not_hold(store: Store) -> None:
    log_run(store, ONE, make(store, "finetune", ONE, hidden="weights"))
    log_run(store, TWO, make(store, "finetune", TWO, hidden="other weights"))
    assert words(explain(store, TWO)) == [["the weights or the tokenizer of the base changed"]]


def test_sources_are_told_apart(store: Store) -> None:
    def scrape(run: str, source: str, kept: int = 1) -> str:
        totals = {"source": source, "kind": "folder", "live_bytes": 10 * kept}
        return make(store, "scrape", run, hidden=f"{source}{kept}", totals=totals, kept=kept)

    log_run(store, ONE, scrape(ONE, "a"), scrape(ONE, "b"))
    log_run(store, TWO, scrape(TWO, "b"), scrape(TWO, "a", kept=2), scrape(TWO, "c"))
    explanation = explain(store, TWO)
    assert [(stage.stage, stage.cache) for stage in explanation.stages] == [
        ("scrape b", "hit"), ("scrape a", "miss"), ("scrape c", "miss"),
    ]  # fmt: skip
    assert words(explanation)[1:] == [
        ["files of the source: 1 pages of 10 bytes → 2 pages of 20 bytes"],
        ["first run of this source"],
    ]


def test_a_run_has_the_stages_of_the_runs_it_started(store: Store) -> None:
    run_log.begin(store, RunLog(TWO, "retrain", "docs 2026-01-12", "docs", "2026-01-12", STARTED[TWO]))
    log_run(store, THREE, make(store, "strip", THREE), parent=TWO)
    ended = run_log.end(store, TWO, state="FAILED", reason="the disk is full")
    assert ended is not None
    assert ended.children == (THREE,)
    assert [stage.cache for stage in ended.stages] == ["miss"], "made by a run that this run started"
    explanation = explain(store, TWO)
    assert words(explanation) == [["first run of this stage"]], "the child's own log is not the run before"
    assert explanation.run.reason == "the disk is full"


def test_a_run_that_begins_again_keeps_what_it_reached(store: Store) -> None:
    strip = make(store, "strip", ONE)
    log_run(store, ONE, strip)
    again = log_run(store, ONE, strip)
    assert [(stage.snapshot, stage.cache) for stage in again.stages] == [(strip, "miss")]


@pytest.mark.parametrize("reference", [ONE, ONE[:8], "docs 2026-01-05 corpus", "docs 2026-01-05"])
def test_a_run_answers_to_its_id_name_and_date(store: Store, reference: str) -> None:
    log_run(store, ONE)
    log_run(store, TWO)
    assert explain(store, reference).run.id == ONE
    assert explain(store, "docs").run.id == TWO, "the newest"


def test_the_command_says_it_in_words_and_in_json(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    log_run(store, ONE, make(store, "dedup", ONE, settings={"threshold": 0.8}))
    log_run(store, TWO, make(store, "dedup", TWO, settings={"threshold": 0.7}))

    assert prosemill(["explain", "docs", "2026-01-12", "--store", store.url]) == 0
    printed = capsys.readouterr().out
    assert "because  setting threshold: 0.8 → 0.7" in printed
    assert f"compared with build-corpus docs 2026-01-05 corpus of 2026-01-05, run {ONE}" in printed

    assert prosemill(["explain", TWO, "--json", "--store", store.url]) == 0
    explanation = json.loads(capsys.readouterr().out)
    assert explanation["before"]["id"] == ONE
    (stage,) = explanation["stages"]
    assert stage["in_words"] == ["setting threshold: 0.8 → 0.7"]
    assert stage["why"] == [{"what": "setting threshold", "before": "0.8", "after": "0.7"}]


def test_nobody_is_refused_with_what_there_is(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunUnknown, match=r"no run answers to 'nobody'; .*there is none: prosemill retrain RECIPE"):
        explain(store, "nobody")
    log_run(store, ONE)
    assert prosemill(["explain", "nobody", "--store", store.url]) == EXIT_REFUSED
    assert "there is docs 2026-01-05 corpus" in capsys.readouterr().err
