"""Threads of which a number may work at a time that the operator can change."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_UNLIMITED = 64


class Pool:
    """`limit` threads, 0 meaning as many as are wanted."""

    def __init__(self, limit: int, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self.limit = limit
        self._executor = ThreadPoolExecutor(limit or _UNLIMITED, name)

    def resize(self, limit: int) -> None:
        """Let `limit` work from now on; what waits already keeps to the old limit."""
        with self._lock:
            if limit == self.limit:
                return
            before, self._executor = self._executor, ThreadPoolExecutor(limit or _UNLIMITED, self._name)
            self.limit = limit
        before.shutdown(wait=False)

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Do `work` when it is its turn."""
        with self._lock:
            return self._executor.submit(work)

    def close(self) -> None:
        """No more work comes; what was submitted is done."""
        with self._lock:
            self._executor.shutdown(wait=False)
