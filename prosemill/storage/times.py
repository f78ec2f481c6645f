"""How moments are written: ISO 8601, UTC, with a Z at the end; such texts sort by time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal


def moment(at: datetime | None = None, timespec: Literal["seconds", "milliseconds", "microseconds"] = "seconds") -> str:
    """`at`, or now: "2026-01-05T21:30:00Z"."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def parse(text: str) -> datetime:
    """A date (its midnight) or date-time in ISO 8601, UTC where it does not say; ValueError."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
