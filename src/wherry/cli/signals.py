"""Signals as bytes in a pipe, so that one poll loop sees them beside the sockets."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # `signal` wraps it in enums, which cost 5 ms to import

_SYNONYMS = ("SIGCLD", "SIGPOLL", "SIGRTMIN", "SIGRTMAX")
SIGWINCH = _signal.SIGWINCH
# Not to be caught, or our own business: the interpreter's faults, children, a closed pipe, Go's preemption signal.
_OURS = frozenset(
    (
        _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGURG,
        _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL,
    )
)  # fmt: skip


def name_of(number: int) -> str:
    """ "INT" for 2; real-time signals by number."""
    for name in dir(_signal):
        if name.startswith("SIG") and name[3] != "_" and getattr(_signal, name) == number and name not in _SYNONYMS:
            return name.removeprefix("SIG")
    return str(number)


class SignalPipe:
    """Catches `numbers` (all forwardable ones when None) until close()."""

    def __init__(self, numbers: tuple[int, ...] | None = None) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._saved = {}
        for number in numbers or _forwardable():
            try:
                self._saved[number] = _signal.signal(number, lambda *_: None)
            except (OSError, ValueError):
                continue  # kept by the C library
            _signal.siginterrupt(number, False)

    def fileno(self) -> int:
        return self._read

    def take(self) -> list[int]:
        """The signals since the last call."""
        try:
            return list(os.read(self._read, 512))
        except BlockingIOError:
            return []

    def close(self) -> None:
        for number, handler in self._saved.items():
            _signal.signal(number, handler if handler is not None else _signal.SIG_DFL)
        _signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)


def _forwardable() -> list[int]:
    return [number for number in range(1, _signal.NSIG) if number not in _OURS]
