"""From a record to a running process: the network, the directories and the OCI configuration, then the spawner.

The network is attached in one worker thread while the directories are made in another and the configuration is built
here; whatever fails, everything is undone and the record says why.
"""

import asyncio
import base64
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from wherry.engine import attach, health, links, runtimes, sandbox, specs, storage, volume_mounts
from wherry.engine.containers import Entry
from wherry.engine.joins import HeldJoins, hold, resolve_joins
from wherry.engine.log_settings import log_settings
from wherry.engine.model import Container, MountPoint
from wherry.engine.unmounting import unmounted
from wherry.errors import Internal, InvalidArgument, WherryError
from wherry.failpoint import hit
from wherry.network.model import Endpoint

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger("wherry.engine")

# Clients and scripts know these words (docker/cli runStartContainerErr; moby daemon/errors.go).
SHIM_PREFIX = "failed to create task for container: failed to create shim task: "
TASK_PREFIX = (
    f"{SHIM_PREFIX}OCI runtime create failed: "
    "runc create failed: unable to start container process: error during container init: "
)

_LEAVES_S = 10.0

EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE, EXIT_UNKNOWN = 127, 126, 128

_NOT_FOUND = ("executable file not found", "no such file or directory", "system cannot find the file specified")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "exec format error")
_MOUNT_ADVICE = (
    ": Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)


class CannotRun(InvalidArgument):
    """The command itself is wrong: 400, and State.ExitCode says how."""

    exit_code = EXIT_UNKNOWN


class CannotStart(Internal):
    """The runtime failed otherwise: 500."""

    exit_code = EXIT_UNKNOWN


async def launch(engine: "Engine", entry: Entry) -> None:
    """Start the container of `entry`, whose lock is held and whose state allows it. Raises with everything undone."""
    async with engine.repairing:
        pass  # what is being repaired must not change under it; from here on our lock keeps a repair from beginning
    await unmounted(entry)
    record = entry.record
    undo: list[Callable[[], Awaitable[None]]] = []
    try:
        await _launch(engine, entry, undo)
    except BaseException as error:
        await _undo(engine, undo)
        attach.drop_pending(entry)
        shown = _shown(error)
        _failed(engine, entry, shown, error)
        if shown is error:
            raise
        raise shown from error
    # A power cut ends the container too; only a restart policy wants to know afterwards that it had been started.
    engine.save_or_later(entry, durable=record.host_config.RestartPolicy.Name not in ("", "no"))
    hit("engine.start.after_row")
    engine.publish(record, "start")


async def _undo(engine: "Engine", steps: list[Callable[[], Awaitable[None]]]) -> None:
    """All of them, last first: one that fails must not keep the others from being done."""
    for step in reversed(steps):
        try:
            await step()
        except Exception:
            log.exception("a step of a failed start could not be undone; the next repair will")
            engine.attention.set()


async def _launch(engine: "Engine", entry: Entry, undo: list[Callable[[], Awaitable[None]]]) -> None:
    record = entry.record
    storage.check_usable(engine, record)
    held = hold(resolve_joins(engine, record))
    places = volume_mounts.Places(record.mounts)
    try:
        if any(point.Type == "volume" for point in record.mounts):
            undo.append(lambda: engine.run_blocking(volume_mounts.release, engine, record))
            places = await engine.run_blocking(volume_mounts.take, engine, record)
        await _launch_joined(engine, entry, held, places.points, undo)
    finally:
        held.close()
        if places.points is not record.mounts:
            await engine.run_blocking(places.close)


async def _launch_joined(
    engine: "Engine",
    entry: Entry,
    held: HeldJoins,
    points: list[MountPoint],
    undo: list[Callable[[], Awaitable[None]]],
) -> None:
    record, joins = entry.record, held.joins
    links.check(engine, record)
    sandbox.name_files(engine, record, joins)
    hit("engine.start.before_network")
    undo.append(lambda: engine.run_blocking(sandbox.remove_bundle, engine, record.id))
    directories = asyncio.ensure_future(engine.run_blocking(_prepare, engine, record))
    undo.append(lambda: engine.run_blocking(engine.network.detach, record.id))
    network = asyncio.ensure_future(engine.run_blocking(sandbox.attach_network, engine, record, joins))
    try:
        config = specs.oci_config(engine, record, joins, points)
        runtime = runtimes.command(engine.config, record.host_config.Runtime)
        # Another runtime compiles the profile itself.
        seccomp = None if runtime else specs.seccomp_filter(config)
    finally:
        results = await asyncio.gather(directories, network, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    hit("engine.start.after_network")
    root_mounts, endpoint = cast(list[dict[str, Any]], results[0]), results[1]
    sandbox.publish_mounts(engine, record)
    if isinstance(endpoint, Endpoint):
        sandbox.apply_endpoint(record, endpoint)
        engine.publish_network("connect", endpoint.network_id, endpoint.network_name, record.id)
    undo.append(lambda: _forget_endpoint(engine, record))
    # What another runtime makes does not end with whoever called it; a spawner that dies leaves the cgroup.
    undo.append(lambda: engine.run_blocking(sandbox.kill_leftovers, engine, record.id))
    undo.append(lambda: _take_back(engine, entry))
    await _spawn(engine, entry, held, spawn_request(engine, record, config, seccomp, runtime, root_mounts))
    if owners := links.owners(engine, record):
        await engine.run_blocking(links.follow, engine, record, owners)


async def _forget_endpoint(engine: "Engine", record: Container) -> None:
    sandbox.clear_endpoint(engine, record)


async def _take_back(engine: "Engine", entry: Entry) -> None:
    """End what already runs although the start failed; its exit is no news to anybody."""
    monitor, entry.monitor = entry.monitor, None
    if monitor is None:
        return
    monitor.mute()
    await engine.run_blocking(sandbox.kill_leftovers, engine, entry.id)
    try:
        async with asyncio.timeout(_LEAVES_S):
            await monitor.unmounted()  # it has written its record and given up its socket, as a next one will
    except TimeoutError:
        log.error("the monitor of container %s, whose start failed, does not leave", entry.id)
    await monitor.close()


def _prepare(engine: "Engine", record: Container) -> list[dict[str, Any]]:
    """Directories and, mounted if they must be, layers; what is mounted as the container's root."""
    sandbox.prepare_directories(engine, record)
    return storage.root_mounts(engine, record)


async def _spawn(engine: "Engine", entry: Entry, held: HeldJoins, request: dict[str, Any]) -> None:
    record = entry.record
    hit("engine.start.before_spawn")
    waiting = attach.take_pending(entry)
    try:
        monitor = await engine.spawner.create(request, [p.attachment for p in waiting], engine.watch(entry))
    except WherryError as error:
        held.check()  # that may be the reason
        raise _task_error(error) from error
    finally:
        for pending in waiting:
            pending.close()
    entry.monitor, entry.process = monitor, request["config"]["process"]
    for warning in monitor.warnings:
        log.warning("container %s: %s", record.id, warning)
    record.log_path = request["log"].get("path", "")
    hit("engine.start.after_spawn")
    held.check()
    state = record.state
    state.status, state.pid, state.exit_code, state.error = "running", monitor.pid, 0, ""
    state.oom_killed, state.started_at = False, time.time_ns()
    record.started_before, record.manually_stopped, record.boot_id = True, False, engine.boot_id
    entry.stay_down, entry.stops, entry.requested = False, 0, None
    health.begin(engine, entry)


def spawn_request(
    engine: "Engine",
    record: Container,
    config: dict[str, Any],
    seccomp: bytes | None,
    runtime: list[str] | None,
    root_mounts: list[dict[str, Any]],
) -> dict[str, Any]:
    """What the spawner must know to run `record` (runtime.client.Spawner.create)."""
    paths, host = engine.paths, record.host_config
    height, width = host.ConsoleSize
    return {
        "id": record.id,
        "bundle": str(paths.bundle(record.id)),
        "config": config,
        "runtime": runtime,
        "rootfs_mounts": root_mounts,
        "seccomp_filter": base64.b64encode(seccomp).decode("ascii") if seccomp else None,
        "stdio": {
            "tty": record.config.Tty,
            "open_stdin": record.config.OpenStdin,
            "stdin_once": record.config.StdinOnce,
        },
        "log": log_settings(engine, record),
        "socket": str(paths.monitor_socket(record.id)),
        "exit_record": str(paths.exit_record(record.id)),
        "console_size": [height, width] if height and width else None,
        "start": True,
    }


# Errors


def _task_error(error: WherryError) -> WherryError:
    """The runtime's refusal with the status and exit code Docker derives from its text (setExitCodeFromError)."""
    text = str(error)
    if text.startswith("unable to find "):
        return _failure("Internal", text, EXIT_UNKNOWN)
    full = text
    if text.startswith("OCI runtime "):  # another runtime's own words
        full = SHIM_PREFIX + text
    elif not text.startswith("failed to create task"):
        full = TASK_PREFIX + text
    if "failed to initialize logging driver" in text:
        return _failure("Internal", text, EXIT_UNKNOWN)
    lower = text.lower()
    if any(words in lower for words in _NOT_FOUND):
        return _failure("InvalidArgument", full, EXIT_NOT_FOUND)
    if any(words in lower for words in _NOT_EXECUTABLE):
        return _failure("InvalidArgument", full, EXIT_NOT_EXECUTABLE)
    if "not a directory" in lower:
        return _failure("InvalidArgument", full + _MOUNT_ADVICE, EXIT_NOT_FOUND)
    return _failure("Internal", full, EXIT_UNKNOWN)


def _failure(kind: str, text: str, exit_code: int) -> WherryError:
    error = CannotRun(text) if kind == "InvalidArgument" else CannotStart(text)
    error.exit_code = exit_code
    return error


def _shown(error: BaseException) -> BaseException:
    """What the client sees: everything that is none of our errors becomes `Internal`."""
    if isinstance(error, OSError):
        return Internal(f"{error.filename or ''}: {(error.strerror or str(error)).lower()}".removeprefix(": "))
    if isinstance(error, sqlite3.Error):
        return Internal(f"the engine's database cannot be used: {error}")
    if isinstance(error, WherryError) or not isinstance(error, Exception):
        return error
    log.error("unexpected error while starting a container, please report it", exc_info=error)
    return Internal(str(error) or type(error).__name__)


def _failed(engine: "Engine", entry: Entry, shown: BaseException, error: BaseException) -> None:
    state = entry.record.state
    if entry.status != "restarting":
        state.status = "created" if not entry.record.started_before else "exited"
    state.error = str(shown)
    state.exit_code = getattr(error, "exit_code", EXIT_UNKNOWN)
