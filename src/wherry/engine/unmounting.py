"""Who else has a container's file system mounted: its directories may be mounted but once.

After a run its monitor has it, for as long as the disk takes. The monitor says when it is done; one that ended its run
while no daemon was there has closed its socket, and is known by the exit record alone: it leaves when it is done.
While files are copied into a container that does not run, that has it, for as long as the client takes.
"""

import asyncio
import logging
import os

from wherry.engine.containers import Entry, Unmounting
from wherry.errors import Conflict
from wherry.linux.pidfd import pidfd_open
from wherry.runtime.state import process_start_time

log = logging.getLogger("wherry.engine")

_PATIENCE_S = 20


async def unmounted(entry: Entry, monitor: Unmounting | None = None) -> None:
    """Wait until nobody else has it mounted. A disk or a network file system that hangs is not waited for without end,
    nor is a client: raises `Conflict` when files are still being copied into the container."""
    if monitor is None and entry.copying is not None:
        await _copied(entry, entry.copying)
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


async def _copied(entry: Entry, done: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await done.wait()
    except TimeoutError:
        raise Conflict(f"files are being copied into container {entry.id}: try again when that is done") from None


def remember(entry: Entry, monitor_pid: int, start_time: int) -> None:
    """Have the next run wait for the last one's monitor, if that is still there."""
    try:
        entry.unmounting = Leaving(monitor_pid, start_time) if monitor_pid else None
    except ProcessLookupError:
        pass


class Leaving:
    """A monitor that nobody is connected to, by its process."""

    def __init__(self, pid: int, start_time: int) -> None:
        """`start_time` in ticks, as `process_start_time`. Raises ProcessLookupError when it has left."""
        self._pidfd = pidfd_open(pid)
        if process_start_time(pid) != start_time:
            os.close(self._pidfd)
            raise ProcessLookupError
        self._left = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._leave)

    async def unmounted(self) -> None:
        """Wait until it has left."""
        await self._left.wait()

    def _leave(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._left.set()
