"""Threads of which a number may work at a time that the operator can change."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_UNLIMITED = 64


class Pool:
    """`limit` threads, 0 meaning as many as are wanted."""

    def __init__(self, limit: int, name: str) -> None:
        self._name = name
        self.limit = limit
        self._executor = ThreadPoolExecutor(limit or _UNLIMITED, name)

    def resize(self, limit: int) -> None:
        """Let `limit` work from now on; what waits already keeps to the old limit."""
        if limit != self.limit:
            self.close()
            self.limit = limit
            self._executor = ThreadPoolExecutor(limit or _UNLIMITED, self._name)

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Do `work` when it is its turn."""
        return self._executor.submit(work)

    def close(self) -> None:
        """No more work comes; what was submitted is done."""
        self._executor.shutdown(wait=False)
