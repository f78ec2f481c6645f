"""Become `accelerate launch`, which starts the processes that train together. Started by `stage` with the child's job.

This process is replaced, not followed by another: so the workers' parent is known before they are, and all of them end
with the one that ends us.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from prosemill.runtime import subprocesses


def command(job_file: Path, num_processes: int, *, on_cpu: bool) -> list[str]:
    """`accelerate launch` for the processes of one machine; on CPUs, where it wants MPI, torch's own launcher."""
    program = ["-m", "prosemill.finetune.child", str(job_file)]
    if on_cpu:
        options = ["--standalone", "--nproc_per_node", str(num_processes)]
        return [sys.executable, "-m", "torch.distributed.run", *options, *program]
    options = ["--multi_gpu", "--num_processes", str(num_processes), "--num_machines", "1", "--main_process_port", "0"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]  # the learner sets them
    return [sys.executable, "-m", "accelerate.commands.launch", *options, *program]


def main(job_file: Path) -> None:
    import torch

    envelope = json.loads(job_file.read_text(encoding="utf-8"))
    subprocesses.die_with(envelope["parent"])
    ours = job_file.with_name("shared.json")
    ours.write_text(json.dumps({"parent": os.getpid(), "job": envelope["job"]}), encoding="utf-8")
    number = envelope["job"]["settings"]["num_processes"]
    program = command(ours, number, on_cpu=not torch.cuda.is_available())
    os.execv(program[0], program)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
