"""The process that trains, or one of several (finetune.num_processes). Started by `prosemill.finetune.stage`."""

from __future__ import annotations

import logging

from prosemill.runtime import subprocesses

UNUSED = ("datasets", "scipy", "boto3")


def work(job: subprocesses.Message) -> None:
    """Train what `job` says, see `training.work`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with subprocesses.without(*UNUSED, *([] if job["settings"]["lora_rank"] else ["peft"])):
        from prosemill.finetune import training
    training.work(job)


if __name__ == "__main__":
    subprocesses.serve(work)
