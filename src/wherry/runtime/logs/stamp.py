"""Times in logs: RFC 3339 in UTC with nanoseconds, as text that also sorts."""

import time

_SECOND = 1_000_000_000
_LATEST_NS = 253402300799 * _SECOND  # the end of year 9999, the last the format can say


class Clock:
    """Formats times; the part down to the second is kept between calls, since most times share it."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def nano(self, time_ns: int) -> bytes:
        """Go's RFC3339Nano: the fraction without its trailing zeros, none when zero."""
        second, fraction = divmod(time_ns, _SECOND)
        if not fraction:
            return self._seconds(second) + b"Z"
        return self._seconds(second) + (b".%09d" % fraction).rstrip(b"0") + b"Z"

    def fixed(self, time_ns: int) -> bytes:
        """Always nine digits: times of equal length compare as bytes in the order of time."""
        second, fraction = divmod(min(max(time_ns, 0), _LATEST_NS), _SECOND)
        return self._seconds(second) + b".%09dZ" % fraction

    def _seconds(self, second: int) -> bytes:
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode("ascii")
        return self._text


def fixed(text: bytes) -> bytes:
    """Bring a time as `Clock.nano` wrote it to the form of `Clock.fixed`."""
    if len(text) == 30:
        return text
    seconds, _, fraction = text[:-1].partition(b".")
    return seconds + b"." + fraction.ljust(9, b"0") + b"Z"
