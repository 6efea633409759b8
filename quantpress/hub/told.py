"""Reads how long a Hub asks us to wait: from ``Retry-After``, from ``RateLimit``, or from its words."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

#: A Hub may ask for any number of seconds. We read no more than this.
_MOST = 86400.0
#: ``"api";r=0;t=55``: no request of this window is left, and the next window begins in 55 s.
_NOTHING_LEFT = re.compile(r"r=0\s*;\s*t=(\d+)")
_RETRY_IN = re.compile(r"retry this action in (?:about )?(\d+) (second|minute|hour)")
_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}


def seconds_told(retry_after: str, now: datetime) -> float | None:
    """Returns the seconds to wait by a ``Retry-After`` header: a number, or an HTTP date (RFC 9110, section 10.2.3).

    Returns None if the header is neither, 0 for a date in the past, and at most a day.
    """
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _MOST)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a second, or a time zone, may have too many digits for a C integer
        return None
    # A date with "-0000" gets no time zone. HTTP dates are in UTC.
    return min(max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()), _MOST)


def wait_told(response: httpx.Response) -> float | None:
    """Returns the seconds that the Hub asks us to wait, at most a day, or None if it does not say.

    huggingface.co sends the header ``RateLimit`` with a 429 (https://huggingface.co/docs/hub/rate-limits). It speaks of
    its limit of commits per hour in words only (braindecode issue 947 quotes them).
    """
    told = seconds_told(response.headers.get("Retry-After", ""), datetime.now(UTC))
    if told is None and (limit := _NOTHING_LEFT.search(response.headers.get("RateLimit", ""))):
        return min(float(limit[1]), _MOST)
    if told is None and (asked := _RETRY_IN.search(words(response))):
        return min(float(asked[1]) * _UNITS[asked[2]], _MOST)
    return told


def asks(told: float) -> str:
    """Returns how a message speaks of the wait that the Hub asks for."""
    return "it asks to wait a day or more" if told >= _MOST else f"it asks to wait {told:.0f} s"


def words(response: httpx.Response) -> str:
    """Returns what the Hub says in words: in a header, or in the body if the body was read."""
    text = response.headers.get("X-Error-Message") or (response.text if response.is_stream_consumed else "")
    return " ".join(text.split())
