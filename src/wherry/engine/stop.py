"""Stop, kill, restart, pause, unpause.

None of these holds the container's lock while it waits for the process to end: the exit is handled under it.
"""

import asyncio
import logging
import re
import signal as signals
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from wherry.engine import health, restarts
from wherry.engine.containers import Entry, Requested
from wherry.engine.exits import KILLED, Exit, apply_exit
from wherry.engine.sandbox import kill_leftovers
from wherry.engine.signals import deliverable, parse_signal, signal_name
from wherry.engine.start import start_locked
from wherry.errors import Conflict, Internal, InvalidArgument, NotModified, WherryError
from wherry.failpoint import hit
from wherry.runtime.client import Unresponsive

if TYPE_CHECKING:
    from wherry.engine.engine import Engine
    from wherry.runtime.client import Monitor

log = logging.getLogger("wherry.engine")

DEFAULT_TIMEOUT_S = 10
KILL_PATIENCE_S = 10.0
"""How long a SIGKILL may take before the cgroup is killed."""
SIGNAL_PATIENCE_S = 2.0
"""How long the monitor may take to send it."""


# `timeout` below is Docker's word for the grace the container gets, not a limit on the call.


async def stop(
    engine: "Engine",
    ref: str,
    *,
    timeout: int | None = None,  # noqa: ASYNC109
    signal: str | None = None,
) -> str:
    """Ask the container to end, then make it. `timeout` in seconds: None is the container's own or 10, -1 for ever.

    Returns a hint for the user when it had to be killed, "" otherwise. Raises `NotModified` when it does not run.
    POST /containers/{id}/stop.
    """
    entry = engine.containers.lookup(ref)
    entry.requests += 1
    if await entry.started() and entry.status == "exited":
        return ""  # it was to be started again for its health: not any more
    entry.check("stop", ref)
    number = _number(entry, signal, f"cannot stop container: {ref}")
    return await engine.to_the_end(_stop(engine, entry, timeout, number, "stop"))


async def _stop(engine: "Engine", entry: Entry, grace_s: int | None, number: int, reason: str) -> str:
    if await _stopped_between_runs(engine, entry):
        engine.publish(entry.record, "stop")
        return ""
    # The exit publishes it, just before "die": the order of Docker's events.
    entry.stops += 1
    entry.requested = Requested(reason)
    ended = entry.wait(removal=False)
    await _signal(engine, entry, number)
    patience_s = _patience(entry, grace_s)
    if await _within(ended, patience_s):
        return ""
    hint = _note_ignored(entry, number, patience_s or 0, reason)
    await _kill(engine, entry, ended)
    return hint


def _note_ignored(entry: Entry, number: int, grace_s: float, reason: str) -> str:
    """The container did not act on its stop signal: say so where people look. Without any grace it had no chance."""
    if not grace_s:
        return ""
    what = f"ignored {signal_name(number)} for {grace_s:g}s, killed"
    entry.requested = Requested(f"{reason}: {what}")
    log.warning("container %s %s", entry.id, what)
    return (
        f"{entry.record.name} {what}: its first process does not handle the signal; "
        "--init, a handler or another --stop-signal makes it end at once"
    )


async def _stopped_between_runs(engine: "Engine", entry: Entry) -> bool:
    """Note that it is stopped by request. A container waiting for its restart has nothing to signal: the restart is
    called off."""
    async with entry.lock:
        entry.record.manually_stopped = entry.stay_down = True
        hit("engine.stop.before_row")
        if entry.status == "restarting":
            _call_off(engine, entry)
            return True
        engine.save_or_later(entry)
        return entry.status not in ("running", "paused")


def _call_off(engine: "Engine", entry: Entry) -> None:
    """There will be no restart; the lock is held."""
    restarts.cancel(entry)
    entry.record.state.status = "exited"
    engine.save_or_later(entry)
    entry.wake(removal=False)


def _patience(entry: Entry, grace_s: int | None) -> float | None:
    seconds = entry.record.config.StopTimeout if grace_s is None else grace_s
    if seconds is None:
        return DEFAULT_TIMEOUT_S
    return None if seconds < 0 else seconds


async def _within(ended: "asyncio.Future[tuple[int, str | None]]", seconds: float | None) -> bool:
    done, _ = await asyncio.wait({ended}, timeout=seconds)
    return bool(done)


