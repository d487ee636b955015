"""What the monitors report: exits above all.

An exit ends in one of three states: exited, restarting (by policy), or removed (`--rm`). The order seen from outside:
the exit record is durable, the network is gone, `die` is published, waiters wake, then the removal if there is one.
"""

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from wherry.engine import attach, exec, health, removal, restarts, volume_mounts
from wherry.engine.containers import Entry
from wherry.engine.model import Container
from wherry.engine.sandbox import clear_endpoint, kill_leftovers, remove_bundle
from wherry.engine.signals import signal_name
from wherry.engine.unmounting import unmounted
from wherry.failpoint import hit
from wherry.runtime.client import Monitor

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger("wherry.engine")

KILLED = 137
"""The exit code of a container whose processes the engine had to kill itself."""


class Exit(NamedTuple):
    """How a container ended; times in ns."""

    code: int
    oom_killed: bool
    time: int
    error: str = ""
    started_at: int = 0
    pid: int = 0
    signal: int = 0
    lost: str = ""
    """Why nobody saw the end, where that is no error of the container's."""
    execs: Mapping[str, int] = MappingProxyType({})
    """The exit codes of execs that ended before, as far as nobody was told of them."""
    monitor: tuple[int, int] = (0, 0)
    """Pid and start time of the one that recorded it."""


def handler(engine: "Engine", entry: Entry) -> Callable[[Monitor, dict[str, Any]], None]:
    """The callback for one container's monitor."""

    def on_event(monitor: Monitor, event: dict[str, Any]) -> None:
        name = event["event"]
        if name == "exit":
            found = Exit(
                event["exit_code"], bool(event.get("oom_killed")), event["time"], signal=event.get("signal") or 0
            )
            engine.background(_on_exit(engine, entry, monitor, found))
        elif name == "exec_exit":
            exec.finished(engine, entry, event["exec_id"], event["exit_code"])
        elif name == "oom":
            _on_oom(engine, entry)
        elif name == "detached":
            attach.detached(engine, entry, event)
        elif name == "gone":
            engine.background(_on_gone(engine, entry, monitor))

    return on_event


def _on_oom(engine: "Engine", entry: Entry) -> None:
    """The kernel killed a process of the container for want of memory; the container may go on."""
    if entry.status in ("running", "paused"):
        entry.record.state.oom_killed = True
        engine.save_or_later(entry, durable=False)
    engine.publish(entry.record, "oom")


async def _on_exit(engine: "Engine", entry: Entry, monitor: Monitor, found: Exit) -> None:
    async with entry.lock:
        # Of an earlier run, or of an end that was applied already: that says nothing about this run.
        if entry.monitor is monitor:
            entry.monitor, entry.unmounting = None, monitor
            await apply_exit(engine, entry, found)
    await unmounted(entry, monitor)
    await monitor.close()


async def _on_gone(engine: "Engine", entry: Entry, monitor: Monitor) -> None:
    """The connection is lost without a report: either we missed it (the record tells) or the monitor was killed."""
    async with entry.lock:
        if entry.monitor is not monitor:
            return
        entry.monitor = None
        found = await engine.run_blocking(recorded_exit, engine, entry.id)
        try:  # even of one whose end is recorded: its monitor may have died before it removed the cgroup
            await engine.run_blocking(kill_leftovers, engine, entry.id)
        except OSError:
            log.exception("container %s: what is left could not be killed; the next repair will", entry.id)
        if found is None or found.time <= entry.record.state.started_at:
            log.error("the monitor of container %s is gone: what was left of it is killed", entry.id)
            found = Exit(KILLED, False, time.time_ns(), "the container's monitor ended unexpectedly")
        await apply_exit(engine, entry, found)
    await monitor.close()


