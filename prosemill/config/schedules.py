"""What a schedule and a job may look like: checked when a recipe is read, not when a server refuses them at night."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import JsonValue

_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|AUTH_STRING|(API|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)
_SOME_DAY = datetime(2026, 1, 1)  # any will do: a schedule that never comes round does so from every day


def checked_cron(cron: str) -> str:
    """`cron` if it is "" or a schedule of five fields that comes round; ValueError otherwise."""
    if cron and len(cron.split()) != 5:
        raise ValueError(f"{cron!r} has {len(cron.split())} fields; minute hour day month weekday are needed")
    try:
        if cron:
            next(CronSim(cron, _SOME_DAY))
    except CronSimError as error:
        raise ValueError(f"{cron!r} is not a schedule ({error}); for every night at three write '0 3 * * *'") from None
    except StopIteration:
        raise ValueError(f"{cron!r} never comes round") from None
    return cron


def checked_timezone(timezone: str) -> str:
    """`timezone` if the machine knows it, such as Europe/Berlin; ValueError with the nearest name otherwise."""
    try:
        ZoneInfo(timezone)
    except (ValueError, OSError, KeyError):  # a malformed name, a folder of zones, an unknown name
        near = difflib.get_close_matches(timezone, available_timezones(), n=1)
        raise ValueError(f"{timezone!r} is not a time zone{f'; did you mean {near[0]!r}?' if near else ''}") from None
    return timezone


def checked_job(job: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """`job` if it may be stored for everybody to read: Prefect keeps job variables in plain text."""
    env = job.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise ValueError("env must be a table of strings")
    secret = next((name for name in env if _SECRET.search(name)), "")
    if secret:
        raise ValueError(
            f"env.{secret} looks like a secret, and job variables are stored in plain text: set it in the environment "
            "of the worker; on Kubernetes, in the Secret that the job variable secret_name names"
        )
    return job
