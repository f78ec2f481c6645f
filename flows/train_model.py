"""From chunks to a decision: finetune, evaluate, gate, register. The only flow that holds a GPU."""

import logging
from typing import Any

from prefect import runtime

from flows import approval
from flows.support.reported import reported_flow
from prosemill.config.settings import AsOf, Recipe
from prosemill.gate import retrain_policy
from prosemill.lineage import retractions
from prosemill.models import bases
from prosemill.registry.registry import Registry
from prosemill.reporting import summary
from prosemill.reporting.summary import NOT_TRAINED, Corpus, TrainingRecord
from prosemill.runtime import gpu_lock
from prosemill.storage import write_once
from prosemill.storage.store import Store
from tasks.evaluation import evaluate_models
from tasks.finetune import finetune_model
from tasks.gate import register, run_gate
from tasks.support import reporting
from tasks.support.submitting import submit

log = logging.getLogger("prosemill.train_model")

BASE = "base"  # `against` where there is no champion yet


@reported_flow("train-model")
def train_model(
    recipe: Recipe, corpus: Corpus, as_of: AsOf = "", store: str = "", against: str = "", only_if_new: bool = False
) -> TrainingRecord:
    """Train a challenger on a corpus and let it take over if it is shown to be better.

    Args:
        recipe: The recipe: where the text comes from, how the model is trained, when it takes over.
        corpus: What a run of build-corpus returned; normally filled in by retrain.
        as_of: The date of the corpus, such as 2026-01-05; empty: today. The same date finds everything done.
        store: Folder or URL of the store; empty: PROSEMILL_STORE, else data/store.
        against: What the challenger has to beat: a finetune snapshot, or base; empty: the champion.
        only_if_new: Train nothing if the champion knows the new pages already.
    """
    as_of, opened = reporting.begin(as_of, store)
    url = opened.url
    base = bases.resolve(recipe.finetune.base)
    choice = _training_choice(opened, recipe, corpus, against, only_if_new)
    if not choice.get("worth_training", True):  # a run that an earlier version began has only its champion
        log.info("not worth training: %s", choice["reason"])
        return TrainingRecord(**{**NOT_TRAINED, "reason": choice["reason"]})
    champion = choice["champion"]
    start = retractions.start_of(opened, corpus["chunk"], champion) if recipe.finetune.start == "champion" else ""
    clock = reporting.StageClock(opened)

    with gpu_lock.held(f"{recipe.name}, run {runtime.flow_run.name}"):
        identity = (recipe.finetune.base, base.weights_digest)
        tuned = submit(finetune_model, url, corpus["chunk"], *identity, recipe.finetune, start)
        challenger = clock.wait("finetune", tuned)[0]
        models = _models_to_score(opened, recipe.name, base.weights_digest, challenger, champion)
        before = opened.previous_run(recipe.name, as_of).get("evaluate", "")
        corpus_ids = (corpus["dedup"], corpus["split"])
        settings = (recipe.evaluate, recipe.chunk.chunk_tokens)
        scored = submit(
            evaluate_models, url, *corpus_ids, recipe.finetune.base, models, *settings, as_of, before, wait_for=[tuned]
        )
        clock.wait("evaluate", scored)
    decided = submit(run_gate, url, scored, recipe.gate, as_of)
    clock.wait("gate", decided)
    opened.require(challenger, scored.result(), decided.result())
    reporting.show_scores(opened, recipe, challenger, scored.result())
    trained = TrainingRecord(
        finetune=challenger,
        evaluate=scored.result(),
        gate=decided.result(),
        model="",
        seconds=clock.seconds,
        reason="",
    )
    # Before the promotion: a run that dies in between finds everything cached, and promotes then.
    opened.record_run(
        recipe.name,
        as_of,
        {**summary.recorded(corpus), **summary.training_ids(trained), **summary.write_settings_record(recipe)},
    )
    parent = runtime.flow_run.parent_flow_run_id
    waits = str(parent or runtime.flow_run.id)
    version = submit(register, url, recipe.name, tuned, scored, decided, recipe.gate, waits)
    (trained["model"],) = clock.wait("register", version)
    reporting.show_model(opened, recipe, trained["finetune"], trained["evaluate"], trained["gate"], trained["model"])
    if recipe.gate.approval and not parent:
        approval.resolve_approval(opened, recipe.name, trained)
    return trained


def _training_choice(store: Store, recipe: Recipe, corpus: Corpus, against: str, only_if_new: bool) -> dict[str, Any]:
    """What this run trains against, and whether it trains; recorded once, before the GPU lock.

    champion: the finetune snapshot to beat, "" for the base. A run that is restarted after its promotion
    gets the same answer. worth_training, reason: the champion is asked if `only_if_new`.
    """

    def look() -> dict[str, Any]:
        champion = "" if against == BASE else against or _champion(store, recipe.name)
        new_text = retrain_policy.NewText(0, 0, True, "")
        if champion and only_if_new:
            counted = retrain_policy.assess(store, corpus["chunk"], champion, recipe)
            new_text = retrain_policy.ask_champion(store, corpus["chunk"], champion, recipe, counted)
        return {"champion": champion, "worth_training": new_text.worth_training, "reason": new_text.reason}

    return write_once.get_or_create(store, retrain_policy.choice_path(str(runtime.flow_run.id)), look)


def _models_to_score(store: Store, name: str, base: str, challenger: str, champion: str) -> dict[str, str]:
    """What the challenger is compared with, by label: each model once."""
    models = {"base": base, "challenger": challenger}
    if champion not in ("", challenger):
        models["champion"] = champion
    previous = Registry.open(store.url).previous(name)
    if previous and previous.snapshot not in models.values():
        models["previous"] = previous.snapshot
    return models


def _champion(store: Store, name: str) -> str:
    champion = Registry.open(store.url).champion(name)
    return champion.snapshot if champion else ""
