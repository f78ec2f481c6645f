"""Traces through corpora of several runs: pages that were withdrawn or are gone, sentences that a model has bent."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prosemill.errors import RecipeError
from prosemill.lineage import passages
from prosemill.lineage.tracing import Tracer
from prosemill.reporting import attribution
from prosemill.storage.manifest import document_id
from prosemill.storage.schemas import CHUNK_MAP, DOCUMENT, LEDGER, SPLIT, WITHDRAWN
from prosemill.storage.store import Store
from prosemill.text.words import words
from tests.tiny import texts

Row = dict[str, Any]
TEXTS = texts(12, seed=3)
URLS = [f"https://mill.example/{number}" for number in range(len(TEXTS))]
IDS = [document_id(url, text) for url, text in zip(URLS, TEXTS, strict=True)]


def name(stage: str, increment: int) -> str:
    return f"{stage}-{increment:016x}"


def save(store: Store, stage: str, increment: int, parents: list[str], **tables: pa.Table) -> None:
    snapshot = name(stage, increment)
    as_of = f"2026-01-{increment:02}"
    with store.write(snapshot, stage=stage, version=1, parents=parents, settings={}, as_of=as_of) as w:
        for role, table in tables.items():
            pq.write_table(table, w.path(f"{role}.parquet"))
            w.add(f"{role}.parquet", role, table.num_rows)


def table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    blank = {column.name: "" if column.type == pa.string() else 0 for column in schema}
    return pa.Table.from_pylist([blank | row for row in rows], schema)


def increment(store: Store, number: int, *, withdrawn: tuple[int, ...] = (), gone: tuple[int, ...] = ()) -> None:
    """A run of all stages up to chunk, by hand: document 0 is held out, the others are trained on."""
    before = [number - 1] if number > 1 else []
    ledger = [
        {"url": url, "source": "mill", "state": "skipped" if place in withdrawn else "fetched"}
        for place, url in enumerate(URLS)
        if place not in gone
    ]
    scrapes = [name("scrape", earlier) for earlier in before]
    save(store, "scrape", number, scrapes, ledger=table(ledger, LEDGER))
    save(store, "strip", number, [name("scrape", number)], dropped=table([], DOCUMENT))
    keepers = [
        {"id": id, "url": url, "text": text, "title": f"Story {id[:4]}"}
        for id, url, text in zip(IDS, URLS, TEXTS, strict=True)
    ]
    opted_out = [
        {"id": IDS[place], "url": URLS[place], "reason": "meta:noai", "since": "2026-01-02"} for place in withdrawn
    ]
    roles = {"keepers": table(keepers, DOCUMENT), "withdrawn": table(opted_out, WITHDRAWN)}
    save(store, "dedup", number, [name("strip", number), *(name("dedup", earlier) for earlier in before)], **roles)
    splits = [
        {"id": id, "url": url, "split": "train" if place else "test"}
        for place, (id, url) in enumerate(zip(IDS, URLS, strict=True))
    ]
    parents = [name("dedup", number), *(name("split", earlier) for earlier in before)]
    save(store, "split", number, parents, assignments=table(splits, SPLIT))
    chunk = name("chunk", number)
    chunks = [
        {"chunk": f"{chunk}/train.parquet#{place}", "split": "train", "document": IDS[place], "url": URLS[place]}
        for place in range(1, len(IDS))
        if place not in withdrawn
    ]
    parents = [name("dedup", number), name("split", number), *(name("chunk", earlier) for earlier in before)]
    save(store, "chunk", number, parents, map=table(chunks, CHUNK_MAP), train=table(chunks, CHUNK_MAP))
    record = {stage: name(stage, number) for stage in ("strip", "dedup", "split", "chunk")}
    store.record_run("mill", f"2026-01-{number:02}", {**record, "scrape": {"mill": name("scrape", number)}})


def model(store: Store, number: int) -> str:
    save(store, "finetune", number, [name("chunk", number)])
    return name("finetune", number)


def test_a_sentence_that_a_model_has_bent_still_leads_to_its_page(store: Store) -> None:
    increment(store, 1)
    line = TEXTS[5].split(".")[0].split()
    for sentence, length in (
        (" ".join(line), 4),
        (f"Oh, {' '.join(line[:3])}!", 3),
        (f"Sing {' '.join(line[-2:])}", 2),
    ):
        matches = Tracer(store).trace(sentence)
        assert {step.leads_to[0].facts["run_words"] for step in matches} == {length}
        for step in matches:
            shared = passages.runs_of(words(sentence), length)
            (row,) = [text for text, url in zip(TEXTS, URLS, strict=True) if url == step.facts["closest"]]
            assert shared & passages.runs_of(words(row), length)
    best = Tracer(store).trace(". ".join(TEXTS[5].split(".")[:2]))[0]
    assert best.facts["closest"] == URLS[5]


def test_a_sentence_is_not_traced_to_what_no_model_was_trained_on(store: Store) -> None:
    increment(store, 1)
    assert URLS[0] not in {step.facts["closest"] for step in Tracer(store).trace(TEXTS[0])}
    with pytest.raises(RecipeError, match=r"nothing in .* answers to it"):
        Tracer(store).trace("xylophones quarrel")


def test_words_are_found_whatever_stands_between_them(tmp_path: Path) -> None:
    rows = [
        {"id": "latin", "url": "l", "text": "He said: «The miller —\n\nWAITS for (the) river…» and left."},
        {"id": "chinese", "url": "c", "text": "磨坊主，在等。河水！上涨"},
        {"id": "hindi", "url": "h", "text": "कहा: «चक्की वाला,\n\nनदी का (इंतज़ार)» करता है।"},
        {"id": "persian", "url": "p", "text": "آسیابان، منتظر رود می\u200cماند و می\u200cرود."},
        {"id": "tibetan", "url": "t", "text": "ཆུ་འཐག་པ། ཆུ་ལ་སྒུག"},
        {"id": "thai", "url": "y", "text": "คนโม่ “รอ” แม่น้ำ"},
    ]
    pq.write_table(pa.Table.from_pylist([dict.fromkeys(DOCUMENT.names, "") | row for row in rows]), tmp_path / "t")
    cases = {
        "latin": "the miller waits for the river",
        "chinese": "磨坊主在等河水上涨",
        "hindi": "चक्की वाला नदी का इंतज़ार करता है",
        "persian": "آسیابان منتظر رود میماند و می\u200cرود",
        "tibetan": "འཐག་པ་ཆུ་ལ་སྒུག",
        "thai": "คนโม่รอแม่น้ำ",
    }
    for document, sentence in cases.items():
        (nearest,) = passages.closest([tmp_path / "t"], sentence, 5, set(cases))
        assert (nearest.document, nearest.shared, nearest.run_words) == (document, 1.0, 4)
    assert passages.closest([tmp_path / "t"], "चाका वालू नदा का इंतज़ारी कर", 5, set(cases)) == []  # other vowels


def test_a_long_sentence_of_any_script_is_no_burden(tmp_path: Path) -> None:
    """RE2 refuses an expression that takes too much memory."""
    rng = random.Random(1)
    for letters in ("कखगमतनसर", "ابتثجح", "abcdef", "กขคงจ"):
        sentence = " ".join("".join(rng.choices(letters, k=12)) for _ in range(70))
        pq.write_table(
            pa.Table.from_pylist([dict.fromkeys(DOCUMENT.names, "") | {"id": "a", "text": f"… {sentence}!"}]),
            tmp_path / "t",
        )
        (nearest,) = passages.closest([tmp_path / "t"], sentence, 5, {"a"})
        assert nearest.shared == 1.0


def test_sentences_have_four_words_in_any_script() -> None:
    assert attribution.sentences_of("हिन्दी में। वह नदी के पास रहता है। नदी") == ["वह नदी के पास रहता है।"]
    assert attribution.sentences_of("Two words. Here are four words.") == ["Here are four words."]
    assert attribution.sentences_of("河水上涨了。好。") == ["河水上涨了。"]


def test_a_page_that_was_withdrawn_says_so_and_who_had_learned_from_it(store: Store) -> None:
    increment(store, 1)
    learned = model(store, 1)
    increment(store, 2, withdrawn=(4,))
    fresh = model(store, 2)
    tracer = Tracer(store)

    (page,) = tracer.trace(URLS[4])
    assert (page.facts["withdrawn"], page.facts["withdrawn_since"]) == ("meta:noai", "2026-01-02")
    assert page.facts["models"] == [learned]
    (document,) = tracer.trace(IDS[4])
    assert document.facts["withdrawn"] == "meta:noai"
    (old,), (new,) = tracer.trace(learned), tracer.trace(fresh)
    assert old.kind == "model"
    assert old.facts["withdrawn"] == [URLS[4]]
    assert "withdrawn" not in new.facts
    assert URLS[4] in old.facts["urls"]
    assert URLS[4] not in new.facts["urls"]
    assert (old.facts["documents"], new.facts["documents"]) == (11, 10)
    (other,) = tracer.trace(URLS[5])
    assert "withdrawn" not in other.facts
    assert other.facts["models"] == [learned, fresh]


def test_a_page_that_no_source_leads_to_any_more_is_still_found(store: Store) -> None:
    increment(store, 1)
    learned = model(store, 1)
    increment(store, 2, gone=(3,))
    (page,) = Tracer(store).trace(URLS[3])
    assert page.facts == {"state": "not in the newest scrape", "models": [learned]}
    assert page.leads_to[0].name == IDS[3]


def test_snapshots_of_many_runs_are_traced_both_ways(store: Store) -> None:
    for number in range(1, 9):
        increment(store, number)
    last = model(store, 8)
    (step,) = Tracer(store).trace(name("split", 1))
    assert step.facts["used_by"] == [name("chunk", 1), name("split", 2)]
    assert step.facts["models"] == [last]
    assert step.facts["descendants"] == {"chunk": 8, "finetune": 1, "split": 7}
    (newest,) = Tracer(store).trace(last)
    assert newest.facts["ancestors"] == dict.fromkeys(("chunk", "dedup", "scrape", "split", "strip"), 8)

    def size(step: Any) -> int:
        return 1 + sum(size(child) for child in step.leads_to)

    assert size(newest) == 10, "five stages of this run, and the run before as leaves"


def test_the_runs_page_leads_from_a_sentence_to_its_page(store: Store) -> None:
    increment(store, 1)
    first, second = TEXTS[5].split(".")[:2]
    texts = {"challenger": f"Once upon {first.strip()}.\n\n{second.strip()}. [x](javascript:alert) *boo* | and more"}
    with store.write("evaluate-1", stage="evaluate", version=1, parents=[], settings={}) as w:
        w.path("s.json").write_text(json.dumps([{"prompt": "Once upon", "seed": 0, "texts": texts}]))
        w.add("s.json", "samples", 1)
    markdown = attribution.sentence_markdown(store, "evaluate-1")
    assert f"> {first.strip()}." in markdown
    assert f"(<{URLS[5]}>) | 100% of its runs of 4 words | train | `{IDS[5]}` | `chunk-" in markdown
    assert "javascript" not in markdown or r"\[x\]" in markdown
    assert f'`prosemill trace "{first.strip()}."`' in markdown
