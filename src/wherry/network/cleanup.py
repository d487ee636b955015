"""Work that may be late: links of namespaces that were let go, and connections the kernel still tracks for them.

A namespace without users takes its end of the veth pair along, and with it the host's end, many at a time and without
anybody waiting. Deleting a link by hand makes the kernel wait for tens of milliseconds under the lock that all network
configuration needs; so that is done only where a link outlives its namespace's pin, because a process still runs there.
"""

import logging
import threading
import time
from collections.abc import Callable

from wherry.linux.rtnetlink import RouteSocket
from wherry.network import endpoints, flows
from wherry.network.model import PublishedPort

log = logging.getLogger(__name__)

_GRACE_S = 0.5
_SOON_S = 0.02  # when a container that starts has done so


class Cleaner:
    """Sees to it that links vanish, on a thread of its own that ends when there is nothing to do."""

    def __init__(self, host: RouteSocket) -> None:
        self._host = host
        self._changed = threading.Condition()
        self._jobs: list[tuple[float, str, Callable[[], None]]] = []
        self._working = False
        self._hurry = False

    def expect_gone(self, link: str) -> None:
        """Have `link` deleted unless it is gone by itself shortly."""
        self._add(_GRACE_S, f"delete link {link}", lambda: endpoints.remove_link(self._host, link))

    def forget_flows(self, ports: list[PublishedPort]) -> None:
        """Have the connections that came by these ports forgotten."""
        if any(port.protocol != "tcp" for port in ports):
            self._add(0, "forget connections", lambda: flows.forget(ports))

    def soon(self, job: Callable[[], None], what: str) -> None:
        """Have `job` done when it disturbs nobody."""
        self._add(_SOON_S, what, job)

    def _add(self, delay_s: float, what: str, job: Callable[[], None]) -> None:
        with self._changed:
            self._jobs.append((time.monotonic() + delay_s, what, job))
            self._jobs.sort(key=lambda item: item[0])
            if self._working:
                self._changed.notify_all()
                return
            self._working = True
        threading.Thread(target=self._run, name="network-cleanup", daemon=True).start()

    def flush(self) -> None:
        """Return when all that was handed over so far is done."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._working)
            self._hurry = False

    def _run(self) -> None:
        while found := self._next():
            what, job = found
            try:
                job()
            except Exception as error:  # whatever it is, the jobs behind it are due, and `flush` waits for them
                log.warning("cannot %s: %s", what, error, exc_info=None if isinstance(error, OSError) else error)

    def _next(self) -> tuple[str, Callable[[], None]] | None:
        """The next job when its time has come; None when there is none left and the thread is to end."""
        with self._changed:
            while self._jobs:
                due, what, job = self._jobs[0]
                wait = due - time.monotonic()
                if self._hurry or wait <= 0:
                    del self._jobs[0]
                    return what, job
                self._changed.wait(wait)
            self._working = False
            self._changed.notify_all()
            return None
