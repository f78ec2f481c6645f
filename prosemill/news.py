"""Is there enough new to retrain for? Asked before any GPU is touched."""

from __future__ import annotations

from dataclasses import dataclass

from prosemill import report, withdrawn
from prosemill.corpus import training_tokens_of
from prosemill.settings import Recipe
from prosemill.storage import Store


@dataclass(frozen=True)
class News:
    """How much the champion has not yet learned from."""

    documents: int
    tokens: int
    worth_training: bool
    reason: str


def assess(store: Store, chunk: str, champion: str, recipe: Recipe) -> News:
    """Compare the training documents of `chunk` with those the champion (a finetune snapshot, "" for none) has seen.

    A champion that learned from what was withdrawn since is worth replacing, however little is new.
    """
    now = training_tokens_of(store, chunk)
    if not champion:
        return News(len(now), sum(now.values()), True, "there is no champion yet")
    known = {
        document
        for parent in report.training_parents(store, champion)
        for document in training_tokens_of(store, parent)
    }
    new = {document: tokens for document, tokens in now.items() if document not in known}
    documents, tokens = len(new), sum(new.values())
    if learned := len(withdrawn.learned(store, chunk, champion)):
        were = ("document", "was") if learned == 1 else ("documents", "were")
        return News(documents, tokens, True, f"{learned} {were[0]} that the champion learned from {were[1]} withdrawn")
    if store.manifest(champion).settings != training_settings(recipe):
        return News(documents, tokens, True, "the [finetune] settings differ from the champion's")
    wanted = max(1, recipe.gate.min_new_documents)
    if documents < wanted:
        found = f"{documents} new training documents ({tokens} tokens)" if documents else "no new training document"
        return News(documents, tokens, False, f"{found} since the champion was trained; it takes {wanted}")
    return News(documents, tokens, True, f"{documents} new training documents ({tokens} tokens)")


def training_settings(recipe: Recipe) -> dict[str, object]:
    from prosemill.finetune import identity_settings

    return identity_settings(recipe.finetune)
