"""Asking for an exit code again: containers outlive the daemon, and so does whoever waits for one."""

from __future__ import annotations

import time

from wherry.client.errors import APIError, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.client.engine import Engine

PATIENCE_S = 30.0
"""How long the daemon may be away."""
_PAUSE_S = 0.1


def wait_again(engine: Engine, container: str, condition: str) -> bytes:
    """The reply to POST /containers/{id}/wait when the connection of an earlier one was lost. The exit may have been
    meanwhile, so the next one is not waited for: only "removed" is kept of `condition`. Raises ClientError, when the
    daemon has not come back for long or does not know the container any more."""
    query = {"condition": condition} if condition == "removed" else None
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            response = engine.request("POST", f"/containers/{container}/wait", query)
        except APIError:
            raise
        except ClientError:
            if time.monotonic() > deadline:
                raise
        else:
            try:
                return response.read()
            except ClientError:  # away once more
                deadline = time.monotonic() + PATIENCE_S
        time.sleep(_PAUSE_S)
