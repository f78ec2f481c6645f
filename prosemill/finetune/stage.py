"""Chunks and a base in, a fine-tuned model out: the half of it that runs in the caller's process, without torch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prosemill import progress
from prosemill.children import ChildDied, Message, run_child
from prosemill.errors import CorpusEmpty, TrainingError
from prosemill.records import Counts, snapshot_id
from prosemill.settings import Finetune
from prosemill.storage import SnapshotWriter, Store

if TYPE_CHECKING:
    from prosemill.bases import Base

log = logging.getLogger(__name__)

STAGE_VERSION = 1

# Two runs that differ in nothing else make the same model. What `start` led to is in the id itself.
_WITHOUT_EFFECT = {"checkpoint_minutes", "max_hours", "start"}


def finetune(
    store: Store, chunk: str, base: Base, settings: Finetune, *, start: str = "", flow_run_id: str = ""
) -> str:
    """Fine-tune `base`, or the model of the earlier fine-tune snapshot `start`, on the chunks of `chunk`.

    Goes on from the newest checkpoint of a run that was killed. Raises TrainingError, BaseModelError or CorpusEmpty.
    """
    identity = identity_settings(settings)
    inputs = [chunk, base.weights_digest, base.tokenizer_digest, start]
    # The base is in the inputs by its digest: the same files make the same model wherever they lie.
    named = {key: value for key, value in identity.items() if key != "base"}
    snapshot = snapshot_id("finetune", STAGE_VERSION, inputs=inputs, settings=named)
    if store.has(snapshot):
        return snapshot
    chunks = store.manifest(chunk).shards_of("train")
    num_chunks = sum(shard.rows for shard in chunks)
    if not num_chunks:
        raise CorpusEmpty(f"{chunk}: no chunk to train on; add sources or lower split.test_share and validation_share")
    with store.write(
        snapshot,
        stage="finetune",
        version=STAGE_VERSION,
        parents=[chunk, start] if start else [chunk],
        settings=identity,
        flow_run_id=flow_run_id,
    ) as writer:
        job = job_of(store, chunk, base, settings, start=start, work=store.work_folder(snapshot), output=writer.folder)
        writer.totals = _train(job, settings)
        writer.counts = Counts(seen=num_chunks, kept=num_chunks)
        _list_files(writer)
    store.drop_work_folder(snapshot)
    return snapshot


def identity_settings(settings: Finetune) -> dict[str, Any]:
    """The settings that decide what the model will be, as its manifest has them."""
    return settings.model_dump(mode="json", exclude=_WITHOUT_EFFECT)


def job_of(
    store: Store, chunk: str, base: Base, settings: Finetune, *, start: str, work: Path, output: Path
) -> dict[str, Any]:
    """What the child is told: local paths and settings."""
    manifest = store.manifest(chunk)
    return {
        "start": str(store.local(f"{start}/model") if start else base.folder),
        "tokenizer": str(base.folder),
        "train": [str(store.local(shard.path)) for shard in manifest.shards_of("train") if shard.rows],
        "validation": [str(store.local(shard.path)) for shard in manifest.shards_of("validation") if shard.rows],
        "settings": settings.model_dump(mode="json"),
        "work": str(work),
        "output": str(output),
    }


def _train(job: dict[str, Any], settings: Finetune) -> dict[str, Any]:
    """Run the child; the totals it tells."""
    totals: dict[str, Any] = {}

    def hear(message: Message) -> None:
        if "result" in message:
            totals.update(message["result"])
            return
        progress.report("finetune", message["step"], message["steps"])
        if message.get("resumed"):
            log.info("finetune: going on from step %d of %d", message["step"], message["steps"])
        for name in ("loss", "validation_loss"):
            if name in message:
                log.info("finetune: step %d/%d %s %.4f", message["step"], message["steps"], name, message[name])

    child_log = Path(job["work"]) / "log.txt"
    try:
        run_child(
            "prosemill.finetune.child", job, timeout_seconds=settings.max_hours * 3600, on_line=hear, log=child_log
        )
    except ChildDied as death:
        raise TrainingError(_explain(death, settings, child_log)) from death
    return totals


def _explain(death: ChildDied, settings: Finetune, child_log: Path) -> str:
    """One line on a training process that ended without saying why itself."""
    if death.timed_out:
        return (
            f"training took longer than finetune.max_hours {settings.max_hours:g} and was stopped; raise it and run "
            "the same command again: it goes on from the last checkpoint"
        )
    if death.returncode == -9:
        return (
            "the training process was killed (SIGKILL; mostly: the machine ran out of memory); lower "
            f"finetune.micro_batch_chunks (now {settings.micro_batch_chunks}) or run the same command again to go on"
        )
    return f"the training process died: {death.last_line or death}; its log is {child_log}"


def _list_files(writer: SnapshotWriter) -> None:
    for path in sorted((writer.folder / "model").iterdir()):
        writer.add(f"model/{path.name}", "model", 0)
    with open(writer.folder / "log.jsonl", "rb") as file:
        writer.add("log.jsonl", "log", sum(1 for _ in file))
