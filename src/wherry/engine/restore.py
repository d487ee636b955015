"""What a starting engine finds, and makes of it.

a monitor answers            the container runs (or just ended): taken back, nothing happened to it
no monitor, an exit record   it ended while nobody looked: its real code and time are applied
no monitor, no record        its monitor was killed, or the host was: what is left is killed, and it ended now
a removal under way          is completed
a row without a directory    `dead`, unless nothing was ever in it
"""

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from wherry.engine import boot, exec, health, removal, reserve, storage, update, volume_mounts
from wherry.engine.containers import Entry
from wherry.engine.exec import PROBE
from wherry.engine.exits import KILLED, Exit, apply_exit, handler, recorded_exit
from wherry.engine.proctree import kill_tree
from wherry.engine.reconcile import reconcile
from wherry.engine.sandbox import apply_endpoint, kill_leftovers
from wherry.engine.unmounting import remember, unmounted
from wherry.errors import Conflict, WherryError
from wherry.failpoint import hit
from wherry.runtime.client import Monitor, connect
from wherry.store.atomic import write_file
from wherry.store.trees import delete_tree

if TYPE_CHECKING:
    from wherry.engine.engine import Engine
    from wherry.store.paths import Paths

log = logging.getLogger("wherry.engine")

LOST = 255
"""The exit code of a container that a reboot ended: nobody can know the real one."""

_REBOOTED = "the host was restarted"
_CONNECT_TIMEOUT_S = 5.0


def read_boot_id() -> str:
    """Which boot of the host this is."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


async def prepare(engine: "Engine") -> None:
    """Before anything else: the exec root of another boot is worthless, scratch is emptied, records are read."""
    await engine.run_blocking(_forget_other_boot, engine)
    await engine.run_blocking(volume_mounts.discard_parts, engine)
    await engine.run_blocking(reserve.keep, engine.paths)
    for problem in engine.containers.load():
        log.error("%s; it is left alone", problem)
    exec.load(engine)


def _forget_other_boot(engine: "Engine") -> None:
    paths = engine.paths
    try:
        boot = paths.boot_id.read_text().strip()
    except FileNotFoundError:
        boot = ""
    if boot != read_boot_id():
        for directory in (paths.exec_containers, paths.execs):
            for name in os.listdir(directory):
                _discard(directory / name)
        write_file(paths.boot_id, f"{read_boot_id()}\n".encode(), durable=False)
    _claim_exec_root(paths)
    for name in os.listdir(paths.tmp):
        _discard(paths.tmp / name)


def _claim_exec_root(paths: "Paths") -> None:
    """What runs there is ours to end when we do not know it. Raises `Conflict` when it is another engine's."""
    try:
        owner = paths.exec_owner.read_text().removesuffix("\n")
    except FileNotFoundError:
        owner = ""
    if owner not in ("", str(paths.data_root)) and os.listdir(paths.exec_containers):
        raise Conflict(f"{paths.exec_root} has containers of the engine in {owner}: use another --exec-root")
    write_file(paths.exec_owner, f"{paths.data_root}\n".encode(), durable=False)


def _discard(path: os.PathLike[str]) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        delete_tree(path)
    else:
        os.unlink(path)


async def restore(engine: "Engine") -> None:
    """Bring every container into a state that is true, then remove what belongs to none, then act on policies."""
    volume_mounts.adopt(engine)
    work = [_restore_one(engine, entry) for entry in engine.containers]
    results = await asyncio.gather(*work, return_exceptions=True)
    for error in results:
        if isinstance(error, BaseException):
            log.error("a container could not be restored", exc_info=error)
    await engine.run_blocking(volume_mounts.settle, engine)
    hit("engine.restore.before_reconcile")
    for line in await reconcile(engine):
        log.info("reconciled: %s", line)
    boot.start_wanted(engine)


async def _restore_one(engine: "Engine", entry: Entry) -> None:
    """One bad object must not keep the engine from starting: it is marked dead, with the reason."""
    try:
        await _restore_entry(engine, entry)
    except (WherryError, OSError) as error:
        log.error("container %s: %s", entry.id, error)
        entry.record.state.status, entry.record.state.error = "dead", str(error)
        engine.save(entry.record)


