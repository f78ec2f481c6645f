"""What a run shows on its page: funnel, ledger, scores, samples, decision and lineage as artifacts; times by stage."""

import logging
import time
from typing import Any

from prefect import runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.futures import PrefectFuture

from prosemill import children, pages, report
from prosemill.environment import store_url
from prosemill.report import Corpus
from prosemill.settings import Recipe
from prosemill.storage import Store


def begin(as_of: str, store: str) -> tuple[str, Store]:
    """The date and the store of a run, whose page gets the core's log from here on.

    The date is `as_of`, or else the day for which the run was scheduled (UTC): a retry after midnight is still last
    night's.
    """
    logging.getLogger("prosemill").setLevel(logging.INFO)
    date = report.checked_date(as_of) if as_of else str(runtime.flow_run.scheduled_start_time.date().isoformat())
    return date, Store(store_url(store))


class StageClock:
    """Seconds of waiting for each stage, as its user lives them: next to nothing where the cache answers."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def wait(self, stage: str, *futures: PrefectFuture[Any]) -> list[Any]:
        """The results, in order; the first failure is raised as it was."""
        try:
            results = [future.result() for future in futures]
        except Exception:
            raise
        except BaseException:  # Ctrl-C, a cancelled run: the task runner would wait for the children's own end
            children.stop_all()
            raise
        now = time.monotonic()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 2)
        self._last = now
        return results


def show_corpus(store: Store, recipe: Recipe, corpus: Corpus) -> None:
    create_table_artifact(
        key=f"{recipe.name}-funnel",
        table=pages.funnel_rows(report.funnel(store, corpus)),
        description="From pages to chunks: seen = kept + dropped, by reason.",
    )
    create_table_artifact(
        key=f"{recipe.name}-ledger",
        table=report.ledger_summary(store, corpus),
        description="What became of every URL that was met.",
    )
    create_markdown_artifact(
        key=f"{recipe.name}-lineage",
        markdown=pages.lineage_markdown(store, report.snapshots_of(corpus)),
        description="Which snapshot was made from which.",
    )


def show_model(store: Store, recipe: Recipe, finetune: str, evaluation: str, decision: str, model: str) -> None:
    create_table_artifact(
        key=f"{recipe.name}-scores",
        table=pages.score_rows(report.score_table(store, evaluation)),
        description=f"Scores on the test split, {model}.",
    )
    create_markdown_artifact(
        key=f"{recipe.name}-samples",
        markdown=pages.samples_markdown(store, evaluation),
        description="The same prompts and seed before and after.",
    )
    create_markdown_artifact(
        key=f"{recipe.name}-decision",
        markdown=pages.decision_markdown(store, decision, model),
        description="The gate's decision with its numbers.",
    )
    create_markdown_artifact(
        key=f"{recipe.name}-lineage",
        markdown=pages.lineage_markdown(store, [finetune, evaluation, decision]),
        description="Which snapshot was made from which.",
    )


def show_outcome(store: Store, recipe: Recipe, outcome: dict[str, Any]) -> None:
    create_markdown_artifact(
        key=f"{recipe.name}-outcome",
        markdown=pages.outcome_markdown(outcome),
        description="What this run came to.",
    )
