"""From sources to chunks: scrape, strip, dedup, split, chunk. Needs no GPU and never imports torch."""

import logging

from prefect.context import FlowRunContext

from flows.support.reported import reported_flow
from flows.support.task_runners import ChosenTaskRunner
from prosemill import chunk, scrape, strip
from prosemill.config.settings import AsOf, Recipe
from prosemill.dedup import overrides
from prosemill.errors import ProsemillError
from prosemill.gate import retrain_policy
from prosemill.lineage import retractions
from prosemill.models import bases
from prosemill.operations import health
from prosemill.registry.registry import Registry
from prosemill.reporting import summary
from prosemill.reporting.summary import Corpus
from prosemill.storage.store import Store
from tasks.chunk import chunk_documents
from tasks.dedup import remove_duplicates
from tasks.scrape import patient
from tasks.split import split_keepers
from tasks.strip import merge_shards, strip_shards
from tasks.support import events, reporting
from tasks.support.caching import in_batches
from tasks.support.submitting import submit

log = logging.getLogger("prosemill.build_corpus")


@reported_flow("build-corpus", task_runner=ChosenTaskRunner())
def build_corpus(recipe: Recipe, as_of: AsOf = "", store: str = "") -> Corpus:
    """Bring the corpus of a recipe up to a date.

    Args:
        recipe: The recipe: where the text comes from, how the model is trained, when it takes over.
        as_of: The date of the corpus, such as 2026-01-05; empty: today. The same date finds everything done.
        store: Folder or URL of the store; empty: PROSEMILL_STORE, else data/store.
    """
    as_of, opened = reporting.begin(as_of, store)
    url = opened.url
    opened.check_writable()
    before = summary.corpus_of(opened.previous_run(recipe.name, as_of))
    base = bases.resolve(recipe.finetune.base, need_weights=False)
    chunk.check_length(base, recipe.chunk)
    clock = reporting.StageClock(opened)

    scrape_source = patient()
    scraping = [
        submit(scrape_source, url, source, recipe.scrape, as_of, before["scrape"].get(source.name, ""), fingerprint)
        for source, fingerprint in ((source, scrape.fingerprint(source)) for source in recipe.sources)
    ]
    scraped = clock.wait("scrape", *scraping)
    warcs = in_batches(strip.shards_to_strip(opened, scraped))
    stripping = [submit(strip_shards, url, batch, recipe.strip, recipe.language, wait_for=scraping) for batch in warcs]
    clock.wait("strip", *stripping)
    stripped = submit(merge_shards, url, scraping, stripping, recipe.strip, recipe.language, as_of, before["strip"])
    clock.wait("strip", stripped)
    taken_back = overrides.of(opened, recipe.name)
    kept = submit(remove_duplicates, url, stripped, recipe.dedup, as_of, before["dedup"], taken_back)
    clock.wait("dedup", kept)
    assigned = submit(split_keepers, url, kept, recipe.split, as_of, before["split"])
    clock.wait("split", assigned)
    chunked = submit(
        chunk_documents,
        url,
        kept,
        assigned,
        recipe.finetune.base,
        base.tokenizer_digest,
        recipe.chunk,
        as_of,
        before["chunk"],
    )
    clock.wait("chunk", chunked)

    corpus = Corpus(
        scrape=dict(zip((source.name for source in recipe.sources), scraped, strict=True)),
        strip=stripped.result(),
        dedup=kept.result(),
        split=assigned.result(),
        chunk=chunked.result(),
        seconds=clock.seconds,
    )
    opened.require(*summary.snapshots_of(corpus))
    opened.record_run(recipe.name, as_of, {**opened.runs(recipe.name).get(as_of, {}), **summary.recorded(corpus)})
    reporting.show_corpus(opened, recipe, corpus)
    _tell(opened, recipe, as_of, corpus)
    return corpus


def _tell(store: Store, recipe: Recipe, as_of: str, corpus: Corpus) -> None:
    """What happened to the corpus, as events for automations: partial sources, opt-outs, and whether to retrain."""
    run = FlowRunContext.get()
    by_itself = run is None or run.flow_run is None or run.flow_run.parent_task_run_id is None
    for source, reason in health.partial_sources(store, corpus).items():
        events.corpus_partial(recipe.name, source=source, reason=reason, by_itself=by_itself)
    for source, (was, now) in health.quarantined_sources(store, corpus).items():
        reason = f"quarantined: {now:,.0f} bytes of text a new page, {was:,.0f} before"
        events.corpus_partial(recipe.name, source=source, reason=reason, by_itself=by_itself)
    opted_out = retractions.newly(store, corpus["dedup"], as_of)
    if opted_out:
        models = retractions.models_that_learned(store, opted_out)
        urls = sorted(set(opted_out.values()))
        events.corpus_opted_out(recipe.name, as_of=as_of, urls=urls, models=models, by_itself=by_itself)
    try:
        champion = Registry.open(store.url).champion(recipe.name)
        new_text = retrain_policy.assess(store, corpus["chunk"], champion.snapshot if champion else "", recipe)
    except ProsemillError as error:  # a registry or old model that cannot be read does not fail a complete corpus
        log.warning("%s: whether the corpus is worth training on is not known: %s", recipe.name, error)
        return
    events.corpus_updated(
        recipe.name, as_of=as_of, new_documents=new_text.documents, new_tokens=new_text.tokens, chunk=corpus["chunk"],
        worth_training=new_text.worth_training, reason=new_text.reason, by_itself=by_itself,
    )  # fmt: skip
