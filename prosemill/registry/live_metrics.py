"""Live curves of a training in MLflow: loss, learning rate, speed, system metrics.

`Registry.record` goes on with the same MLflow run once there is a decision. System metrics come from MLflow's
own monitors (processors, memory, disk, network, GPUs), under the names by which its page of system metrics knows them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from prosemill.registry.compat import SystemMetrics
from prosemill.registry.registry import Registry

SYSTEM_SECONDS = 10.0  # between two looks at the machine, as in MLflow
CURVES = ("loss", "validation_loss", "learning_rate", "grad_norm", "tokens_per_second", "utilisation")


class LiveCurves:
    """One training of the model `name`, begun by the flow run `flow_run`; a run that is tried again goes on with it.

    Every method may raise RegistryError, where the MLflow server is away.
    """

    def __init__(self, registry: Registry, name: str, run_name: str, flow_run: str) -> None:
        self._registry = registry
        known = registry.find_run(name, "flow_run", flow_run) if flow_run else ""
        self.run = known or registry.open_run(name, run_name, {"flow_run": flow_run})
        self._machine = SystemMetrics(self.run, registry.uri, resumed=bool(known))
        self._looked_at = 0.0

    def log(self, messages: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Put points on the curves, from pairs of a time (ms since 1970) and a message of the training."""
        from mlflow.entities import Metric

        found = [
            Metric(name, float(message[name]), at, int(message["step"]))
            for at, message in messages
            for name in CURVES
            if name in message
        ]
        self._registry.add_to_run(self.run, [*found, *self._look()])

    def end(self, snapshot: str) -> None:
        """The training is over: it made `snapshot`, or failed if that is ""."""
        self._looked_at = 0.0
        self.log([])
        self._registry.close_run(
            self.run, "FINISHED" if snapshot else "FAILED", {"snapshot": snapshot} if snapshot else {}
        )

    def _look(self) -> list[Any]:
        """What the machine does, if it is time to look."""
        from mlflow.entities import Metric

        if time.monotonic() - self._looked_at < SYSTEM_SECONDS and self._looked_at:
            return []
        self._looked_at = time.monotonic()
        step, now = self._machine.step, int(time.time() * 1000)
        return [Metric(f"system/{name}", value, now, step) for name, value in self._machine.look().items()]
