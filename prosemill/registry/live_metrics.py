"""Live curves of a training: loss, learning rate, speed, system metrics.

`Registry.record` goes on with the same run of the tracker once there is a decision.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prosemill.registry.registry import Registry
from prosemill.registry.tracker import Metric

SYSTEM_SECONDS = 10.0  # between two looks at the machine, as in MLflow
CURVES = ("loss", "validation_loss", "learning_rate", "grad_norm", "tokens_per_second", "utilisation")


class LiveCurves:
    """One training of the model `name`, begun by the flow run `flow_run`; a run that is tried again goes on with it.

    Every method may raise RegistryError, where the tracker cannot be reached.
    """

    def __init__(self, registry: Registry, name: str, run_name: str, flow_run: str) -> None:
        self._tracker = registry.tracker
        known = self._tracker.find_run(name, "flow_run", flow_run) if flow_run else ""
        self.run = known or self._tracker.open_run(name, run_name, {"flow_run": flow_run})
        self._machine = self._tracker.machine(self.run, resumes=bool(known))
        self._looked_at = 0.0

    def log(self, messages: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Put points on the curves, from pairs of a time (ms since 1970) and a message of the training."""
        points = [
            Metric(name, float(message[name]), at, int(message["step"]))
            for at, message in messages
            for name in CURVES
            if name in message
        ]
        self._tracker.add_metrics(self.run, [*points, *self._look()])

    def end(self, snapshot: str) -> None:
        """The training is over: it made `snapshot`, or failed if that is ""."""
        self._looked_at = 0.0
        self.log([])
        self._tracker.close_run(
            self.run, "FINISHED" if snapshot else "FAILED", {"snapshot": snapshot} if snapshot else {}
        )

    def _look(self) -> Sequence[Metric]:
        """What the machine does, if it is time to look."""
        if time.monotonic() - self._looked_at < SYSTEM_SECONDS and self._looked_at:
            return []
        self._looked_at = time.monotonic()
        return self._machine()
