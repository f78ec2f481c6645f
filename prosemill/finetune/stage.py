"""Chunks and a base in, a fine-tuned model out: the half of it that runs in the caller's process, without torch."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prosemill.config.settings import Finetune
from prosemill.errors import CorpusEmpty, TrainingError
from prosemill.finetune.replay import Replay, plan_replay
from prosemill.runtime import progress
from prosemill.runtime.subprocesses import ChildDied, Message, run_child
from prosemill.storage import atomic, stages
from prosemill.storage.manifest import Counts, snapshot_id
from prosemill.storage.store import SnapshotWriter, Store

if TYPE_CHECKING:
    from prosemill.models.bases import Base

log = logging.getLogger(__name__)

STAGE = stages.of("finetune")

# Two runs that differ in nothing else make the same model. What `start` led to is in the id itself.
_WITHOUT_EFFECT = {"checkpoint_minutes", "max_hours", "start"}
KILLED = -9

# step and steps always; loss, validation_loss, learning_rate, grad_norm, tokens_per_second, utilisation (share of the
# measured matrix peak) and seconds_left where they were just measured
Listener = Callable[[Message], None]


def finetune(
    store: Store,
    chunk: str,
    base: Base,
    settings: Finetune,
    *,
    start: str = "",
    flow_run_id: str = "",
    plan: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
) -> str:
    """Fine-tune `base`, or the model of the earlier fine-tune snapshot `start`, on the chunks of `chunk`.

    Goes on from the newest checkpoint of a run that was killed. `plan` (the totals of another such snapshot) makes its
    model again, to the bit on the same machine; without it a probe may choose another mode. `listener` hears what
    happens while it happens. Raises TrainingError, BaseModelError or CorpusEmpty.
    """
    identity = identity_settings(settings)
    replay = plan_replay(store, chunk, settings, start)
    inputs = [chunk, base.weights_digest, base.tokenizer_digest, start, *replay.parents, *filter(None, [replay.digest])]
    # The base is in the inputs by its digest: the same files make the same model wherever they lie. So is a text.
    by_digest = {"base", "replay"} if replay.digest else {"base"}
    named = {key: value for key, value in identity.items() if key not in by_digest}
    snapshot = snapshot_id(STAGE.name, STAGE.version, inputs=inputs, settings=named)
    if store.has(snapshot):
        return snapshot
    num_chunks = sum(shard.rows for shard in replay.train)
    if not num_chunks:
        raise CorpusEmpty(f"{chunk}: no chunk to train on; add sources or lower split.test_share and validation_share")
    with store.write(
        snapshot,
        stage=STAGE.name,
        version=STAGE.version,
        parents=[chunk, *filter(None, [start]), *replay.parents],
        settings=identity,
        flow_run_id=flow_run_id,
    ) as writer:
        with store.work_folder(snapshot) as work:
            job = job_of(
                store, chunk, base, settings, start=start, work=work, output=writer.folder, replay=replay, plan=plan
            )
            trained = _train(job, settings, listener)
        writer.totals = trained | ({"replay_sha256": replay.digest} if replay.digest else {})
        writer.counts = Counts(seen=num_chunks, kept=num_chunks)
        _list_files(writer)
    store.drop_work_folder(snapshot)
    return snapshot


def identity_settings(settings: Finetune) -> dict[str, Any]:
    """The settings that decide what the model will be, as its manifest has them."""
    return settings.model_dump(mode="json", exclude=_WITHOUT_EFFECT)


def job_of(
    store: Store,
    chunk: str,
    base: Base,
    settings: Finetune,
    *,
    start: str,
    work: Path,
    output: Path,
    replay: Replay | None = None,
    plan: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the child is told: local paths and settings."""
    manifest = store.manifest(chunk)
    replay = replay or plan_replay(store, chunk, settings, start)
    return {
        "start": str(store.local(f"{start}/model") if start else base.folder),
        "tokenizer": str(base.folder),
        "train": [str(store.local(shard.path)) for shard in replay.train if shard.rows],
        "replayed": [str(store.local(shard.path)) for shard in replay.replayed if shard.rows],
        "replay_texts": [str(path) for path in replay.texts],
        "validation": [str(store.local(shard.path)) for shard in manifest.shards_of("validation") if shard.rows],
        "settings": settings.model_dump(mode="json"),
        "plan": dict(plan) if plan else None,
        "work": str(work),
        "output": str(output),
    }


