"""From sentence to page, as Markdown for the run's page: which pages the sentences of a new model are closest to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prosemill.lineage.tracing import TraceNode, Tracer
from prosemill.reporting import pages
from prosemill.storage.json_shards import read_json
from prosemill.storage.store import Store
from prosemill.text.words import words

LEAST_WORDS = 4
MOST_SENTENCES = 3
_END = re.compile(r"(?<=[.!?。！？।۔؟။།])\s*(?=\S)|\n+")


def sentence_markdown(store: Store, evaluation: str, model: str = "challenger") -> str:
    """The first sentences of the first sample that `model` wrote: each with the training pages it is closest to."""
    samples = read_json(store, evaluation, "samples")
    text = pages.visible(samples[0]["texts"].get(model, "")) if samples else ""
    written = text.removeprefix(samples[0]["prompt"]) if samples else ""
    sentences = sentences_of(written)[:MOST_SENTENCES] or sentences_of(text)[:1]
    if not sentences:
        return f"The {model} wrote no sentence to trace."
    tracer = Tracer(store)
    parts = [part for sentence in sentences for part in _section(tracer, sentence)]
    return "\n".join([*parts, "", f'The same of any sentence: `prosemill trace "{_plain(sentences[0])}"`'])


def sentences_of(text: str) -> list[str]:
    """Sentences of at least four words (or characters, where words run on), whitespace made single spaces."""
    sentences = (" ".join(sentence.split()) for sentence in _END.split(text))
    return [sentence for sentence in sentences if len(words(sentence)) >= LEAST_WORDS]


def _section(tracer: Tracer, sentence: str) -> Iterator[str]:
    yield f"> {_escaped(sentence)}\n"
    passages = list(tracer.closest(sentence))
    if not passages:
        yield "No training page shares two words in a row with it.\n"
        return
    yield "| closest page | shared | split | document | chunk |\n|---|---|---|---|---|"
    for passage in passages:
        for page in passage.leads_to:
            yield from (_row(page, document) for document in page.leads_to)
    yield ""


def _row(page: TraceNode, document: TraceNode) -> str:
    chunk = document.leads_to[0].name if document.leads_to else ""
    shared = f"{page.facts['shared_runs']:.0%} of its runs of {page.facts['run_words']} words"
    withdrawn = f" (withdrawn: {page.facts['withdrawn']})" if "withdrawn" in page.facts else ""
    cells = [_link(page.name, document.facts.get("title", "")) + withdrawn, shared, document.facts.get("split", "")]
    return "| " + " | ".join([*cells, f"`{document.name}`", f"`{chunk}`" if chunk else ""]) + " |"


def _link(url: str, title: str) -> str:
    """A link, if a browser can follow it from anywhere."""
    text = _escaped(title.strip() or url)
    return f"[{text}](<{url.replace('>', '%3E').replace('|', '%7C')}>)" if url.startswith("http") else f"{text} `{url}`"


def _escaped(text: str) -> str:
    """Text of a model or a page, escaped for Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~])", r"\\\1", " ".join(text.split()))


def _plain(text: str) -> str:
    return re.sub(r'["`$\\]', "", text)