async def _kill(engine: "Engine", entry: Entry, ended: "asyncio.Future[tuple[int, str | None]]") -> None:
    """SIGKILL, and if even that has no answer, the whole cgroup."""
    await _signal(engine, entry, signals.SIGKILL)
    if await _within(ended, KILL_PATIENCE_S):
        return
    await engine.run_blocking(kill_leftovers, engine, entry.id)
    if not await _within(ended, KILL_PATIENCE_S):
        async with entry.lock:
            if entry.status in ("running", "paused"):
                entry.monitor, entry.unmounting = None, entry.monitor
                await apply_exit(engine, entry, Exit(KILLED, False, time.time_ns(), "killed with its whole cgroup"))


async def _signal(engine: "Engine", entry: Entry, number: int) -> None:
    """Send a signal to the container's first process; one that already ended is no error. A paused container is
    resumed by a signal that is to end it, or it would never see it."""
    async with entry.lock:
        monitor = entry.monitor
        if monitor is None or entry.status not in ("running", "paused"):
            return
        hit("engine.stop.before_signal")
        try:
            await _send(engine, entry, monitor, number)
            engine.publish(entry.record, "kill", {"signal": str(int(number))})
            if entry.status == "paused" and _meant_to_end(entry, number):
                await monitor.resume()
                entry.record.state.status = "running"
                health.unpause(engine, entry)
                engine.save_or_later(entry)
                engine.publish(entry.record, "unpause")
        except (Conflict, ConnectionError, Unresponsive):
            return  # it has just ended, or what it does not do is left to the kernel


async def _send(engine: "Engine", entry: Entry, monitor: "Monitor", number: int) -> None:
    """Signal the container's init. A monitor that is held up, by a disk that stalls, can't keep the lock, nor SIGKILL
    from anybody: that goes to the cgroup then. What else it was asked it does when it goes on."""
    try:
        async with asyncio.timeout(SIGNAL_PATIENCE_S):
            await monitor.signal(number)
    except TimeoutError:
        log.warning("the monitor of container %s does not answer", entry.id)
        if number == signals.SIGKILL:
            await engine.run_blocking(kill_leftovers, engine, entry.id)


def _meant_to_end(entry: Entry, number: int) -> bool:
    """Whether a signal asks for the end as Docker sees it: any does, but when the container has a stop signal of its
    own, only that one and SIGKILL (moby daemon/kill.go)."""
    return not entry.record.config.StopSignal or number in (signals.SIGKILL, _stop_signal(entry))


def _stop_signal(entry: Entry) -> int:
    text = entry.record.config.StopSignal
    return parse_signal(text) if text else int(signals.SIGTERM)


def _number(entry: Entry, signal: str | None, prefix: str) -> int:
    if not signal:
        return _stop_signal(entry)
    try:
        return parse_signal(signal)
    except InvalidArgument as error:
        raise InvalidArgument(f"{prefix}: {error}") from None


async def kill(engine: "Engine", ref: str, signal: str | None = None) -> None:
    """Send a signal (default KILL, which also waits for the end). POST /containers/{id}/kill.

    Raises `Conflict` when it does not run, `InvalidArgument` for a signal nobody knows.
    """
    entry = engine.containers.lookup(ref)
    try:
        if re.fullmatch("-[0-9]+", signal or ""):
            raise InvalidArgument(f"the linux daemon does not support signal {signal}")
        number = parse_signal(signal or "KILL")
        if not deliverable(number):
            raise InvalidArgument(f"the linux daemon does not support signal {number}")
    except InvalidArgument as error:
        raise InvalidArgument(f"cannot kill container: {ref}: {error}") from None
    entry.requests += _meant_to_end(entry, number)
    await entry.started()
    entry.check("kill", ref)
    await engine.to_the_end(_kill_by_request(engine, entry, number, f"kill: {signal_name(number)}"))


async def _kill_by_request(engine: "Engine", entry: Entry, number: int, reason: str) -> None:
    async with entry.lock:
        entry.record.manually_stopped = True
        entry.stay_down = entry.stay_down or _meant_to_end(entry, number)
        if entry.status == "restarting" and entry.stay_down:
            _call_off(engine, entry)
            return
        engine.save_or_later(entry)
    entry.requested = Requested(reason, 0 if _meant_to_end(entry, number) else number)
    if number != signals.SIGKILL:
        await _signal(engine, entry, number)
        return
    ended = entry.wait(removal=False)
    if entry.status in ("running", "paused"):
        await _kill(engine, entry, ended)


