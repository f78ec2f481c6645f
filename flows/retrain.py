"""The scheduled parent: bring the corpus up to date; train only if there is something new to learn."""

from typing import Any, Literal

from prefect import flow, runtime
from prefect.deployments import run_deployment

from flows.build_corpus import build_corpus
from flows.train_model import train_model
from prosemill import news, report
from prosemill.environment import tracking_uri
from prosemill.registry import Registry
from prosemill.report import Corpus, Trained
from prosemill.settings import Recipe
from tasks import reporting

Place = Literal["this machine", "gpu pool"]


@flow(name="retrain", flow_run_name="{recipe.name} {as_of}", persist_result=True, result_serializer="json")
def retrain(recipe: Recipe, as_of: str = "", store: str = "", train_on: Place = "this machine") -> dict[str, Any]:
    """Scrape, clean, train, judge; the champion changes only if the challenger is shown to be better.

    Args:
        recipe: The recipe: where the text comes from, how the model is trained, when it takes over.
        as_of: The date of the corpus, ISO 8601; empty: the day of the run, UTC. The same date finds everything done.
        store: Folder or URL of the store; empty: PROSEMILL_STORE, else data/store.
        train_on: This machine, or the gpu work pool (a run of the deployment train-model/gpu).
    """
    as_of, opened = reporting.begin(as_of, store)
    url = opened.url
    opened.check_writable()
    with opened.one_run_at_a_time(recipe.name):
        corpus = build_corpus(recipe, as_of, url)
        champion = Registry(url, tracking_uri()).champion(recipe.name)
        found = news.assess(opened, corpus["chunk"], champion.snapshot if champion else "", recipe)
        if champion and not found.worth_training:
            outcome = report.nothing_new(opened, recipe, as_of, corpus, champion, found.reason)
        else:
            trained = _train(recipe, corpus, as_of, url, train_on)
            outcome = report.judged(opened, recipe, as_of, corpus, trained)
    reporting.show_outcome(opened, recipe, outcome)
    return outcome


def _train(recipe: Recipe, corpus: Corpus, as_of: str, store: str, train_on: Place) -> Trained:
    """Here, or as a run of its own on the GPU pool: a work pool belongs to a deployment, never to a task."""
    if train_on == "this machine":
        return train_model(recipe, corpus, as_of, store)
    child = run_deployment(
        "train-model/gpu",
        parameters={"recipe": recipe.model_dump(mode="json"), "corpus": corpus, "as_of": as_of, "store": store},
        idempotency_key=f"{runtime.flow_run.id}-train",  # a retry of this run finds the same child
    )
    trained: Trained = child.state.result()  # type: ignore[union-attr]
    return trained
