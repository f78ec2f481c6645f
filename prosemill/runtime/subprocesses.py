"""Work in a child process that can be killed: a reactor, a training run.

The parent calls `run_child("prosemill.x.child", job, …)`; that module ends with

    if __name__ == "__main__":
        subprocesses.serve(work)  # work(job) sends messages by subprocesses.send(step=1, …)

The child is a process group of its own. It dies with its parent (Linux: PR_SET_PDEATHSIG), on time-out, and when the
parent is interrupted. Messages are JSON objects, one a line, on what was its standard output; whatever else is printed
goes to its log. An error of `prosemill.errors` raised by the child is raised again in the parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from prosemill import errors
from prosemill.config import environment

Message = dict[str, Any]
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
LEAVE_SECONDS = 60  # torch takes 1 s to end, and over 5 s on a busy machine; ended by force, its work would be lost
POLL_SECONDS = 0.5  # how late a time-out, or an exception that another thread sent us, may be noticed

_out: IO[str] | None = None  # child only: the pipe to the parent
_running: set[threading.Event] = set()  # parent only: one for each child, set to have it stopped


class ChildDied(errors.ProsemillError):
    """The child ended badly and did not say why in an error of ours; `last_line` is the last line of its log."""

    def __init__(self, module: str, returncode: int, last_line: str, *, timed_out: bool = False) -> None:
        self.returncode, self.last_line, self.timed_out = returncode, last_line, timed_out
        how = "took too long and was stopped" if timed_out else f"ended with {_name_of(returncode)}"
        super().__init__(f"{module} {how}: {last_line or 'it printed nothing'}")


# --- parent ----------------------------------------------------------------------------------------------------------


def run_child(
    module: str,
    job: Mapping[str, Any],
    *,
    timeout_seconds: float,
    on_line: Callable[[Message], None],
    log: Path | None = None,
    grace_seconds: float = 5.0,
) -> None:
    """Run `python -m module` on `job` (JSON), calling `on_line` with each message, until it ends well.

    `log` (default: a temporary file) receives its standard error. Raises the child's own ProsemillError, or ChildDied.
    """
    with tempfile.TemporaryDirectory(prefix="prosemill-job-") as folder:
        log = log or Path(folder) / "log.txt"
        job_file = Path(folder) / "job.json"
        job_file.write_text(json.dumps({"parent": os.getpid(), "job": dict(job)}), encoding="utf-8")
        with open(log, "ab") as log_file:
            child = subprocess.Popen(
                [sys.executable, "-m", module, str(job_file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log_file,
                start_new_session=True,
                env=environment.of_child(),
                cwd=environment.CODE,  # not the user's folder, where libraries look for settings (.numba_config.yaml)
            )
        failure: errors.ProsemillError | None = None
        timed_out = False
        stop = threading.Event()
        _running.add(stop)
        try:
            for message in _messages(child, time.monotonic() + timeout_seconds, stop):
                if "error" in message:
                    failure = _error_of(message)
                else:
                    on_line(message)
        except TimeoutError:
            timed_out = True
        finally:
            _running.discard(stop)
            end_group(child, grace_seconds)
        if failure is not None:
            raise failure
        if timed_out or child.returncode != 0:
            raise ChildDied(module, child.returncode, last_line(log), timed_out=timed_out)


def stop_all() -> None:
    """Have every child of this process stopped, within half a second: for whoever catches Ctrl-C or a cancellation.

    The threads that wait for them raise `errors.Stopped`.
    """
    for stop in list(_running):
        stop.set()


def last_line(log: Path) -> str:
    """The last line of a log that holds anything (of its last 64 KB), at most 300 characters."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 65_536))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")[:300]


def _messages(child: subprocess.Popen[bytes], deadline: float, stop: threading.Event) -> Iterator[Message]:
    """Messages of the child until it closes its pipe and ends; TimeoutError at `deadline`, Stopped when told to."""
    assert child.stdout is not None  # we asked for a pipe
    handle, rest = child.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        while True:
            if time.monotonic() > deadline:
                raise TimeoutError
            if stop.is_set():
                raise errors.Stopped("stopped; run the same command again to go on from here")
            if not selector.select(POLL_SECONDS):
                continue
            read = os.read(handle, 65_536)
            if not read:
                break
            *lines, rest = (rest + read).split(b"\n")
            yield from (json.loads(line) for line in lines if line)
    with contextlib.suppress(subprocess.TimeoutExpired):  # `end_group` deals with one that closes its pipe and stays
        child.wait(LEAVE_SECONDS)


def ask_to_end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM to a child and its process group; several that are asked before they are ended end side by side."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)


def end_group(child: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """End a child that leads a process group, and everything it started."""
    if child.poll() is None:
        ask_to_end(child)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_seconds)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _error_of(message: Message) -> errors.ProsemillError:
    """The error that the child raised, as one of ours."""
    kind = getattr(errors, message["kind"], errors.ProsemillError)
    error: errors.ProsemillError = kind.__new__(kind)  # SnapshotMissing and others have constructors of their own
    Exception.__init__(error, message["error"])
    return error


def _name_of(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-returncode).name
    return f"signal {-returncode}"


# --- child -----------------------------------------------------------------------------------------------------------


def serve(work: Callable[[Message], None]) -> None:
    """Run `work` on the job named on the command line and exit: 0, or 1 after telling (or logging) what went wrong."""
    global _out
    envelope = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    die_with(envelope["parent"])
    sys.stdout.flush()
    _out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # so that no library's print is taken for a message
    try:
        work(envelope["job"])
    except errors.ProsemillError as error:
        send(error=str(error), kind=type(error).__name__)
        sys.exit(1)
    except Exception:  # noqa: BLE001 — the log's last line becomes the parent's message
        traceback.print_exc()
        sys.exit(1)


def send(**message: Any) -> None:
    """Send one message to the parent."""
    if _out is not None:
        _out.write(json.dumps(message) + "\n")
        _out.flush()


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Let packages look as if they were not installed, for what the block imports. Before the child has threads.

    transformers and accelerate import what they find, to work with it: of the time that training takes to start, a
    third.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: Python's own sign for no such module
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def be_silent() -> None:
    """Send no more messages: another process of the same child does."""
    global _out
    _out = None


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends, killed or not. Survives exec."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the parent's own clean-up has to do
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(1)


# --- programs of others ----------------------------------------------------------------------------------------------
# `python -m prosemill.runtime.subprocesses PARENT MODULE …` is `python -m MODULE …`, dying with PARENT

if __name__ == "__main__":
    die_with(int(sys.argv[1]))  # the setting survives exec
    # A Prefect worker ends by an interrupt that it sends to itself; what a shell starts in the background ignores it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
