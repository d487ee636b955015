"""Breaking off what blocks in other threads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wherry.errors import Internal

_LOOK_S = 0.1


class Cancelled(Internal):
    """The work was cancelled by who had asked for it."""

    def __init__(self) -> None:
        super().__init__("context canceled")


class Cancellation:
    """One decision to stop, shared by all threads of a piece of work."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._breakers: set[Callable[[], None]] = set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """Stop: every `breaking` under way has its breaker called. Any thread, any number of times."""
        with self._lock:
            self._event.set()
            for breaker in self._breakers:
                breaker()

    def check(self) -> None:
        """Raise `Cancelled` once it is."""
        if self._event.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Sleep. Raises `Cancelled` at once when it is."""
        if self._event.wait(seconds):
            raise Cancelled

    @contextmanager
    def locking(self, lock: threading.Lock) -> Iterator[None]:
        """Hold a lock that others may hold for long. Raises `Cancelled` soon after it is."""
        while not lock.acquire(timeout=_LOOK_S):
            self.check()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def breaking(self, breaker: Callable[[], None]) -> Iterator[None]:
        """While the body blocks, `cancel` calls `breaker`, which makes it return or fail; then `Cancelled` is raised in
        its place. A breaker must not block."""
        with self._lock:
            self.check()
            self._breakers.add(breaker)
        try:
            yield
        except Exception:
            self.check()
            raise
        finally:
            with self._lock:
                self._breakers.discard(breaker)
