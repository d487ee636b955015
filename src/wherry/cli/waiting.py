"""Asking for an exit code again: containers outlive the daemon, and so does whoever waits for one."""

from __future__ import annotations

import time

from wherry.client.errors import APIError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from wherry.client.engine import Engine

    T = TypeVar("T")

PATIENCE_S = 30.0
"""How long the daemon may be away."""
_PAUSE_S = 0.1


def wait_again(engine: Engine, container: str, condition: str) -> bytes:
    """The reply to POST /containers/{id}/wait when the connection of an earlier one was lost. The exit may have been
    meanwhile, so the next one is not waited for: only "removed" is kept of `condition`. Raises ClientError, when the
    daemon has not come back for long or does not know the container any more."""
    query = {"condition": condition} if condition == "removed" else None
    while True:
        response = patiently(lambda: engine.request("POST", f"/containers/{container}/wait", query))
        try:
            return response.read()
        except ClientError:  # away once more
            time.sleep(_PAUSE_S)


def patiently(ask: Callable[[], T]) -> T:
    """The result of `ask()`, which is tried again for as long as the daemon may be away. Raises ClientError."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except APIError:
            raise
        except ClientError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_S)
