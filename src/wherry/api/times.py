"""Times on the wire. Inside, a time is nanoseconds since the epoch, 0 for never."""

from datetime import UTC, datetime

ZERO = "0001-01-01T00:00:00Z"
"""Go's zero time."""


def rfc3339(time_ns: int) -> str:
    """RFC 3339 with as many digits of the second as are needed, as Go's RFC3339Nano."""
    if time_ns == 0:
        return ZERO
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{text}{fraction}Z"


def rfc3339_seconds(time_ns: int) -> str:
    """RFC 3339 in whole seconds."""
    return rfc3339(time_ns - time_ns % 1_000_000_000) if time_ns else ZERO
