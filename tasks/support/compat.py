"""What is used of Prefect beside its documented interface; `tests/test_compat.py` checks each of it."""

from __future__ import annotations

import logging

# What Prefect puts before the error's class and text in the message of a failed run.
FAILED_PREFIX = "Flow run encountered an exception: "


def run_page_handlers() -> list[logging.Handler]:
    """The handlers that bring the log lines of PREFECT_LOGGING_EXTRA_LOGGERS to the page of a run."""
    return list(logging.getLogger("prefect.extra").handlers)
