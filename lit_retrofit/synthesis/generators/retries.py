"""When a request may be sent again, and how long to wait before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0  # seconds; each wait is twice the one before
_LONGEST_TOLD = 600.0  # seconds that an endpoint may ask for
_AGAIN = (408, 409, 429)


def may_pass_later(status: int, headers: Mapping[str, str]) -> bool:
    """Whether the same request may be answered another time."""
    told = headers.get("x-should-retry")
    if told in ("true", "false"):
        return told == "true"
    return status in _AGAIN or status >= 500


def seconds_to_wait(attempt: int, headers: Mapping[str, str]) -> float:
    """Before the next sending.

    Args:
        attempt: how many sendings were repeated before.
        headers: of the response; ``Retry-After`` is taken in seconds or as a date.
    """
    told = _told(headers)
    return (
        min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT) if told is None else min(max(told, 0.0), _LONGEST_TOLD)
    )


def _told(headers: Mapping[str, str]) -> float | None:
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return float(milliseconds) / 1000
        if (after := headers.get("retry-after")) is None:
            return None
        if after.strip().replace(".", "", 1).isdigit():
            return float(after)
        return (parsedate_to_datetime(after) - datetime.now(timezone.utc)).total_seconds()
    except (ValueError, TypeError):
        return None


def rest(seconds: float, stopped: Callable[[], bool]) -> None:
    """Sleeps so long, or until ``stopped()``."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not stopped():
        time.sleep(min(left, 0.2))
