"""What the engine does once a minute beside its work: it writes down what a full disk kept it from writing, empties the
trash, and repairs what others broke or what could not be cleaned up (a firewall rule deleted, a bridge set down).

A repair never meets a start: it only begins when nothing is being done with any container, and starts wait for its
few milliseconds.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from wherry.engine.reconcile import reconcile_kernel
from wherry.engine.removal import empty_trash

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger("wherry.engine")

INTERVAL_S = 60.0
_RETRY_S = 1.0


async def tend(engine: "Engine") -> None:
    """Tend `engine` until cancelled."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            for line in await tend_once(engine):
                log.warning("repaired: %s", line)
        except Exception:
            log.exception("tending failed; it is tried again in a minute")


async def tend_once(engine: "Engine") -> list[str]:
    """One round; returns in words what had to be repaired."""
    for entry in engine.containers:
        if entry.unsaved and not entry.lock.locked():
            engine.save_or_later(entry)
    await engine.run_blocking(empty_trash, engine)
    while await reconcile_kernel(engine, dry_run=True):
        repaired = await _repair(engine)
        if repaired is not None:
            return repaired
        await asyncio.sleep(_RETRY_S)
    return []


async def _repair(engine: "Engine") -> list[str] | None:
    """Repair, or None when something is being done with a container: the difference may be no more than that."""
    async with engine.repairing:
        if any(entry.lock.locked() for entry in engine.containers):
            return None
        return await reconcile_kernel(engine, dry_run=False)
