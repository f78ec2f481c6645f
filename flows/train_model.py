"""From chunks to a decision: finetune, evaluate, gate, register. The only flow that holds a GPU."""

from prefect import flow

from prosemill import bases, report
from prosemill.environment import tracking_uri
from prosemill.registry import Registry
from prosemill.report import Corpus, Trained
from prosemill.settings import Recipe
from tasks import reporting
from tasks.evaluating import evaluate_models
from tasks.finetune import finetune_model
from tasks.gate import judge, register
from tasks.submitting import submit


@flow(name="train-model", flow_run_name="{recipe.name} {as_of}", persist_result=True, result_serializer="json")
def train_model(recipe: Recipe, corpus: Corpus, as_of: str = "", store: str = "") -> Trained:
    """Train a challenger on a corpus and let it take over if it is shown to be better.

    Args:
        recipe: The recipe: where the text comes from, how the model is trained, when it takes over.
        corpus: What a run of build-corpus returned; normally filled in by retrain.
        as_of: The date of the corpus, ISO 8601; empty: the day of the run, UTC. The same date finds everything done.
        store: Folder or URL of the store; empty: PROSEMILL_STORE, else data/store.
    """
    as_of, opened = reporting.begin(as_of, store)
    url = opened.url
    base = bases.resolve(recipe.finetune.base)
    registry = Registry(url, tracking_uri())
    champion = registry.champion(recipe.name)
    start = champion.snapshot if champion and recipe.finetune.start == "champion" else ""
    clock = reporting.StageClock()

    identity = (recipe.finetune.base, base.weights_digest)
    tuned = submit(finetune_model, url, corpus["chunk"], *identity, recipe.finetune, start)
    challenger = clock.wait("finetune", tuned)[0]
    models = {"base": base.weights_digest, "challenger": challenger}
    if champion and champion.snapshot != challenger:
        models["champion"] = champion.snapshot
    previous = registry.previous(recipe.name)
    if previous and previous.snapshot not in models.values():
        models["previous"] = previous.snapshot
    before = opened.previous_run(recipe.name, as_of).get("evaluate", "")
    corpus_ids = (corpus["dedup"], corpus["split"])
    settings = (recipe.evaluate, recipe.chunk.chunk_tokens)
    scored = submit(
        evaluate_models, url, *corpus_ids, recipe.finetune.base, models, *settings, as_of, before, wait_for=[tuned]
    )
    clock.wait("evaluate", scored)
    decided = submit(judge, url, scored, recipe.gate, as_of)
    clock.wait("gate", decided)
    opened.require(challenger, scored.result(), decided.result())
    trained = Trained(
        finetune=challenger, evaluate=scored.result(), gate=decided.result(), model="", seconds=clock.seconds
    )
    # Before the promotion: a run that dies in between finds everything cached, and promotes then.
    opened.record_run(
        recipe.name, as_of, {**report.recorded(corpus), **report.judged_ids(trained), **report.manners(recipe)}
    )
    version = submit(register, url, tracking_uri(), recipe.name, tuned, scored, decided)
    (trained["model"],) = clock.wait("register", version)
    reporting.show_model(opened, recipe, trained["finetune"], trained["evaluate"], trained["gate"], trained["model"])
    return trained