async def _restore_entry(engine: "Engine", entry: Entry) -> None:
    record, state = entry.record, entry.record.state
    if state.status == "removing":
        await removal.finish(engine, entry)
        return
    if not await _has_directory(engine, entry):
        return
    if await _taken_back(engine, entry):
        return
    found = await engine.run_blocking(recorded_exit, engine, entry.id)
    if found is not None:
        remember(entry, *found.monitor)
    was_running = state.status in ("running", "paused")
    if found is not None:
        exec.taken_back(engine, entry, {}, found.execs)
    if found is not None and found.time != state.finished_at and (was_running or found.started_at > state.started_at):
        state.started_at = found.started_at or state.started_at
        record.started_before = True
        await _ended(engine, entry, found)
    elif was_running and record.boot_id not in ("", engine.boot_id):
        await _ended(engine, entry, Exit(LOST, False, time.time_ns(), lost=_REBOOTED))
    elif was_running:
        await engine.run_blocking(kill_leftovers, engine, entry.id)
        await _ended(engine, entry, Exit(KILLED, False, time.time_ns(), "the container's monitor ended unexpectedly"))
    elif state.status == "exited" and record.host_config.AutoRemove:
        async with entry.lock:
            await removal.remove_now(engine, entry, volumes=True)


async def _has_directory(engine: "Engine", entry: Entry) -> bool:
    """Whether the container's data is there. What never ran has none to lose: its directories are made again."""
    directory = engine.paths.container(entry.id)
    if directory.is_dir() and engine.paths.upper(entry.id).is_dir() and engine.paths.work(entry.id).is_dir():
        return True
    if not entry.record.started_before:
        await engine.run_blocking(_make_again, engine, entry)
        return True
    if entry.status != "dead":
        log.error("container %s: its data %s is gone", entry.id, directory)
        await engine.run_blocking(kill_leftovers, engine, entry.id)
        entry.record.state.status, entry.record.state.pid = "dead", 0
        entry.record.state.error = "the container's data directory is missing"
        engine.save(entry.record)
    return False


def _make_again(engine: "Engine", entry: Entry) -> None:
    directory = engine.paths.container(entry.id)
    for path in (engine.paths.upper(entry.id), engine.paths.work(entry.id)):
        if path.is_dir():
            delete_tree(path)
    os.makedirs(directory, mode=0o710, exist_ok=True)
    storage.make_directories(engine, entry.record)


async def _monitor(engine: "Engine", entry: Entry) -> Monitor | None:
    """A connection to the container's monitor, or None when there is none."""
    path = str(engine.paths.monitor_socket(entry.id))
    if not os.path.exists(path):
        return None
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            return await connect(path, handler(engine, entry))
    except (ConnectionError, FileNotFoundError, TimeoutError) as error:
        log.warning("container %s: no monitor answers: %s", entry.id, error)
        return None


async def _taken_back(engine: "Engine", entry: Entry) -> bool:
    """Whether a monitor answers that watches a living container, which is ours again then. What it tells from now on
    waits for the lock. One whose container has just ended is left to its record, as if it had not answered."""
    async with entry.lock:
        monitor = await _monitor(engine, entry)
        if monitor is None:
            return False
        try:
            status = await monitor.status()
        except ConnectionError:
            return False
        if status["status"] == "exited":
            await unmounted(entry, monitor)
            await monitor.close()
            return False
        await _adopt(engine, entry, monitor, status)
    await _end_probes(engine, status)
    return True


async def _adopt(engine: "Engine", entry: Entry, monitor: Monitor, status: dict[str, Any]) -> None:
    """Take a living container back: its monitor knows the truth."""
    record, state = entry.record, entry.record.state
    entry.monitor = monitor
    if state.status not in ("running", "paused"):  # the daemon was killed between the start and its row
        state.started_at = int(status.get("started_at") or time.time_ns())
    state.status = "paused" if status["status"] == "paused" else "running"
    state.pid = int(status["pid"])
    state.exit_code, state.error = 0, ""
    record.started_before, record.boot_id = True, engine.boot_id
    running = {str(process["id"]): int(process["pid"]) for process in status["execs"]}
    exec.taken_back(engine, entry, running, status.get("exec_exits") or {})
    endpoint = await engine.run_blocking(engine.network.endpoint, record.id)
    if endpoint is not None:
        apply_endpoint(record, endpoint)
    try:
        await update.finish(engine, entry)
    except (WherryError, ConnectionError) as error:  # no reason to give up what runs
        log.error("container %s: its limits could not be set again: %s", entry.id, error)
    if state.status == "running":
        health.resume(engine, entry)
    engine.save(record)


async def _end_probes(engine: "Engine", status: dict[str, Any]) -> None:
    for process in status["execs"]:
        if str(process["id"]).startswith(PROBE):  # nobody is left who would end it in time
            await engine.run_blocking(kill_tree, int(process["pid"]), int(status["monitor_pid"]))


async def _ended(engine: "Engine", entry: Entry, found: Exit) -> None:
    async with entry.lock:
        entry.record.state.status = "running"
        await apply_exit(engine, entry, found, policy=False)
