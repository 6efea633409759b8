"""Reads how long a Hub asks us to wait: from the headers ``Retry-After`` and ``RateLimit``, or from its message."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

#: The longest wait in seconds that the functions here return, one day. A Hub can ask for any number of seconds.
_MOST = 86400.0
#: Part of the header ``RateLimit``. ``"api";r=0;t=55`` means that no request is left in this period, and that the next
#: period begins in 55 s.
_NOTHING_LEFT = re.compile(r"r=0\s*;\s*t=(\d+)")
_RETRY_IN = re.compile(r"retry this action in (?:about )?(\d+) (second|minute|hour)")
_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}


def seconds_told(retry_after: str, now: datetime) -> float | None:
    """Returns the seconds to wait that a ``Retry-After`` header asks for, but at most a day.

    The header holds a number or an HTTP date (RFC 9110, section 10.2.3). If it holds neither, the result is None. If
    the date is in the past, the result is 0.
    """
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _MOST)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a number in the date can have too many digits for a C integer
        return None
    # A date with "-0000" has no time zone in Python. This date is read as UTC, because HTTP dates are in UTC.
    return min(max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()), _MOST)


def wait_told(response: httpx.Response) -> float | None:
    """Returns the seconds that the Hub asks us to wait, but at most a day, or None if the Hub does not say.

    huggingface.co sends the header ``RateLimit`` with a 429 (https://huggingface.co/docs/hub/rate-limits). For its
    limit of commits per hour, it sends only a message in words (quoted in braindecode issue 947).
    """
    told = seconds_told(response.headers.get("Retry-After", ""), datetime.now(UTC))
    if told is None and (limit := _NOTHING_LEFT.search(response.headers.get("RateLimit", ""))):
        return min(float(limit[1]), _MOST)
    if told is None and (asked := _RETRY_IN.search(words(response))):
        return min(float(asked[1]) * _UNITS[asked[2]], _MOST)
    return told


def asks(told: float) -> str:
    """Returns the part of an error message that says how long the Hub asks us to wait."""
    return "it asks to wait a day or more" if told >= _MOST else f"it asks to wait {told:.0f} s"


def words(response: httpx.Response) -> str:
    """Returns the message in an answer, from a header, or from the body if the body was already read."""
    text = response.headers.get("X-Error-Message") or (response.text if response.is_stream_consumed else "")
    return " ".join(text.split())
