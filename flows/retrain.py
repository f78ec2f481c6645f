"""The scheduled parent: bring the corpus up to date; train only if there is something new to learn."""

from typing import Any

from prefect import runtime

from flows import approval
from flows.build_corpus import build_corpus
from flows.support.gpu_handover import cancel_with_child, train_elsewhere
from flows.support.reported import reported_flow
from flows.train_model import BASE, train_model
from prosemill.config.settings import AsOf, Recipe
from prosemill.gate import retrain_policy
from prosemill.registry.registry import Registry
from prosemill.reporting.run_report import nothing_new, with_decision
from prosemill.reporting.summary import NOT_TRAINED, Corpus, TrainingRecord
from prosemill.storage import write_once
from prosemill.storage.store import Store
from tasks.support import reporting


@reported_flow("retrain", cancelled=(cancel_with_child,))
def retrain(recipe: Recipe, as_of: AsOf = "", store: str = "", train_on: str = "") -> dict[str, Any]:
    """Scrape, clean, train, evaluate, decide; the champion changes only if the challenger is shown to be better.

    Args:
        recipe: The recipe: where the text comes from, how the model is trained, when it takes over.
        as_of: The date of the corpus, such as 2026-01-05; empty: today. The same date finds everything done.
        store: Folder or URL of the store; empty: PROSEMILL_STORE, else data/store.
        train_on: The deployment that trains, such as train-model/our-docs on the gpu pool; empty: this process.
    """
    as_of, opened = reporting.begin(as_of, store)
    url = opened.url
    opened.check_writable()
    with opened.one_run_at_a_time(recipe.name):
        corpus = build_corpus(recipe, as_of, url)
        news = _look_for_news(opened, recipe, corpus)
        trained = NOT_TRAINED
        if news["worth_training"]:
            trained = _train(recipe, corpus, as_of, opened, train_on, news["champion"] or BASE)
        if trained["finetune"]:
            read_state = approval.resolve_approval(opened, recipe.name, trained) if recipe.gate.approval else None
            report = with_decision(opened, recipe, as_of, corpus, trained, read_state)
        else:
            champion = Registry.open(url).version_of(recipe.name, news["champion"])
            reason = trained["reason"] or news["reason"]
            report = nothing_new(opened, recipe, as_of, corpus, champion, reason)
    reporting.show_report(opened, recipe, report)
    return report


def _look_for_news(store: Store, recipe: Recipe, corpus: Corpus) -> dict[str, Any]:
    """What is new to the champion, recorded once, so that a run restarted after its promotion gets the same answer.

    champion (its finetune snapshot, "" for none), worth_training, reason.
    """

    def look() -> dict[str, Any]:
        champion = Registry.open(store.url).champion(recipe.name)
        new_text = retrain_policy.assess(store, corpus["chunk"], champion.snapshot if champion else "", recipe)
        return {
            "champion": champion.snapshot if champion else "",
            "worth_training": champion is None or new_text.worth_training,
            "reason": new_text.reason,
        }

    return write_once.get_or_create(store, retrain_policy.choice_path(str(runtime.flow_run.id)), look)


def _train(recipe: Recipe, corpus: Corpus, as_of: str, store: Store, train_on: str, against: str) -> TrainingRecord:
    """Here, or as a run of its own on the GPU pool: a work pool belongs to a deployment, never to a task."""
    if not train_on:
        return train_model(recipe, corpus, as_of, store.url, against, only_if_new=True)
    parameters = {
        "recipe": recipe.model_dump(mode="json"), "corpus": corpus, "as_of": as_of, "store": store.url,
        "against": against, "only_if_new": True,
    }  # fmt: skip
    return train_elsewhere(train_on, parameters, store, recipe.name, as_of)