def _train(job: dict[str, Any], settings: Finetune, listener: Listener | None = None) -> dict[str, Any]:
    """Run the child, again with smaller micro-batches when memory ran out; the totals it tells.

    A child that was killed while the kernel killed none for want of memory is not run again here, since other
    micro-batches are other sums: whoever goes on from its checkpoint gets the weights of an unbroken run.
    """
    plan = Path(job["work"]) / "plan.json"
    while True:
        messages, num_before = _TrainingListener(listener), _num_killed_for_memory()
        try:
            _run(job, settings, messages)
        except (ChildDied, TrainingError) as error:
            was_killed = isinstance(error, ChildDied) and error.returncode == KILLED and not error.timed_out
            for_memory = was_killed and _num_killed_for_memory() != num_before
            if (messages.out_of_memory or for_memory) and (halved := _halve_micro_batch(plan)):
                log.warning("finetune: out of memory; going on with micro-batches of %d", halved)
                continue
            if isinstance(error, ChildDied):
                raise TrainingError(_explain(error, settings, Path(job["work"]) / "log.txt")) from error
            raise
        return messages.totals


class _TrainingListener:
    """Passes on what the child tells, and keeps what is needed afterwards."""

    def __init__(self, listener: Listener | None) -> None:
        self.listener = listener
        self.totals: dict[str, Any] = {}
        self.out_of_memory = False

    def __call__(self, message: Message) -> None:
        self.out_of_memory = self.out_of_memory or bool(message.get("out_of_memory"))
        if "result" in message:
            self.totals.update(message["result"])
        elif "micro_batch_chunks" in message:
            log.warning("finetune: out of memory; micro-batches of %d from here on", message["micro_batch_chunks"])
        elif "step" in message:
            self._report(message)

    def _report(self, message: Message) -> None:
        progress.report("finetune", message["step"], message["steps"])
        if message.get("resumed"):
            log.info("finetune: going on from step %d of %d", message["step"], message["steps"])
        for name in ("loss", "validation_loss"):
            if name in message:
                log.info("finetune: step %d/%d %s %.4f", message["step"], message["steps"], name, message[name])
        if self.listener is not None:
            self.listener(message)


def _run(job: dict[str, Any], settings: Finetune, messages: _TrainingListener) -> None:
    module = "prosemill.finetune.child" if settings.num_processes == 1 else "prosemill.finetune.launch"
    log_file = Path(job["work"]) / "log.txt"
    run_child(module, job, timeout_seconds=settings.max_hours * 3600, on_line=messages, log=log_file)


def _num_killed_for_memory() -> float:
    """How many processes the kernel has killed for want of memory since it started; nan where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return math.nan
    return next((float(line.split()[1]) for line in lines if line.startswith("oom_kill ")), math.nan)


def _halve_micro_batch(plan: Path) -> int:
    """Halve the micro-batch of the stored plan: its new size, 0 where there is no plan or nothing to halve."""
    if not plan.exists():
        return 0
    stored = json.loads(plan.read_text(encoding="utf-8"))
    stored["micro_batch_chunks"] //= 2
    if not stored["micro_batch_chunks"]:
        return 0
    atomic.write(plan, json.dumps(stored, indent=1))
    return int(stored["micro_batch_chunks"])


def _explain(death: ChildDied, settings: Finetune, child_log: Path) -> str:
    """One line on a training process that ended without saying why itself."""
    if death.timed_out:
        return (
            f"training took longer than finetune.max_hours {settings.max_hours:g} and was stopped; raise it and run "
            "the same command again: it goes on from the last checkpoint"
        )
    if death.returncode == KILLED:
        return (
            "the training process was killed (SIGKILL); run the same command again to go on from its last checkpoint; "
            f"if that happens again, lower finetune.micro_batch_chunks (now {settings.micro_batch_chunks})"
        )
    return f"the training process died: {death.last_line or death}; its log is {child_log}"


def _list_files(writer: SnapshotWriter) -> None:
    for path in sorted((writer.folder / "model").iterdir()):
        writer.add(f"model/{path.name}", "model", 0)
    with open(writer.folder / "log.jsonl", "rb") as file:
        writer.add("log.jsonl", "log", sum(1 for _ in file))
