"""Signals of the monitor."""

import os
import signal
from collections.abc import Callable

from wherry.runtime.monitor.poller import POLLIN, Poller

_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def ignore_signals() -> None:
    """Nobody ends spawner or monitors by a signal that can be ignored."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)


def wake_on_child(poller: Poller, reap: Callable[[], None]) -> tuple[int, int]:
    """Call `reap` from the loop after children ended: SIGCHLD writes into a pipe, as it has a handler in Python,
    inherited from the spawner. Returns the pipe."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def readable(_: int) -> None:
        os.read(reader, 4096)
        reap()

    poller.watch(reader, POLLIN, readable)
    return reader, writer
