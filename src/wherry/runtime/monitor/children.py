"""Children of the monitor: noticing their end."""

import os
import signal
from collections.abc import Callable

from wherry.linux import prctl
from wherry.runtime.monitor.poller import POLLIN, Poller


def wake_on_child(poller: Poller, reap: Callable[[], None]) -> None:
    """Call `reap` from the loop after children ended, and make orphans of our descendants our children."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _nothing)
    prctl.set_child_subreaper(True)

    def readable(_: int) -> None:
        os.read(reader, 4096)
        reap()

    poller.watch(reader, POLLIN, readable)


def _nothing(number: int, frame: object) -> None:
    """A handler in Python, so that the wakeup descriptor is written."""
