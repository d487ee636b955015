"""Go's durations ("1h30m", "250ms") and Docker's timestamps (durations ago, RFC 3339, Unix seconds)."""

import re
from datetime import datetime

from wherry.errors import InvalidArgument

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PIECE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_UNIX = re.compile(r"(-?[0-9]+)(?:\.([0-9]{1,9}))?")
_TIME_FORMS = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d(?::\d\d(?::\d\d)?)?)?")


def parse(text: str) -> int:
    """A duration in nanoseconds. Raises `InvalidArgument` with Go's words."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    total = at = 0
    for match in _PIECE.finditer(rest):
        if match.start() != at:
            break
        whole, _, fraction = match.group(1).partition(".")
        unit = _UNITS[match.group(2)]
        total += int(whole or 0) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        at = match.end()
    if not at or at != len(rest) or total >= 1 << 63:
        raise InvalidArgument(f'time: invalid duration "{text}"')
    return -total if text.startswith("-") else total


def parse_timestamp(text: str, now_ns: int) -> int:
    """A moment in nanoseconds since 1970: a duration before `now_ns`, an RFC 3339 time or a beginning of one (local
    time when no zone is given), or Unix seconds. Raises `InvalidArgument`."""
    try:
        return now_ns - parse(text)
    except InvalidArgument:
        pass
    unix = _UNIX.fullmatch(text)
    if unix:
        return int(unix.group(1)) * 10**9 + int((unix.group(2) or "0").ljust(9, "0"))
    if not _TIME_FORMS.match(text):
        raise InvalidArgument(f'failed to parse value as time or duration: "{text}"')
    head, dot, tail = text.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789")) if dot else 0
    try:
        moment = datetime.fromisoformat(head + tail[digits:])
        return int(moment.timestamp()) * 10**9 + int((tail[:digits] or "0")[:9].ljust(9, "0"))
    except (ValueError, OverflowError):
        raise InvalidArgument(f'failed to parse value as time or duration: "{text}"') from None
