"""The process that asks whether a champion knows the new pages already. Started by `prosemill.evaluating.known`."""

from __future__ import annotations

import logging
from pathlib import Path

from prosemill import children


def work(job: children.Message) -> None:
    """Tell the nats of each of job["texts"] under the model in job["folder"]."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with children.without("datasets", "scipy", "boto3"):
        import prosemill.yardsticks.modeling  # noqa: F401 - all that models need of transformers
    from prosemill.evaluating.score import score
    from prosemill.write import Writer

    writer = Writer(Path(job["folder"]))
    encoded = [[writer.end_of_text, *ids] for ids in writer.encode(job["texts"])]
    nats = score(
        writer.model,
        encoded,
        context_tokens=min(job["context_tokens"], writer.context_tokens),
        stride=job["stride"],
        batch_windows=job["batch_windows"],
    )
    children.tell(nats=nats)


if __name__ == "__main__":
    children.serve(work)
