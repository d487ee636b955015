"""What pulls, loads and imports report, shown as Docker shows it: moving bars on a terminal, lines elsewhere."""

from __future__ import annotations

import os

from wherry.cli.errors import StatusError
from wherry.cli.session import write_all
from wherry.client.progress import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.client.http import Response


def show(response: Response, fd: int | None, on_aux: Callable[[dict[str, Any]], object] = bool) -> None:
    """Display a progress stream on `fd` (None: nowhere); raises StatusError when it reports a failure.

    `on_aux` gets what the engine says to programs.
    """
    display = _Terminal(fd) if fd is not None and os.isatty(fd) else None
    for message in messages(response.pieces()):
        _fail_on_error(message)
        if message.get("aux") is not None:
            on_aux(message["aux"])
            continue
        if fd is None:
            continue
        if display:
            display.show(message)
        elif line := _plain(message):
            write_all(fd, line.encode())


def _fail_on_error(message: dict[str, Any]) -> None:
    detail = message.get("errorDetail")
    if detail or message.get("error"):
        text = (detail or {}).get("message") or message.get("error") or "unknown error"
        raise StatusError(text)


def _prefix(message: dict[str, Any]) -> str:
    return f"{message['id']}: " if message.get("id") else ""


def _plain(message: dict[str, Any]) -> str:
    """A message as a line; "" for the steps of a bar."""
    if bar(message.get("progressDetail") or {}, 80):
        return ""
    if "stream" in message:
        return f"{_prefix(message)}{message['stream']}"
    if "status" in message:
        return f"{_prefix(message)}{message['status']}\n"
    return ""


def bar(detail: dict[str, Any], width: int) -> str:
    """The progress of one item: figures, and on a wide terminal a bar before them; "" when there is none."""
    from wherry.cli.units import human_size

    current, total = detail.get("current") or 0, detail.get("total") or 0
    if current <= 0 and total <= 0:
        return ""
    figures = f"{human_size(current):>8}"
    if total <= 0:
        return figures
    if current <= total:
        figures += f"/{human_size(total)}"
    done = min(int(current / total * 100) // 2, 50)
    box = f"[{'=' * done}>{' ' * (50 - done)}] " if width > 110 else ""
    return box if detail.get("hidecounts") else box + figures


class _Terminal:
    """One line per id, rewritten in place."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rows: dict[str, int] = {}
        try:
            self._width = os.get_terminal_size(fd).columns
        except OSError:
            self._width = 80

    def show(self, message: dict[str, Any]) -> None:
        detail = message.get("progressDetail")
        if "stream" in message or detail is None or not message.get("id"):
            self._rows.clear()
            write_all(self._fd, _plain({**message, "progressDetail": None}).encode())
            return
        key = message["id"]
        text = f"{key}: {message.get('status', '')} {bar(detail, self._width)}"
        room = "" if key in self._rows else "\n"
        self._rows.setdefault(key, len(self._rows))
        up = len(self._rows) - self._rows[key]
        write_all(self._fd, f"{room}\x1b[{up}A\x1b[2K\r{text}\r\x1b[{up}B".encode())
