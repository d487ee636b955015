"""The lines of a pull or a push: what Docker's classic engine sends for each layer, and its bar."""

import time
from collections.abc import Callable
from typing import Any

Report = Callable[[dict[str, Any]], None]

_INTERVAL_S = 0.1
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SHORT = 12


def short(digest: str) -> str:
    """The id of a layer in progress lines."""
    return digest.partition(":")[2][:_SHORT]


def layer(status: str, digest: str) -> dict[str, Any]:
    """A line about a layer, without numbers."""
    return {"status": status, "progressDetail": {}, "id": short(digest)}


def moving(status: str, digest: str, current: int, total: int) -> dict[str, Any]:
    """A line about a layer of which `current` of `total` bytes are done."""
    return {**amount(status, current, total), "id": short(digest)}


def amount(status: str, current: int, total: int) -> dict[str, Any]:
    """A line about the one thing that moves."""
    detail = {"current": current, "total": total}
    return {"status": status, "progressDetail": detail, "progress": bar(current, total)}


def message(text: str) -> dict[str, Any]:
    """A line of its own."""
    return {"status": text}


def bar(current: int, total: int) -> str:
    """`[=====>      ]  1.2MB/3MB`."""
    if total <= 0:
        return f"{_human(current):>8}" if current > 0 else ""
    done = min(50, max(0, int(current / total * 100)) // 2)
    numbers = f"{_human(current):>8}" + (f"/{_human(total)}" if current <= total else "")
    return f"[{'=' * done}>{' ' * (50 - done)}] {numbers}"


def _human(size: float) -> str:
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.4g}{_UNITS[unit]}"


class Pace:
    """Lets a line through at most ten times a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _INTERVAL_S
        return True
