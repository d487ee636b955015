"""Work that may be late: links of namespaces that were let go, and connections the kernel still tracks for them.

A namespace without users takes its end of the veth pair along, and with it the host's end, many at a time and without
anybody waiting. Deleting a link by hand makes the kernel wait for tens of milliseconds under the lock that all network
configuration needs; so that is done only where a link outlives its namespace's pin, because a process still runs there.
"""

import logging
import threading
import time

from wherry.linux.rtnetlink import RouteSocket
from wherry.network import endpoints

log = logging.getLogger(__name__)

_GRACE_S = 0.5


class Cleaner:
    """Sees to it that links vanish, on a thread of its own that ends when there is nothing to do."""

    def __init__(self, host: RouteSocket) -> None:
        self._host = host
        self._changed = threading.Condition()
        self._due: dict[str, float] = {}
        self._working = False
        self._hurry = False

    def expect_gone(self, link: str) -> None:
        """Have `link` deleted unless it is gone by itself shortly."""
        with self._changed:
            self._due[link] = time.monotonic() + _GRACE_S
            if not self._working:
                self._working = True
                threading.Thread(target=self._run, name="network-cleanup", daemon=True).start()

    def flush(self) -> None:
        """Return when all links handed over so far are gone."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._working)
            self._hurry = False

    def _run(self) -> None:
        while link := self._next():
            try:
                endpoints.remove_link(self._host, link)
            except OSError as error:
                log.warning("link %s stays behind: %s", link, error)

    def _next(self) -> str:
        """The next link whose time has come; "" when there is none left and the thread is to end."""
        with self._changed:
            while self._due:
                link, due = next(iter(self._due.items()))
                wait = due - time.monotonic()
                if self._hurry or wait <= 0:
                    del self._due[link]
                    return link
                self._changed.wait(wait)
            self._working = False
            self._changed.notify_all()
            return ""
