"""What a run shows: its log in the store, artifacts on its page, the core's log lines, its name."""

import logging
import re
import time
from typing import Any

from prefect import Flow, runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.futures import PrefectFuture

from prosemill.config.environment import store_url
from prosemill.config.settings import Recipe
from prosemill.registry.registry import Registry
from prosemill.reporting import attribution, overview, pages, summary
from prosemill.reporting.graph import ancestry
from prosemill.reporting.summary import Corpus
from prosemill.runtime import subprocesses
from prosemill.storage import run_log
from prosemill.storage.corpus import withdrawn_of
from prosemill.storage.run_log import RunLog
from prosemill.storage.store import Store
from prosemill.storage.times import moment
from tasks.support import restarts
from tasks.support.compat import FAILED_PREFIX, run_page_handlers

log = logging.getLogger("prosemill.stages")

# Of the names of runs; retrain is the run itself.
_SUFFIX = {"build-corpus": " corpus", "train-model": " training", "check-health": " health"}


def run_name() -> str:
    """ "stories 2026-01-05 training": for every flow that takes a recipe."""
    parameters = runtime.flow_run.parameters
    date = parameters.get("as_of") or _scheduled_date()
    return f"{_of_recipe(parameters, 'name')} {date}{_SUFFIX.get(str(runtime.flow_run.flow_name), '')}"


def recipe_name() -> str:
    """Of the recipe that this run was given, "" where it was given none."""
    return _of_recipe(runtime.flow_run.parameters, "name")


def begin(as_of: str, store: str) -> tuple[str, Store]:
    """The date and the store of a run, whose page gets the core's log, and whose own log begins, from here on.

    The date is `as_of`, or else the day for which the run was scheduled (UTC): a retry after midnight still has the
    date of the day before.
    """
    _show_core_log()
    restarts.begin()
    date = summary.checked_date(as_of) if as_of else _scheduled_date()
    opened = Store(store_url(store))
    this = runtime.flow_run
    if this.id:
        name = _of_recipe(this.parameters, "name")
        run_log.begin(
            opened,
            RunLog(
                str(this.id),
                str(this.flow_name),
                str(this.name),
                name,
                date,
                moment(timespec="milliseconds"),
                parent=_parent(),
            ),
        )
    return date, opened


