"""A network namespace made in advance: making one takes a millisecond and a thread, which a start need not wait for.

It has lo, which is up, and belongs to nobody: nothing but a descriptor of this process holds it, so that a crash leaves
none behind. The kernel gives a new namespace copies of the host's settings; one that has waited long is not used.
"""

import os
import threading
import time

from wherry.linux import netns
from wherry.network import endpoints

_FRESH_S = 60.0


class Spare:
    """At most one namespace. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._made = 0.0

    def make(self) -> None:
        """Make one unless it is there. Raises OSError."""
        if self._fd is None:
            self._put(netns.make(endpoints.bring_up_loopback))

    def take(self) -> int | None:
        """The namespace's descriptor, the caller's to close; None when there is none."""
        with self._lock:
            fd, self._fd = self._fd, None
        if fd is not None and time.monotonic() - self._made > _FRESH_S:
            os.close(fd)
            return None
        return fd

    def drop(self) -> None:
        """Let go of it."""
        fd = self.take()
        if fd is not None:
            os.close(fd)

    def _put(self, fd: int) -> None:
        with self._lock:
            if self._fd is None:
                self._fd, self._made = fd, time.monotonic()
                return
        os.close(fd)
