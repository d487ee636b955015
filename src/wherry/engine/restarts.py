"""Restart policies: whether a container that ended is started again, and after what pause (moby restartmanager)."""

import asyncio
import logging
from typing import TYPE_CHECKING

from wherry.engine.containers import Entry
from wherry.engine.launch import launch

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger("wherry.engine")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 60.0
CALM_S = 10
"""A container that ran this long starts again with the first pause."""


def wanted(entry: Entry, ran_s: int) -> bool:
    """Whether the policy of an ended container asks for another start. A stop by request wins over all of them, a
    signal other than the container's own stop signal only over `unless-stopped` (moby restartmanager)."""
    record = entry.record
    policy = record.host_config.RestartPolicy
    if entry.stay_down:
        return False
    if policy.Name == "always":
        return True
    if policy.Name == "unless-stopped":
        return not record.manually_stopped
    within = policy.MaximumRetryCount == 0 or record.restart_count < policy.MaximumRetryCount
    return policy.Name == "on-failure" and record.state.exit_code != 0 and within


def wanted_at_boot(entry: Entry) -> bool:
    """Whether the policy asks to start a stopped container when the engine starts. A restart that was due when the
    last engine ended is counted already, and done."""
    record = entry.record
    if record.state.status == "restarting":
        return True
    if not record.started_before or record.state.status != "exited":
        return False
    return record.host_config.RestartPolicy.Name == "always" or (not record.manually_stopped and wanted(entry, 0))


def schedule(engine: "Engine", entry: Entry, ran_s: int) -> None:
    """Start the container after the pause that is due. The lock is held."""
    if ran_s >= CALM_S or not entry.backoff_s:
        entry.backoff_s = FIRST_PAUSE_S
    else:
        entry.backoff_s = min(entry.backoff_s * 2, LONGEST_PAUSE_S)
    cancel(entry)
    entry.restart_task = engine.background(_restart(engine, entry, entry.backoff_s))


def cancel(entry: Entry) -> None:
    """Forget a restart that is due; one that is under way holds the lock and is not interrupted."""
    task, entry.restart_task = entry.restart_task, None
    if task is not None and task is not asyncio.current_task():
        task.cancel()


async def _restart(engine: "Engine", entry: Entry, pause_s: float) -> None:
    await asyncio.sleep(pause_s)
    await start_again(engine, entry)


async def start_again(engine: "Engine", entry: Entry) -> None:
    """Start the container whose `restart_task` this is, unless it was called off. One that cannot be started stays
    down, and says why."""
    async with entry.lock:
        if entry.status != "restarting" or entry.restart_task is not asyncio.current_task():
            return
        entry.restart_task = None
        try:
            await launch(engine, entry)
        except Exception as error:
            log.warning("container %s could not be started again: %s", entry.id, error)
            if entry.monitor is None:
                entry.record.state.status = "exited"
                engine.save_or_later(entry)
                entry.wake(removal=False)
