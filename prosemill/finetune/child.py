"""The process that trains, or one of several (finetune.num_processes). Started by `prosemill.finetune.stage`."""

from __future__ import annotations

import logging

from prosemill import children

UNUSED = ("datasets", "scipy", "boto3")


def work(job: children.Message) -> None:
    """Train what `job` says, see `training.work`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with children.without(*UNUSED, *([] if job["settings"]["lora_rank"] else ["peft"])):
        from prosemill.finetune import training
    training.work(job)


if __name__ == "__main__":
    children.serve(work)
