"""The process that asks whether a champion knows the new pages already. Started by `prosemill.evaluation.novelty`."""

from __future__ import annotations

import logging
from pathlib import Path

from prosemill.runtime import subprocesses


def work(job: subprocesses.Message) -> None:
    """Tell the nats of each of job["texts"] under the model in job["folder"]."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with subprocesses.without("datasets", "scipy", "boto3"):
        import prosemill.models.baselines.modeling  # noqa: F401 - all that models need of transformers
    from prosemill.evaluation.score import score
    from prosemill.models.generation import Writer

    writer = Writer(Path(job["folder"]))
    encoded = [[writer.end_of_text, *ids] for ids in writer.encode(job["texts"])]
    nats = score(
        writer.model,
        encoded,
        context_tokens=min(job["context_tokens"], writer.context_tokens),
        stride=job["stride"],
        batch_windows=job["batch_windows"],
    )
    subprocesses.send(nats=nats)


if __name__ == "__main__":
    subprocesses.serve(work)
