"""Parse submission times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo


def parse_timestamp(text: str) -> str | None:
    """Convert a time to ISO 8601 in UTC; None if it cannot be parsed or its zone is not known.

    Args:
        text: ISO 8601, or a time as nbgrader writes it: `2026-10-01 23:59:00.000000 UTC`, `... America/Los_Angeles`,
            `... +0200`. A time without a zone is in UTC.

    >>> parse_timestamp("2026-10-01 16:59:00.000000 America/Los_Angeles")
    '2026-10-01T23:59:00+00:00'
    """
    words = text.split()
    try:
        if len(words) == 3:
            time = datetime.fromisoformat(" ".join(words[:2])).replace(tzinfo=_zone(words[2]))
        else:
            time = datetime.fromisoformat(" ".join(words))
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        return time.isoformat()
    except (ValueError, OSError, OverflowError, LookupError):
        return None


def _zone(name: str) -> timezone | ZoneInfo:
    if name.lstrip("+-").isdecimal():  # +0530
        minutes = 60 * (abs(int(name)) // 100) + abs(int(name)) % 100
        return timezone(timedelta(minutes=minutes) * (-1 if name.startswith("-") else 1))
    return ZoneInfo(name)
