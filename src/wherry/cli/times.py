"""Points in time as users write them and as Docker prints them."""

from __future__ import annotations

import time

from wherry.cli.errors import StatusError, ValueRefused
from wherry.cli.values import parse_duration
from wherry.goquote import quote


def local_time(seconds: float) -> str:
    """Go's time.String() of a whole second: "2006-01-02 15:04:05 -0700 MST"."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def rfc3339(seconds: float) -> str:
    """ "2006-01-02T15:04:05Z07:00" in the user's time zone."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
    return text[:-5] + "Z" if text.endswith("+0000") else f"{text[:-2]}:{text[-2:]}"


def nanoseconds(text: str) -> tuple[int, int] | None:
    """An RFC 3339 time as (seconds, nanoseconds) since the epoch; None when it is none."""
    body, zone = text, "Z"
    if text.endswith("Z"):
        body = text[:-1]
    elif len(text) > 6 and text[-6] in "+-" and text[-3] == ":":
        body, zone = text[:-6], text[-6:]
    whole, _, fraction = body.partition(".")
    try:
        parsed = time.strptime(whole, "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return None
    from calendar import timegm

    seconds = timegm(parsed)
    if zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        seconds += offset if zone[0] == "-" else -offset
    return seconds, int((fraction or "0").ljust(9, "0")[:9])


def timestamp(text: str) -> str:
    """A time, a date or a duration ago, as the API's "seconds[.nanoseconds]"; raises StatusError."""
    try:
        duration = parse_duration(text)
    except ValueRefused:
        return _absolute(text)
    return str((time.time_ns() - duration) // 10**9)


def _absolute(text: str) -> str:
    seconds, _, fraction = text.partition(".")
    if seconds.isdigit() and (not fraction or fraction.isdigit()):
        return text
    has_zone = text.endswith("Z") or (len(text) > 6 and text[-6] in "+-" and text[-3] == ":")
    if has_zone:
        if moment := nanoseconds(text if "T" in text else f"{text[:10]}T00:00:00{text[10:]}"):
            return f"{moment[0]}.{moment[1]:09d}"
    else:
        body, _, fraction = text.partition(".")
        for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d"):
            try:
                return f"{int(time.mktime(time.strptime(body, form)))}.{(fraction or '0').ljust(9, '0')[:9]}"
            except ValueError:
                continue
    raise StatusError(f"failed to parse value as time or duration: {quote(text)}")
