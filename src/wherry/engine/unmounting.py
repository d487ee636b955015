"""What is left of a run after its exit was told: the container's mounts, for as long as their disk takes."""

import asyncio
import logging

from wherry.engine.containers import Entry
from wherry.runtime.client import Monitor

log = logging.getLogger("wherry.engine")

_PATIENCE_S = 20


async def unmounted(entry: Entry, monitor: Monitor | None = None) -> None:
    """Wait until the last run's mounts are gone: an overlay's directories may be mounted but once. The monitor says so;
    one that does not, because a disk or a network file system hangs, is not waited for without end."""
    monitor = monitor or entry.unmounting
    if monitor is None:
        return
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await monitor.unmounted()
    except TimeoutError:
        log.warning("the mounts of container %s are still there after %d s", entry.id, _PATIENCE_S)
    if entry.unmounting is monitor:
        entry.unmounting = None