def recorded_exit(engine: "Engine", container_id: str) -> Exit | None:
    """The last exit as the monitor recorded it durably, or None."""
    try:
        with open(engine.paths.exit_record(container_id), "rb") as file:
            record = json.loads(file.read())
        return Exit(
            int(record["exit_code"]),
            bool(record.get("oom_killed")),
            int(record["finished_at"]),
            started_at=int(record.get("started_at") or 0),
            pid=int(record.get("pid") or 0),
            signal=int(record.get("signal") or 0),
            execs={str(name): int(code) for name, code in (record.get("execs") or {}).items()},
            monitor=(int(record.get("monitor_pid") or 0), int(record.get("monitor_start_time") or 0)),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.error("the exit record of container %s cannot be read: %s", container_id, error)
        return None


async def apply_exit(engine: "Engine", entry: Entry, found: Exit, *, policy: bool = True) -> None:
    """Take note of an exit. The lock is held. `policy` False keeps the restart policy out (the engine starts).

    Whatever goes wrong, the container is no longer running afterwards, and nobody waits for its end in vain.
    """
    if entry.check("exit") != "exited":
        return
    try:
        await _apply_exit(engine, entry, found, policy)
    except Exception as error:
        log.exception("the exit of container %s could not be dealt with, please report it", entry.id)
        if entry.status in ("running", "paused"):
            entry.record.state.status = "exited"
        entry.unsaved = True
        entry.wake(removal=entry.goes_when_ended, error=str(error))


async def _apply_exit(engine: "Engine", entry: Entry, found: Exit, policy: bool) -> None:
    record, state = entry.record, entry.record.state
    health.end(entry)
    await _release(engine, entry)
    ran_s = max(0, found.time - state.started_at) // 1_000_000_000 if state.started_at else 0
    state.pid, state.exit_code, state.oom_killed = 0, found.code, found.oom_killed
    state.finished_at, state.error, state.stop_reason = found.time, found.error, reason(entry, found)
    again = policy and restarts.wanted(entry, ran_s)
    state.status = "restarting" if again else "exited"
    record.restart_count += again
    hit("engine.exit.before_row")
    if not entry.goes_when_ended:
        engine.save_or_later(entry, durable=False)  # the exit record is, and tells it again
    hit("engine.exit.after_row")
    for _ in range(entry.stops):
        engine.publish(record, "stop")
    entry.stops = 0
    engine.publish(record, "die", {"exitCode": str(found.code), "execDuration": str(ran_s)})
    entry.wake(removal=False)
    if again:
        restarts.schedule(engine, entry, ran_s)
    elif entry.goes_when_ended:
        await removal.remove_if_possible(engine, entry, volumes=True)


def reason(entry: Entry, found: Exit) -> str:
    """Why a container ended, a word and what there is to add: "exited"; "oom"; "signal: SIGSEGV"; "stop", "restart",
    "kill: SIGKILL", "health: stop" when that was asked for; "lost: ..." when nobody saw it."""
    if found.error or found.lost:
        return f"lost: {found.error or found.lost}"
    asked = entry.requested
    if asked is not None and asked.signal in (0, found.signal):
        return asked.reason
    if found.oom_killed and found.code == KILLED:
        return "oom"
    return f"signal: {signal_name(found.signal)}" if found.signal else "exited"


async def _release(engine: "Engine", entry: Entry) -> None:
    """Take away what surrounded the process. It ended, whatever fails here: what cannot be taken away now is left to
    the next repair."""
    record = entry.record
    try:
        hit("engine.exit.before_network")
        await engine.run_blocking(_clean_up, engine, record)
    except Exception as error:
        known = isinstance(error, sqlite3.Error | OSError)
        text = "container %s could not be cleaned up after; the next repair will: %s"
        log.error(text, entry.id, error, exc_info=None if known else error)
        engine.attention.set()
    exec.container_ended(engine, entry)
    clear_endpoint(engine, record)
    for point in record.mounts:
        if point.Type == "volume":
            engine.events.publish("volume", "unmount", point.Name, {"container": record.id, "driver": point.Driver})


def _clean_up(engine: "Engine", record: Container) -> None:
    try:
        engine.network.detach(record.id)
    finally:
        try:
            remove_bundle(engine, record.id)
        finally:
            volume_mounts.release(engine, record)
