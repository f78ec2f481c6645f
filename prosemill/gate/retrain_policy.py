"""Whether there is enough new text to retrain: counted with the corpus; the champion is scored on the training side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prosemill.config.settings import Recipe
from prosemill.lineage import retractions
from prosemill.storage.ancestry import training_chunks
from prosemill.storage.corpus import training_tokens_of
from prosemill.storage.store import Store

if TYPE_CHECKING:
    from prosemill.evaluation.novelty import NoveltyInterval


@dataclass(frozen=True)
class NewText:
    """How much the champion has not yet learned from."""

    documents: int
    tokens: int
    worth_training: bool
    reason: str
    ids: frozenset[str] = frozenset()  # of those documents, where they are the only reason to train


def assess(store: Store, chunk: str, champion: str, recipe: Recipe) -> NewText:
    """Compare the training documents of `chunk` with those the champion (a finetune snapshot, "" for none) has seen.

    A champion that learned from what was withdrawn since is worth replacing, however little is new. No model is run.
    """
    now = training_tokens_of(store, chunk)
    if not champion:
        return NewText(len(now), sum(now.values()), True, "there is no champion yet")
    known = {document for parent in training_chunks(store, champion) for document in training_tokens_of(store, parent)}
    new = {document: tokens for document, tokens in now.items() if document not in known}
    documents, tokens = len(new), sum(new.values())
    if learned := len(retractions.learned(store, chunk, champion)):
        were = ("document", "was") if learned == 1 else ("documents", "were")
        return NewText(
            documents, tokens, True, f"{learned} {were[0]} that the champion learned from {were[1]} withdrawn"
        )
    if store.manifest(champion).settings != training_settings(recipe):
        return NewText(documents, tokens, True, "the [finetune] settings differ from the champion's")
    wanted = max(1, recipe.gate.min_new_documents)
    amount = f"{documents} new training documents ({tokens} tokens)" if documents else "no new training document"
    if documents < wanted or tokens < recipe.gate.min_new_tokens:
        short = f"{recipe.gate.min_new_tokens} tokens" if documents >= wanted else str(wanted)
        return NewText(documents, tokens, False, f"{amount} since the champion was trained; it takes {short}")
    return NewText(documents, tokens, True, amount, frozenset(new))


def ask_champion(store: Store, chunk: str, champion: str, recipe: Recipe, news: NewText) -> NewText:
    """`news`, unless the champion scores so much better on the new pages than on its test pages that it knows them.

    Runs the champion in a child process: seconds for a small model, minutes for a large one.
    """
    interval = _known(store, chunk, champion, recipe, news) if news.ids and recipe.gate.known_margin else None
    if interval is None:
        return news
    direction = "less" if interval.difference < 0 else "more"
    comparison = (
        f"the champion needs {abs(interval.difference):.3f} bits per byte {direction} "
        f"for them than for its test pages (95% interval {interval.low:+.3f} to {interval.high:+.3f})"
    )
    if interval.high < -recipe.gate.known_margin:
        return replace(news, worth_training=False, reason=f"{news.reason} hold little that is new: {comparison}")
    return replace(news, reason=f"{news.reason}; {comparison}")


def _known(store: Store, chunk: str, champion: str, recipe: Recipe, news: NewText) -> NoveltyInterval | None:
    from prosemill.evaluation.novelty import known

    dedup, split = store.manifest(chunk).parents[:2]
    model = store.local(f"{champion}/model")
    return known(store, model, (dedup, split), news.ids, recipe.evaluate, recipe.chunk.chunk_tokens)


def choice_path(run: str) -> str:
    """Path in the store where a flow run (its id) records whether it trains, so that a restart need not ask again."""
    return f"started/{run}.json"


def training_settings(recipe: Recipe) -> dict[str, object]:
    from prosemill.finetune import identity_settings

    return identity_settings(recipe.finetune)