def ended(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Complete the log of a run; one that did not come to its end gets a page that says why, and what it reached.

    A hook for every final state of a flow; where its process was killed, the worker calls it.
    """
    opened = Store(store_url(str(flow_run.parameters.get("store", ""))))
    kind = "CANCELLED" if state.is_cancelling() else state.type.value  # whose hooks are called on the way there
    changes = {"state": kind, "ended": moment(timespec="milliseconds"), "name": flow_run.name}
    if not state.is_completed():
        changes["reason"] = _in_words(state.message or "")
    run = run_log.end(opened, str(flow_run.id), **changes)
    if run is None or state.is_completed() or run.flow not in run_log.MAKERS:
        return
    stages = run_log.stages_of(opened, run)
    _put(flow_run, f"{run.recipe}-report", pages.failure_markdown(opened, run, stages), "The run on one page.")
    if not run.parent:
        text = _landing(opened, run.recipe, flow_run.parameters, run.id)
        _put(flow_run, run.recipe, text, _LANDING)


class StageClock:
    """Seconds that the run waited for each stage: next to nothing on a cache hit."""

    def __init__(self, store: Store) -> None:
        self.seconds: dict[str, float] = {}
        self._store = store
        self._last = time.monotonic()

    def wait(self, stage: str, *futures: PrefectFuture[Any]) -> list[Any]:
        """The results, in order; the first failure is raised as it was."""
        try:
            results = [future.result() for future in futures]
        except Exception:
            raise
        except BaseException:  # Ctrl-C, a cancelled run: the task runner would wait for the children's own end
            subprocesses.stop_all()
            raise
        now = time.monotonic()
        seconds = now - self._last
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 2)
        self._last = now
        for row in run_log.add(self._store, str(runtime.flow_run.id), stage, run_log.snapshots_in(results), seconds):
            log.info("%s", summary.stage_line(self._store, row))
        return results


def show_corpus(store: Store, recipe: Recipe, corpus: Corpus) -> None:
    create_table_artifact(
        key=f"{recipe.name}-funnel",
        table=pages.funnel_rows(summary.funnel(store, corpus)),
        description="From pages to chunks: seen = kept + dropped, by reason.",
    )
    create_table_artifact(
        key=f"{recipe.name}-ledger",
        table=summary.ledger_summary(store, corpus),
        description="What became of every URL that was met.",
    )
    if withdrawn := withdrawn_of(store, corpus["dedup"]):
        create_table_artifact(
            key=f"{recipe.name}-withdrawn",
            table=list(withdrawn.values()),
            description="Documents whose page opts out now: kept out of training and tests since then.",
        )
    _show_lineage(store, recipe, summary.snapshots_of(corpus))
    _show_landing(store, recipe.name)


def show_scores(store: Store, recipe: Recipe, finetune: str, evaluation: str) -> None:
    """What a person sees of a challenger before deciding."""
    create_table_artifact(
        key=f"{recipe.name}-scores",
        table=pages.score_rows(summary.score_table(store, evaluation)),
        description="Scores on the test split, with 95 % intervals.",
    )
    create_markdown_artifact(
        key=f"{recipe.name}-plots",
        markdown=pages.plots_markdown(store, finetune, evaluation),
        description="Loss by step, and the perplexity of each model.",
    )
    create_markdown_artifact(
        key=f"{recipe.name}-samples",
        markdown=pages.samples_markdown(store, evaluation),
        description="The same prompts and seed before and after.",
    )


def show_model(store: Store, recipe: Recipe, finetune: str, evaluation: str, decision: str, model: str) -> None:
    """The decision on a challenger whose scores are shown already."""
    create_markdown_artifact(
        key=f"{recipe.name}-decision",
        markdown=pages.decision_markdown(store, decision, model),
        description=f"The gate's decision on {model}, with its numbers.",
    )
    create_markdown_artifact(
        key=f"{recipe.name}-trace",
        markdown=attribution.sentence_markdown(store, evaluation),
        description="From sentence to page: what the new model writes, and the pages it is closest to.",
    )
    _show_lineage(store, recipe, [decision, evaluation, finetune])
    _show_landing(store, recipe.name)


def show_health(name: str, rows: list[dict[str, str]]) -> None:
    create_table_artifact(
        key=f"{name}-health",
        table=rows,
        description="What was looked at, how it is, and what to do.",
    )


def show_report(store: Store, recipe: Recipe, report: dict[str, Any]) -> None:
    run = str(runtime.flow_run.id or "")
    fields = {"decision": report["decision"], "model": report["model"], "reason": report["reason"]}
    logged = run_log.end(store, run, **fields)
    log.info("%s %s: %s", report["decision"], report["model"], report["reason"])
    create_markdown_artifact(
        key=f"{recipe.name}-report",
        markdown=pages.report_markdown(report, logged.stages if logged else ()),
        description="The run on one page.",
    )
    snapshots = report["snapshots"]
    _show_lineage(store, recipe, [snapshots[stage] for stage in ("gate", "evaluate", "chunk") if stage in snapshots])
    _show_landing(store, recipe.name)


def show_question(store: Store, name: str, decision: str, model: str, sentence: str, markdown: str) -> None:
    """An artifact that says that a run is about to wait for a person, and what for."""
    run_log.end(store, str(runtime.flow_run.id), decision=decision, model=model, reason=sentence)
    create_markdown_artifact(
        key=f"{name}-approval",
        markdown=markdown,
        description="To be answered: at the top of this run's page, ⋮, Resume.",
    )
    _show_landing(store, name)


_LANDING = "The corpus and its models over time."


def _show_lineage(store: Store, recipe: Recipe, snapshots: list[str]) -> None:
    create_markdown_artifact(
        key=f"{recipe.name}-lineage",
        markdown=pages.lineage_markdown(store, ancestry(store, snapshots)),
        description="Which snapshot was made from which, and by which run.",
    )


def _show_landing(store: Store, name: str) -> None:
    """For runs that no other run started."""
    if _parent():
        return
    text = _landing(store, name, runtime.flow_run.parameters, str(runtime.flow_run.id or ""))
    create_markdown_artifact(key=name, markdown=text, description=_LANDING)


def _landing(store: Store, name: str, parameters: dict[str, Any], run: str) -> str:
    versions = Registry.open(store.url).list_versions(name)
    description = _of_recipe(parameters, "description")
    return overview.landing_markdown(store, name, versions, description=description, current=run)


def _put(run: FlowRun, key: str, markdown: str, description: str) -> None:
    """An artifact of a run, also from outside of it."""
    with get_client(sync_client=True) as client:
        client.create_artifact(
            ArtifactCreate(key=key, type="markdown", description=description, data=markdown, flow_run_id=run.id)
        )


def _show_core_log() -> None:
    """Send the core's log to the run's page, whatever the logging settings of the worker that started this process."""
    logger = logging.getLogger("prosemill")
    logger.setLevel(logging.INFO)
    for handler in run_page_handlers():
        if handler not in logger.handlers:
            logger.addHandler(handler)


def _scheduled_date() -> str:
    return str(runtime.flow_run.scheduled_start_time.date().isoformat())


def _of_recipe(parameters: dict[str, Any], key: str) -> str:
    """A text of the recipe among the parameters of a run, "" where there is none."""
    recipe = parameters.get("recipe") or {}
    return str(getattr(recipe, key) if isinstance(recipe, Recipe) else recipe.get(key, ""))


def _parent() -> str:
    """The flow run that started this one, "" for none."""
    return str(runtime.flow_run.parent_flow_run_id or "")


def _in_words(message: str) -> str:
    """ "StoreBusy: …" of "Flow run encountered an exception: StoreBusy: …"."""
    return re.sub(rf"^{FAILED_PREFIX}(\w+Error: )?", "", " ".join(message.split()))
