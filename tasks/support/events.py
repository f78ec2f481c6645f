"""Events about a corpus and its models, sent to the Prefect server for automations and alerts.

    prosemill.corpus.updated     a corpus was brought up to a date; label prosemill.worth-training = yes | no
    prosemill.corpus.opted-out   pages that were live opt out now; label prosemill.learned = yes | no: a model knew them
    prosemill.corpus.partial     a source could not be read to its end
    prosemill.model.unwell       the champion needs retraining, or a person has to act
    prosemill.model.promoted · prosemill.model.refused · prosemill.approval.asked

The resource of each is "prosemill.corpus.<name>" or "prosemill.model.<name>". Of the first three, the label
`prosemill.by-itself` says whether build-corpus ran for itself (yes) or within another run, which goes on to train (no).
What starts a retraining listens to the former alone, or it would never end.

An event that cannot be sent is one line in the log; it never fails a run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.events import emit_event

CORPUS_UPDATED = "prosemill.corpus.updated"
CORPUS_OPTED_OUT = "prosemill.corpus.opted-out"
CORPUS_PARTIAL = "prosemill.corpus.partial"
MODEL_UNWELL = "prosemill.model.unwell"
MODEL_PROMOTED = "prosemill.model.promoted"
MODEL_REFUSED = "prosemill.model.refused"
APPROVAL_ASKED = "prosemill.approval.asked"

WORTH_TRAINING = "prosemill.worth-training"
LEARNED = "prosemill.learned"
BY_ITSELF = "prosemill.by-itself"
TAG = "prosemill"  # of every deployment, and so of its runs
MOST_URLS = 20  # named in an event; the others are in the snapshot

_log = logging.getLogger("prosemill.events")


def corpus_resource(name: str) -> str:
    return f"prosemill.corpus.{name}"


def model_resource(name: str) -> str:
    return f"prosemill.model.{name}"


def corpus_updated(
    name: str, *, as_of: str, new_documents: int, new_tokens: int, chunk: str, worth_training: bool, reason: str,
    by_itself: bool,
) -> bool:  # fmt: skip
    """New are the training documents that the champion has not learned from. Whether the event was sent, as always."""
    payload = {"as_of": as_of, "new_documents": new_documents, "new_tokens": new_tokens, "chunk": chunk}
    labels = {WORTH_TRAINING: _yes(worth_training), BY_ITSELF: _yes(by_itself)}
    return _emit(CORPUS_UPDATED, corpus_resource(name), {**payload, "reason": reason}, labels)


def corpus_opted_out(name: str, *, as_of: str, urls: Sequence[str], models: Sequence[str], by_itself: bool) -> bool:
    """`models`: finetune snapshots that learned from a page that is withdrawn now."""
    payload = {"as_of": as_of, "number": len(urls), "urls": list(urls[:MOST_URLS]), "models": list(models)}
    return _emit(
        CORPUS_OPTED_OUT, corpus_resource(name), payload, {LEARNED: _yes(bool(models)), BY_ITSELF: _yes(by_itself)}
    )


def corpus_partial(name: str, *, source: str, reason: str, by_itself: bool) -> bool:
    return _emit(
        CORPUS_PARTIAL, corpus_resource(name), {"source": source, "reason": reason}, {BY_ITSELF: _yes(by_itself)}
    )


def model_unwell(name: str, *, reason: str) -> bool:
    return _emit(MODEL_UNWELL, model_resource(name), {"reason": reason})


def promoted(name: str, *, model: str, reason: str, run: str) -> bool:
    """`model`: "name/version"; `run`: id of the flow run that decided."""
    return _emit(MODEL_PROMOTED, model_resource(name), {"model": model, "reason": reason, "run": run})


def refused(name: str, *, model: str, reason: str, run: str) -> bool:
    return _emit(MODEL_REFUSED, model_resource(name), {"model": model, "reason": reason, "run": run})


def approval_asked(name: str, *, model: str, reason: str, run: str) -> bool:
    """`run`: id of the flow run that waits for a person."""
    return _emit(APPROVAL_ASKED, model_resource(name), {"model": model, "reason": reason, "run": run})


def suspended(run: str) -> bool:
    """Send again the event of a suspended run, after which the server expects no heartbeat.

    A busy server may handle the last heartbeat after its own event and then marks the waiting run as crashed. Events of
    the run's process are handled in the order of its heartbeats, hence after them.
    """
    related = [{"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}]
    return _emit("prefect.flow-run.Suspended", f"prefect.flow-run.{run}", {}, related=related)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _emit(
    event: str,
    resource: str,
    payload: dict[str, Any],
    labels: Mapping[str, str] | None = None,
    related: Sequence[dict[str, str]] = (),
) -> bool:
    """Hand an event to Prefect, which sends it from a thread of its own; False when that could not be."""
    name = resource.rpartition(".")[2]
    described = {"prefect.resource.id": resource, "prefect.resource.name": name, **(labels or {})}
    try:
        sent = emit_event(event, resource=described, payload=payload, related=list(related))
    except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
        _log.warning("the event %s of %s was not sent: %s: %s", event, name, type(error).__name__, error)
        return False
    if sent is None:
        _log.warning("the event %s of %s was not sent: no Prefect server takes events here", event, name)
    return sent is not None
