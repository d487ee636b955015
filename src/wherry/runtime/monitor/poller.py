"""The monitor's event loop: poll(2) and a few timers. poll rather than epoll, because any descriptor will do."""

import select
import time
from collections.abc import Callable

POLLIN = select.POLLIN
POLLOUT = select.POLLOUT
POLLHUP = select.POLLHUP
POLLERR = select.POLLERR

OnReady = Callable[[int], None]  # gets the mask of what is ready


class _Entry:
    __slots__ = ("callback", "mask")

    def __init__(self, callback: OnReady) -> None:
        self.callback = callback
        self.mask: int | None = None


class Poller:
    """Descriptors and what to call when they are ready."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._entries: dict[int, _Entry] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def watch(self, fd: int, mask: int | None, callback: OnReady) -> None:
        """Call `callback(ready)` whenever `fd` is ready for `mask`, or has an error or hang-up, which poll reports
        even for 0; None: not now."""
        self._entries[fd] = _Entry(callback)
        self.change(fd, mask)

    def change(self, fd: int, mask: int | None) -> None:
        """Watch `fd`, already known, for something else."""
        entry = self._entries[fd]
        if mask == entry.mask:
            return
        if mask is None:
            self._poll.unregister(fd)
        else:
            self._poll.register(fd, mask)
        entry.mask = mask

    def forget(self, fd: int) -> None:
        """Stop watching; to be called before `fd` is closed."""
        entry = self._entries.pop(fd, None)
        if entry and entry.mask is not None:
            self._poll.unregister(fd)

    def after(self, delay_s: float, callback: Callable[[], None]) -> int:
        """Call `callback` once, not before `delay_s` seconds; the number returned can be given to `cancel`."""
        self._count += 1
        self._timers.append((time.monotonic() + delay_s, self._count, callback))
        self._timers.sort()
        return self._count

    def cancel(self, timer: int) -> None:
        """Drop a timer; one that has fired is no error."""
        self._timers = [t for t in self._timers if t[1] != timer]

    def turn(self) -> None:
        """Wait until something is ready or due, and call for it."""
        timeout = max(0.0, self._timers[0][0] - time.monotonic()) * 1000 if self._timers else None
        ready = [(fd, mask, self._entries[fd]) for fd, mask in self._poll.poll(timeout)]
        for fd, mask, entry in ready:
            # An earlier callback may have closed this one, and a new descriptor have its number.
            if self._entries.get(fd) is entry and entry.mask is not None:
                entry.callback(mask)
        while self._timers and self._timers[0][0] <= time.monotonic():
            self._timers.pop(0)[2]()
