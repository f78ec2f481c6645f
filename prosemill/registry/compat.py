"""What is used of MLflow beside its documented interface; `tests/test_compat.py` checks each of it."""

from __future__ import annotations


class SystemMetrics:
    """What MLflow's monitors see of this machine, in the names and the count of steps of its page of system metrics.

    MLflow's own thread would go on for as long as the process, and write to the server that the process names.
    """

    def __init__(self, run: str, tracking_uri: str, resumed: bool) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(run, tracking_uri=tracking_uri, resume_logging=resumed)
        self.step: int = self._monitor._logging_step  # of the next look: after those that the run has already

    def look(self) -> dict[str, float]:
        """Name and value of each figure at this moment, those of network and disk since the last look."""
        self._monitor.collect_metrics()
        seen = {name: float(value) for name, value in self._monitor.aggregate_metrics().items()}
        for monitor in self._monitor.monitors:
            monitor.clear_metrics()
        self.step += 1
        return seen
