"""Where lineage events go: to a file below the store, always; and to a server, if one is named.

    <store>/openlineage/<day>/<run id>.<snapshot>.jsonl    one file a stage run, an event a line

A file has one writer, so runs on several machines need no lock, and a bucket no append. `cat openlineage/*/*.jsonl` is
the whole history in a form that any OpenLineage server takes.

The server (OPENLINEAGE_URL, or whatever transport OPENLINEAGE_CONFIG and OPENLINEAGE__TRANSPORT__… name) gets events
from a thread: no stage waits for it. If it does not answer, that is one warning, and it gets nothing for a minute;
the files have what it misses. A process that ends waits for it for at most five seconds.
"""

from __future__ import annotations

import atexit
import contextvars
import functools
import logging
import queue
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from prosemill.config import environment
from prosemill.storage import remote
from prosemill.storage.times import moment

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

log = logging.getLogger(__name__)

FOLDER = "openlineage"
MOST_WAITING = 1000  # events, two kilobytes each
PAUSE_SECONDS = 60.0  # that a server which failed is left alone
EXIT_SECONDS = 5.0


class Sink:
    """Takes the events of one stage run."""

    def __init__(self, fs: Any, root: str, name: str) -> None:
        self._fs = fs
        self._folder = f"{root}/{FOLDER}/{moment()[:10]}"
        self._path = f"{self._folder}/{name}.jsonl"
        self._lines: list[str] = []

    def take(self, event: RunEvent) -> None:
        """Write the event to the run's file and queue it for the server."""
        from openlineage.client.serde import Serde

        self._lines.append(Serde.to_json(event))
        if not remote.is_bucket(self._fs):
            self._fs.makedirs(self._folder, exist_ok=True)
        self._fs.pipe_file(self._path, "".join(f"{line}\n" for line in self._lines).encode())
        if environment.lineage_server():
            _sender().queue(event)


class _Sender:
    """A thread that sends events, in order, through the openlineage client."""

    def __init__(self) -> None:
        self._events: queue.Queue[tuple[contextvars.Context, RunEvent]] = queue.Queue(MOST_WAITING)
        self._idle = threading.Condition()
        self._unsent = 0
        self._rests_until = 0.0
        self._has_warned = False
        threading.Thread(target=self._work, name="openlineage", daemon=True).start()
        atexit.register(self._end)

    def queue(self, event: RunEvent) -> None:
        if time.monotonic() < self._rests_until:
            return
        with self._idle:
            self._unsent += 1
        try:
            self._events.put_nowait((contextvars.copy_context(), event))
        except queue.Full:
            self._done()
            self._warn(f"{MOST_WAITING} events wait for it already")

    def flush(self, seconds: float) -> bool:
        """Wait until everything is sent, or given up; False if that took longer."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._unsent, seconds)

    def _end(self) -> None:
        if not self.flush(EXIT_SECONDS):
            # The run is over: its page takes no more lines, and whoever sends them there shall not try.
            self._warn(f"no answer for {EXIT_SECONDS:g} s at the end", extra={"send_to_api": False})

    def _work(self) -> None:
        _be_quiet()
        client = None
        while True:
            context, event = self._events.get()
            try:
                if time.monotonic() >= self._rests_until:
                    if client is None:
                        from openlineage.client import OpenLineageClient

                        with environment.unchanged("OPENLINEAGE__"):
                            client = OpenLineageClient()
                    client.emit(event)
            except Exception as error:  # noqa: BLE001 - a server that is down, or settings that are wrong, cost no run
                client = None
                self._rests_until = time.monotonic() + PAUSE_SECONDS
                context.run(self._warn, f"{type(error).__name__}: {error}")  # on the page of the run whose event it was
            finally:
                self._done()

    def _done(self) -> None:
        with self._idle:
            self._unsent -= 1
            self._idle.notify_all()

    def _warn(self, why: str, extra: dict[str, bool] | None = None) -> None:
        if not self._has_warned:
            self._has_warned = True
            why = without_credentials(" ".join(why.split()))[:300]
            text = "no lineage events reach the server (%s); they are in the store, below %s"
            log.warning(text, why, FOLDER, extra=extra)


@functools.cache
def _sender() -> _Sender:
    return _Sender()


def flush(seconds: float) -> bool:
    """Wait until the server has all events so far, or was given up; False if it takes longer than that."""
    return _sender().flush(seconds) if _sender.cache_info().currsize else True


def without_credentials(text: str) -> str:
    """`text` with the user and password of its URLs, and their queries, left out."""
    return re.sub(r"(://[^?\s'\"]*)\?[^\s'\"]*", r"\1", re.sub(r"://[^/@\s]*@", "://", text))


def _be_quiet() -> None:
    """Let one warning of ours stand for the client's own, and for urllib3's about each try of this thread."""
    logging.getLogger("openlineage").setLevel(logging.CRITICAL)
    here = threading.get_ident()
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(lambda record: record.thread != here)
