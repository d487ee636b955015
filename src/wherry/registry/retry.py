"""Trying again what may pass."""

import random
from collections.abc import Callable

from wherry.registry.cancel import Cancellation
from wherry.registry.config import RegistryConfig
from wherry.registry.errors import RegistryError

Waiting = Callable[[float], None]


class Attempts:
    """How often something was tried, and the pauses between: longer each time, at random so that many clients do not
    come back at once; what the registry asks for when it does, within limits."""

    def __init__(self, config: RegistryConfig, cancel: Cancellation, waiting: Waiting | None = None) -> None:
        """`waiting` is told of each pause, in seconds, before it."""
        self._config = config
        self._cancel = cancel
        self._waiting = waiting
        self.failed = 0

    def pause(self, error: RegistryError) -> None:
        """Wait after `error`; raises it when it will not pass, when it was the last attempt, or when the registry wants
        to be left alone for too long."""
        self.failed += 1
        if not error.passing or self.failed >= self._config.attempts:
            raise error
        seconds = self._config.backoff * 2 ** (self.failed - 1) * random.uniform(0.75, 1.25)
        if error.retry_after is not None:
            seconds = max(seconds, error.retry_after)
        if seconds > self._config.longest_wait and error.retry_after:
            raise error
        seconds = min(seconds, self._config.longest_wait)
        if self._waiting:
            self._waiting(seconds)
        self._cancel.wait(seconds)
