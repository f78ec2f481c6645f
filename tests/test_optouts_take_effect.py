"""A page that was learned from and opts out later: out of every set from that run on, and back when it is."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from prosemill.chunk import chunk
from prosemill.config.settings import Chunk, Dedup, Recipe, Split
from prosemill.dedup import dedup
from prosemill.errors import CorpusEmpty
from prosemill.gate import retrain_policy
from prosemill.lineage import retractions
from prosemill.lineage.tracing import Tracer
from prosemill.models.bases import Base
from prosemill.scrape.ledger import LEDGER_FILE, LedgerRow, write_ledger
from prosemill.split.stage import split
from prosemill.storage import stages
from prosemill.storage.corpus import documents_of, training_tokens_of, withdrawn_of
from prosemill.storage.manifest import Shard, document_id, snapshot_id
from prosemill.storage.store import Store
from tests.champions import make_model
from tests.test_dedup import write_strip
from tests.tiny import make_base, texts

SETTINGS = (Dedup(boilerplate_pages=1000), Split(test_share=0.2, validation_share=0.1), Chunk(chunk_tokens=64))
RUNS = ("2026-01-05", "2026-01-06", "2026-01-07", "2026-01-08")
PARTS = ("train", "validation", "test")
Ids = dict[str, str]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("base"))


def url_of(number: int) -> str:
    return f"https://mill.example/{number:03}"


class GrowingCorpus:
    """The runs of a corpus: from ledgers and stripped documents, written here, to chunks, made by the stages."""

    def __init__(self, store: Store, base: Base, texts: list[str]) -> None:
        self.store, self.base, self.texts = store, base, texts
        self.increments: list[Ids] = []

    def document(self, number: int) -> str:
        return document_id(url_of(number), self.texts[number])

    def increment(self, live: range, opted_out: dict[int, str] | None = None, gone: tuple[int, ...] = ()) -> Ids:
        """A run on which `live` pages are read but for these; its snapshots."""
        as_of, out = RUNS[len(self.increments)], opted_out or {}
        numbers = [number for number in live if number not in out and number not in gone]
        rows = [LedgerRow(url_of(number), "mill", "fetched", content_sha256=str(number)) for number in numbers]
        rows += [
            LedgerRow(url_of(number), "mill", "skipped", "ai_opt_out", opt_out=what) for number, what in out.items()
        ]
        rows += [LedgerRow(url_of(number), "mill", "gone", "http_404", http_status=404) for number in gone]
        scrape = snapshot_id("scrape", 1, inputs=[], settings={}, as_of=as_of)
        with self.store.write(scrape, stage="scrape", version=1, parents=[], settings={}, as_of=as_of) as writer:
            write_ledger(writer.path(LEDGER_FILE), rows)
            writer.add(LEDGER_FILE, "ledger", len(rows))
            writer.totals = {"source": "mill", "opted_out": len(out)}
        strip = self._strip(as_of, scrape, numbers)
        ids = self._stages(as_of, strip)
        self.store.record_run("mill", as_of, {"scrape": {"mill": scrape}, "strip": strip, **ids})
        self.increments.append(ids)
        return ids

    def _strip(self, as_of: str, scrape: str, numbers: list[int]) -> str:
        """As `write_strip` of the tests of dedup writes it, with the scrape for a parent."""
        documents = [("mill", url_of(number), self.texts[number]) for number in numbers]
        written = self.store.manifest(write_strip(self.store, f"{as_of}-documents", documents))
        name = f"strip-{as_of}"
        with self.store.write(name, stage="strip", version=1, parents=[scrape], settings={}, as_of=as_of) as writer:
            writer.inherit(written.shards)
        return name

    def _stages(self, as_of: str, strip: str) -> Ids:
        before = self.increments[-1] if self.increments else {"dedup": "", "split": "", "chunk": ""}
        kept = dedup(self.store, strip, SETTINGS[0], as_of=as_of, previous=before["dedup"])
        parts = split(self.store, kept, SETTINGS[1], as_of=as_of, previous=before["split"])
        chunks = chunk(self.store, kept, parts, self.base, SETTINGS[2], as_of=as_of, previous=before["chunk"])
        return {"dedup": kept, "split": parts, "chunk": chunks}

    def members(self, increment: Ids) -> dict[str, set[str]]:
        read = {part: documents_of(self.store, increment["dedup"], increment["split"], part) for part in PARTS}
        return {part: {row["id"] for row in rows} for part, rows in read.items()}

    def part_of(self, increment: Ids, number: int) -> str:
        return next((part for part, ids in self.members(increment).items() if self.document(number) in ids), "")

    def some(self, increment: Ids, part: str) -> int:
        """A document of that split."""
        ids = self.members(increment)[part]
        return next(number for number in range(len(self.texts)) if self.document(number) in ids)

    def chunked(self, increment: Ids) -> dict[str, int]:
        """Documents by how many tokens of them are in chunks, of either split."""
        tokens: dict[str, int] = {}
        for shard in self.store.manifest(increment["chunk"]).shards_of("map"):
            for row in pq.read_table(self.store.local(shard.path)).to_pylist():
                tokens[row["document"]] = tokens.get(row["document"], 0) + row["num_tokens"]
        return tokens


@pytest.fixture
def corpus(store: Store, base: Base) -> GrowingCorpus:
    """Sixty documents; forty on the first run."""
    corpus = GrowingCorpus(store, base, texts(60, seed=3, words=7))
    corpus.increment(range(40))
    return corpus


def shards_of(store: Store, increment: Ids, stage: str) -> set[Shard]:
    return set(store.manifest(increment[stage]).shards)


def own(increment: Ids, stage: str, shards: set[Shard]) -> set[str]:
    return {shard.path.split("/")[1] for shard in shards if shard.path.startswith(increment[stage])}


# --- what is withdrawn -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_an_opt_out_takes_a_document_out_of_its_split_and_nothing_else(corpus: GrowingCorpus, part: str) -> None:
    (first,) = corpus.increments
    number = corpus.some(first, part)
    before = corpus.members(first)

    second = corpus.increment(range(40), opted_out={number: "meta:noai"})

    assert corpus.members(second) == {part: ids - {corpus.document(number)} for part, ids in before.items()}
    assert corpus.document(number) not in corpus.chunked(second)
    assert corpus.members(first) == before, "what is past is past"
    assert withdrawn_of(corpus.store, second["dedup"]) == {
        corpus.document(number): {
            "id": corpus.document(number), "url": url_of(number), "reason": "meta:noai", "since": RUNS[1],
        }
    }  # fmt: skip
    totals = corpus.store.manifest(second["dedup"]).totals
    assert (totals["withdrawn"], totals["newly_withdrawn"], totals["documents"]) == (1, 1, 40)
    sizes = corpus.store.manifest(second["split"]).totals
    assert {part: sizes[part] for part in PARTS} == {part: len(ids) for part, ids in corpus.members(second).items()}


def test_it_stays_withdrawn_though_nothing_links_to_it_any_more(corpus: GrowingCorpus) -> None:
    (first,) = corpus.increments
    number = corpus.some(first, "train")
    second = corpus.increment(range(40), opted_out={number: "robots:GPTBot"})
    third = corpus.increment(range(number))  # no row of it, nor of its neighbours
    assert set(withdrawn_of(corpus.store, third["dedup"])) == {corpus.document(number)}
    assert withdrawn_of(corpus.store, third["dedup"]) == withdrawn_of(corpus.store, second["dedup"])
    assert corpus.members(third) == corpus.members(second)
    assert shards_of(corpus.store, third, "chunk") == shards_of(corpus.store, second, "chunk")


def test_a_page_that_is_merely_gone_stays(corpus: GrowingCorpus) -> None:
    (first,) = corpus.increments
    second = corpus.increment(range(40), gone=(corpus.some(first, "train"), corpus.some(first, "test")))
    assert corpus.members(second) == corpus.members(first)
    assert withdrawn_of(corpus.store, second["dedup"]) == {}


def test_a_page_that_opted_out_before_it_was_ever_read_is_not_listed(corpus: GrowingCorpus) -> None:
    second = corpus.increment(range(45), opted_out={44: "meta:noai"})
    assert withdrawn_of(corpus.store, second["dedup"]) == {}
    assert corpus.part_of(second, 44) == ""


def test_what_one_source_says_no_to_is_not_learned_from_another(corpus: GrowingCorpus) -> None:
    """An archive still holds a page whose owner opts out: live there, opted out here, on one run."""
    store, as_of = corpus.store, RUNS[1]
    rows = [LedgerRow(url_of(7), "mill", "skipped", "ai_opt_out", opt_out="tdmrep")]
    rows += [LedgerRow(url_of(number), "archive", "unchanged") for number in (7, 41)]
    rows += [LedgerRow(url_of(41), "mill", "skipped", "ai_opt_out", opt_out="tdmrep")]
    with store.write("scrape-both", stage="scrape", version=1, parents=[], settings={}) as writer:
        write_ledger(writer.path(LEDGER_FILE), rows)
        writer.add(LEDGER_FILE, "ledger", len(rows))
        writer.totals = {"opted_out": 2}
    second = corpus._stages(as_of, corpus._strip(as_of, "scrape-both", [7, 41]))
    assert set(withdrawn_of(store, second["dedup"])) == {corpus.document(7), corpus.document(41)}
    assert corpus.part_of(second, 7) == corpus.part_of(second, 41) == ""


def test_every_version_of_a_page_goes_with_it(corpus: GrowingCorpus) -> None:
    number = corpus.some(corpus.increments[0], "train")
    old = corpus.document(number)
    corpus.texts[number] = corpus.texts[50]  # the page has become another text
    corpus.increment(range(40))
    third = corpus.increment(range(40), opted_out={number: "ai.txt"})
    assert set(withdrawn_of(corpus.store, third["dedup"])) == {old, corpus.document(number)}


def test_copies_of_what_is_withdrawn_stay_removed(corpus: GrowingCorpus) -> None:
    number = corpus.some(corpus.increments[0], "train")
    corpus.increment(range(40), opted_out={number: "meta:noai"})
    corpus.texts[50] = corpus.texts[number]  # somebody else shows the same text
    corpus.increment(range(40), opted_out={number: "meta:noai"})
    last = corpus.increment(range(51), opted_out={number: "meta:noai"})
    assert corpus.part_of(last, 50) == ""
    removed = [shard.path for shard in corpus.store.manifest(last["dedup"]).shards_of("removed")]
    keepers = {
        row["id"]: row["keeper"] for path in removed for row in pq.read_table(corpus.store.local(path)).to_pylist()
    }
    assert keepers[corpus.document(50)] == corpus.document(number)


# --- coming back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_a_page_without_opt_out_is_back_in_the_same_split(corpus: GrowingCorpus, part: str) -> None:
    (first,) = corpus.increments
    number = corpus.some(first, part)
    corpus.increment(range(45), opted_out={number: "meta:noai"})
    third = corpus.increment(range(45))
    assert withdrawn_of(corpus.store, third["dedup"]) == {}
    assert corpus.part_of(third, number) == part
    assert corpus.chunked(third) == {**corpus.chunked(corpus.increments[1]), **corpus.chunked(first)}
    fourth = corpus.increment(range(50))
    assert corpus.part_of(fourth, number) == part
    assert corpus.chunked(third).items() <= corpus.chunked(fourth).items()


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_only_the_files_with_a_withdrawn_document_are_made_anew(corpus: GrowingCorpus) -> None:
    first = corpus.increments[0]
    second = corpus.increment(range(60))
    number = next(candidate for candidate in range(40, 60) if corpus.part_of(second, candidate) == "train")

    third = corpus.increment(range(60), opted_out={number: "meta:noai"})

    was, now = (shards_of(corpus.store, increment, "chunk") for increment in (second, third))
    assert shards_of(corpus.store, first, "chunk") <= now, "the chunks of the first run are inherited"
    assert own(third, "chunk", now) == {"train-00000.arrow", "map-train-00000.parquet"}
    assert own(second, "chunk", was - now) == {"train-00000.arrow", "map-train-00000.parquet"}
    expected = corpus.chunked(second)
    del expected[corpus.document(number)]
    assert corpus.chunked(third) == expected
    for stage in ("dedup", "split"):
        kept = shards_of(corpus.store, second, stage)
        assert kept <= shards_of(corpus.store, third, stage), f"{stage} inherits everything"
    totals = corpus.store.manifest(third["chunk"]).totals
    held = sum(shard.rows for shard in now if shard.role == "train")
    assert totals["train_chunks"] == held
    assert totals["train_tokens"] == sum(training_tokens_of(corpus.store, third["chunk"]).values())
    assert (totals["new_train_documents"], totals["new_train_tokens"]) == (0, 0)


def test_a_run_without_opt_outs_is_named_and_made_as_ever(corpus: GrowingCorpus) -> None:
    """Ids as they were before opt-outs were looked at: inputs and settings, nothing else."""
    second = corpus.increment(range(45), gone=(3,))
    store, (first, _) = corpus.store, corpus.increments
    options = SETTINGS[0].model_dump()
    inputs = [f"strip-{RUNS[1]}", first["dedup"]]
    assert second["dedup"] == snapshot_id("dedup", stages.of("dedup").version, inputs=inputs, settings=options)
    assert (first, second) == GOLDEN
    assert not store.manifest(second["dedup"]).shards_of("withdrawn")
    assert not {"withdrawn", "newly_withdrawn"} & set(store.manifest(second["dedup"]).totals)
    assert shards_of(store, first, "chunk") < shards_of(store, second, "chunk")
    with_opt_out = corpus.increment(range(45), opted_out={0: "meta:noai"})
    inputs = [f"strip-{RUNS[2]}", second["dedup"]]
    assert with_opt_out["dedup"] != snapshot_id("dedup", stages.of("dedup").version, inputs=inputs, settings=options)


GOLDEN = (
    {"dedup": "dedup-4c5d6496bb3c88ff", "split": "split-b91339884a364a6e", "chunk": "chunk-70931e0d95b8e916"},
    {"dedup": "dedup-f1790b24d57bcb4a", "split": "split-e31620d92aef1e30", "chunk": "chunk-0b0c8a4cc14f2395"},
)


def test_nothing_left_to_test_on_says_why(corpus: GrowingCorpus) -> None:
    of_test = corpus.members(corpus.increments[0])["test"]
    held_out = [number for number in range(40) if corpus.document(number) in of_test]
    with pytest.raises(
        CorpusEmpty, match=rf"no document for test among 0 \({len(held_out)} were withdrawn by opt-outs"
    ):
        corpus.increment(range(40), opted_out=dict.fromkeys(held_out, "meta:noai"))


# --- what it means for models ----------------------------------------------------------------------------------------


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.model_validate({"name": "mill", "sources": [{"name": "mill", "urls": ["https://mill.example/"]}]})


def test_a_champion_that_learned_from_it_is_worth_replacing(corpus: GrowingCorpus, recipe: Recipe) -> None:
    store, (first,) = corpus.store, corpus.increments
    settings = dict(retrain_policy.training_settings(recipe))
    champion = make_model(store, 1, [first["chunk"]], settings)
    grown_from_it = make_model(store, 2, [corpus.increment(range(42))["chunk"], champion], settings)
    three = sorted(corpus.members(first)["train"])[:3]
    numbers = [number for number in range(40) if corpus.document(number) in three]

    held_out = corpus.some(first, "test")
    opted_out = dict.fromkeys([*numbers, held_out], "meta:noai")
    third = corpus.increment(range(42), opted_out=opted_out)

    for model in (champion, grown_from_it):
        assessment = retrain_policy.assess(store, third["chunk"], model, recipe)
        assert assessment.worth_training
        assert assessment.reason == "3 documents that the champion learned from were withdrawn"
        assert retractions.learned(store, third["chunk"], model) == three
        assert retractions.start_of(store, third["chunk"], model) == "", "more training does not make it forget"
    assert retractions.models_that_learned(store, three) == [champion, grown_from_it]
    assert retractions.models_that_learned(store, [corpus.document(held_out)]) == []
    assert set(retractions.newly(store, third["dedup"], RUNS[2])) == {*three, corpus.document(held_out)}

    clean = make_model(store, 3, [third["chunk"]], settings)
    assert not retrain_policy.assess(store, third["chunk"], clean, recipe).worth_training
    assert retractions.start_of(store, third["chunk"], clean) == clean
    fourth = corpus.increment(range(42), opted_out=opted_out)
    assert retractions.newly(store, fourth["dedup"], RUNS[3]) == {}
    assert not retrain_policy.assess(store, fourth["chunk"], clean, recipe).worth_training


def test_a_single_one_is_said_in_the_singular(corpus: GrowingCorpus, recipe: Recipe) -> None:
    learned = [corpus.increments[0]["chunk"]]
    champion = make_model(corpus.store, 1, learned, dict(retrain_policy.training_settings(recipe)))
    second = corpus.increment(range(40), opted_out={corpus.some(corpus.increments[0], "train"): "meta:noai"})
    assessment = retrain_policy.assess(corpus.store, second["chunk"], champion, recipe)
    assert assessment.reason == "1 document that the champion learned from was withdrawn"


def test_trace_says_that_it_was_withdrawn_and_who_learned_from_it(corpus: GrowingCorpus) -> None:
    store, (first,) = corpus.store, corpus.increments
    number = corpus.some(first, "train")
    champion = make_model(store, 1, [first["chunk"]], {})
    corpus.increment(range(40), opted_out={number: "robots:CCBot"})

    (page,) = Tracer(store).trace(url_of(number))
    (document,) = page.leads_to
    assert (page.facts["state"], page.facts["opt_out"]) == ("skipped", "robots:CCBot")
    facts = {key: document.facts[key] for key in ("withdrawn", "withdrawn_since", "split")}
    assert facts == {"withdrawn": "robots:CCBot", "withdrawn_since": RUNS[1], "split": "train"}
    assert page.facts["models"] == [champion]

    corpus.increment(range(number))  # no row in this run's ledger
    (step,) = Tracer(store).trace(url_of(number))
    assert (step.facts["withdrawn"], step.facts["models"]) == ("robots:CCBot", [champion])
