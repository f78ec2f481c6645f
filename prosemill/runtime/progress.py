"""Progress of a long piece of work, for one listener.

The core reports; the command draws a bar, a Prefect task updates an artifact, a test counts. One listener a process,
because stages run one after another and threads of a task runner must reach the same screen.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int, int | None], None]

_listener: Listener | None = None


def listen(listener: Listener | None) -> None:
    """Send every later report (what, done, total or None when unknown) to `listener`; None stops that."""
    global _listener
    _listener = listener


def report(what: str, done: int, total: int | None = None) -> None:
    if _listener is not None:
        _listener(what, done, total)


def track(what: str, items: Iterable[T], total: int | None = None) -> Iterator[T]:
    """Yield `items`, reporting after each."""
    for done, item in enumerate(items, start=1):
        yield item
        report(what, done, total)
