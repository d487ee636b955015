"""The user's terminal: its size, raw mode, and the keys that detach from a container."""

from __future__ import annotations

import os

from wherry.cli.errors import StatusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p ctrl-q
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def is_terminal(fd: int) -> bool:
    return os.isatty(fd)


def detach_keys(text: str) -> bytes:
    """ "ctrl-p,ctrl-q" or "a,b" as bytes; the default when empty. Raises StatusError with Docker's words."""
    if not text:
        return DEFAULT_DETACH_KEYS
    return bytes(_key(name, text) for name in text.split(","))


def _key(name: str, text: str) -> int:
    if len(name) == 1 and name.isascii():
        return ord(name)
    letter = name.removeprefix("ctrl-")
    if len(name) == 6 and letter != name:
        if letter.isascii() and letter.islower():
            return ord(letter) - ord("a") + 1
        if letter in _CONTROL:
            return _CONTROL[letter]
    raise StatusError(f"invalid detach keys ({text}): Unknown character: '{name}'")


class RawMode:
    """Puts a terminal into raw mode until restore(); does nothing to anything else."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None
        if not is_terminal(fd):
            return
        import termios

        self._saved = termios.tcgetattr(fd)
        mode = termios.tcgetattr(fd)
        mode[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[1] &= ~termios.OPOST
        mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(fd, termios.TCSANOW, mode)

    def restore(self) -> None:
        """Bring back the saved mode; harmless when repeated."""
        if self._saved is not None:
            import termios

            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
            self._saved = None


class DetachFilter:
    """Watches typed bytes for the detach keys, which the container must not see."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes to pass on, whether the keys were completed)."""
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                passed.append(byte)
        return bytes(passed), False