async def force_down(engine: "Engine", entry: Entry) -> None:
    """End whatever runs of the container, now: for a forced removal."""
    entry.requests += 1
    if not await _stopped_between_runs(engine, entry):
        await _kill_by_request(engine, entry, signals.SIGKILL, "remove")


async def when_unhealthy(engine: "Engine", entry: Entry) -> None:
    """What HostConfig.HealthcheckOnFailureAction asks for. A kill leaves the restart policy in force, a stop does not;
    what somebody else ends meanwhile is left to them, and ended."""
    action = entry.record.host_config.HealthcheckOnFailureAction
    if action not in ("kill", "restart", "stop") or entry.requests or entry.status != "running":
        return
    reason = f"health: {action}"
    log.warning("container %s is unhealthy: %s, as it asks for", entry.id, action)
    if action == "restart":
        await _restart(engine, entry, None, _stop_signal(entry), reason, lambda: not (entry.requests or engine.closing))
    elif action == "stop":
        await _stop(engine, entry, None, _stop_signal(entry), reason)
    else:
        entry.requested = Requested(reason)
        await _kill(engine, entry, entry.wait(removal=False))


async def restart(
    engine: "Engine",
    ref: str,
    *,
    timeout: int | None = None,  # noqa: ASYNC109
    signal: str | None = None,
) -> None:
    """Stop, if it runs, and start. POST /containers/{id}/restart."""
    entry = engine.containers.lookup(ref)
    entry.check("restart", ref)
    number = _number(entry, signal, f"Cannot restart container {ref}")
    await engine.to_the_end(_restart(engine, entry, timeout, number, "restart"))


async def _restart(
    engine: "Engine",
    entry: Entry,
    grace_s: int | None,
    number: int,
    reason: str,
    still_wanted: Callable[[], bool] = lambda: True,
) -> None:
    with entry.starting():
        await _stop_to_restart(engine, entry, grace_s, number, reason)
        async with entry.lock:
            if not still_wanted():
                return
            if entry.status not in ("running", "paused"):
                await start_locked(engine, entry)
    engine.publish(entry.record, "restart")


async def _stop_to_restart(engine: "Engine", entry: Entry, grace_s: int | None, number: int, reason: str) -> None:
    entry.restarts_by_request += 1
    try:
        entry.check("stop")
        await _stop(engine, entry, grace_s, number, reason)
    except NotModified:
        pass
    finally:
        entry.restarts_by_request -= 1


async def pause(engine: "Engine", ref: str) -> None:
    """Freeze every process of the container. POST /containers/{id}/pause."""
    await engine.to_the_end(_pause(engine, ref, "pause"))


async def unpause(engine: "Engine", ref: str) -> None:
    """Thaw it. POST /containers/{id}/unpause."""
    await engine.to_the_end(_pause(engine, ref, "unpause"))


async def _pause(engine: "Engine", ref: str, action: str) -> None:
    entry = engine.containers.lookup(ref)
    async with entry.lock:
        status = entry.check(action, ref)
        if entry.monitor is None:
            raise Internal(f"container {entry.id} has no monitor")
        try:
            await (freeze if action == "pause" else thaw)(engine, entry, entry.monitor)
        except (Conflict, ConnectionError) as error:
            raise Conflict(f"container {entry.id} is not running") from error
        except WherryError as error:
            raise Internal(f"cannot {action} container {entry.id}: {error}") from error
        entry.record.state.status = status
        engine.save_or_later(entry)
        engine.publish(entry.record, action)


async def thaw(engine: "Engine", entry: Entry, monitor: "Monitor") -> None:
    """Undo `freeze`. Raises what the monitor does."""
    await monitor.resume()
    health.unpause(engine, entry)


async def freeze(engine: "Engine", entry: Entry, monitor: "Monitor", *, held: bool = False) -> None:
    """Stop all processes, and the health's probes; with `held` only as long as this daemon lives. Raises what the
    monitor does."""
    health.end(entry)
    try:
        await monitor.pause(held=held)
    except BaseException:
        health.unpause(engine, entry)
        raise
