"""Live view of a training: a progress artifact on the page of its run, and curves in the tracker.

Both are written by a thread of their own, every few seconds, so that a slow or absent server does not delay the
training; an update that could not be sent is one line in the log.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from prosemill.registry.live_metrics import LiveCurves
from prosemill.registry.registry import Registry

EVERY_SECONDS = 3.0
LEAVE_SECONDS = 20.0  # for the last update

_log = logging.getLogger("prosemill.live")


class LiveProgress:
    """To be called with each message of a training (`prosemill.finetune.stage.Listener`), within `with`.

    `name` is the model's; without one nothing is shown. `snapshot` is the id of what was trained, once
    it is known: a training that ends without it counts as failed.
    """

    def __init__(self, store: str, name: str) -> None:
        self.snapshot = ""
        self._name = name
        self._latest: dict[str, Any] = {}
        self._unread: deque[tuple[int, dict[str, Any]]] = deque()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._artifact: UUID | None = None
        self._curves: LiveCurves | None = None
        self._store, self._flow_run = store, str(runtime.flow_run.id or "")
        self._run_name = str(runtime.flow_run.name or name)
        self._silent: set[str] = set()

    def __call__(self, message: dict[str, Any]) -> None:
        self._latest = {**self._latest, **message}
        self._unread.append((int(time.time() * 1000), message))
        if self._thread is None and self._name:  # nothing is shown of a training that was found in the store
            context = contextvars.copy_context()  # Prefect knows by it which task run this is
            self._thread = threading.Thread(target=context.run, args=[self._follow], daemon=True, name="live")
            self._thread.start()

    def __enter__(self) -> LiveProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(LEAVE_SECONDS)

    def _follow(self) -> None:
        while True:
            is_last = self._over.is_set()
            self._try("Prefect", self._show)
            self._try("the tracker", self._draw)
            if is_last:
                break
            self._over.wait(EVERY_SECONDS)
        self._try("the tracker", self._end)

    def _show(self) -> None:
        latest = self._latest
        progress = 100.0 * latest["step"] / max(1, latest["steps"])
        text = described(latest, datetime.now(UTC), is_over=self._over.is_set())
        if self._artifact is None:
            key = f"{self._name}-training"
            self._artifact = create_progress_artifact(progress, key=key, description=text)  # type: ignore[assignment]
        else:
            update_progress_artifact(self._artifact, progress, description=text)

    def _draw(self) -> None:
        if self._curves is None:
            registry = Registry.open(self._store)
            self._curves = LiveCurves(registry, self._name, self._run_name, self._flow_run)
        self._curves.log([self._unread.popleft() for _ in range(len(self._unread))])

    def _end(self) -> None:
        if self._curves is not None:
            self._curves.end(self.snapshot)

    def _try(self, who: str, what: Callable[[], None]) -> None:
        if who in self._silent:
            return
        try:
            what()
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            self._silent.add(who)
            _log.warning("%s is not told how the training goes on: %s: %s", who, type(error).__name__, error)


def described(latest: dict[str, Any], now: datetime, *, is_over: bool) -> str:
    """One line for a person: where a training is, how well it learns, how fast, and when it ends."""
    parts = [f"step {latest['step']:,} of {latest['steps']:,}"]
    parts += [f"{name.replace('_', ' ')} {latest[name]:.3f}" for name in ("loss", "validation_loss") if name in latest]
    if "tokens_per_second" in latest:
        parts.append(f"{latest['tokens_per_second']:,.0f} tokens/s")
        parts.append(f"MFU {latest['utilisation']:.0%}")
    if is_over:
        parts.append("over")
    elif "seconds_left" in latest:
        left = timedelta(seconds=round(latest["seconds_left"]))
        parts.append(f"ends about {now + left:%H:%M} UTC, in {left}")
    return " · ".join(parts)
