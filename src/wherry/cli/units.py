"""Durations and sizes as people read them, with go-units' wording and rounding."""

from __future__ import annotations

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def human_duration(seconds: float) -> str:
    """ "5 minutes", "About an hour", "3 weeks"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for limit, unit, name in (
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{int(seconds / 3600) // 24 // 365} years"


def human_size(size: float, precision: int = 4, *, binary: bool = False) -> str:
    """A size in powers of 1000 (or 1024) with `precision` significant digits: "1.98MB"."""
    base, names = (1024.0, _BINARY_SIZES) if binary else (1000.0, _SIZES)
    index = 0
    value = float(size)
    while value >= base and index < len(names) - 1:
        value /= base
        index += 1
    return f"{value:.{precision}g}{names[index]}"


def short_size(size: float) -> str:
    """Three digits, as `images` and `history` show sizes."""
    return human_size(size, 3)
