"""From sources to chunks: scrape, strip, dedup, split, chunk. Needs no GPU and never imports torch."""

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from prosemill import bases, chunk, report, scrape, strip
from prosemill.report import Corpus
from prosemill.settings import Recipe
from tasks import reporting
from tasks.caching import in_batches
from tasks.chunk import chunk_documents
from tasks.dedup import remove_duplicates
from tasks.scrape import scrape_source
from tasks.split import split_keepers
from tasks.strip import merge_shards, strip_shards
from tasks.submitting import submit


@flow(
    name="build-corpus",
    flow_run_name="{recipe.name} {as_of}",
    task_runner=ThreadPoolTaskRunner(max_workers=4),  # type: ignore[arg-type]  # sources wait for the network
    persist_result=True,
    result_serializer="json",
)
def build_corpus(recipe: Recipe, as_of: str = "", store: str = "") -> Corpus:
    """Bring the corpus of a recipe up to a date.

    Args:
        recipe: The recipe: where the text comes from, how the model is trained, when it takes over.
        as_of: The date of the corpus, ISO 8601; empty: the day of the run, UTC. The same date finds everything done.
        store: Folder or URL of the store; empty: PROSEMILL_STORE, else data/store.
    """
    as_of, opened = reporting.begin(as_of, store)
    url = opened.url
    opened.check_writable()
    before = report.corpus_of(opened.previous_run(recipe.name, as_of))
    base = bases.resolve(recipe.finetune.base, need_weights=False)
    chunk.check_length(base, recipe.chunk)
    clock = reporting.StageClock()

    scraping = [
        submit(scrape_source, url, source, recipe.scrape, as_of, before["scrape"].get(source.name, ""), fingerprint)
        for source, fingerprint in ((source, scrape.fingerprint(source)) for source in recipe.sources)
    ]
    scraped = clock.wait("scrape", *scraping)
    warcs = in_batches(strip.shards_to_strip(opened, scraped))
    stripping = [submit(strip_shards, url, batch, recipe.strip, recipe.language, wait_for=scraping) for batch in warcs]
    clock.wait("strip", *stripping)
    stripped = submit(merge_shards, url, scraping, stripping, recipe.strip, recipe.language, as_of)
    clock.wait("strip", stripped)
    kept = submit(remove_duplicates, url, stripped, recipe.dedup, as_of, before["dedup"])
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
    opened.require(*report.snapshots_of(corpus))
    opened.record_run(recipe.name, as_of, {**opened.runs(recipe.name).get(as_of, {}), **report.recorded(corpus)})
    reporting.show_corpus(opened, recipe, corpus)
    return corpus
