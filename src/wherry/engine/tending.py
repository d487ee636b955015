"""What the engine does every minute, and soon after something could not be cleaned up.

It writes down what a full disk kept it from writing, empties the trash, and repairs what is not as it should be: what
others broke (a firewall rule deleted, a bridge set down) and what a failed start or exit left.

A repair never meets a start: it only begins when nothing is being done with any container, and starts wait for its
few milliseconds.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from wherry.engine import reserve
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
        try:
            async with asyncio.timeout(INTERVAL_S):
                await engine.attention.wait()
        except TimeoutError:
            pass
        engine.attention.clear()
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
    await engine.run_blocking(reserve.keep, engine.paths)
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
