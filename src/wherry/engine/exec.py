"""Exec: another process in a running container."""

import logging
import os
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wherry.engine import detach_keys, specs
from wherry.engine.attach import Pending
from wherry.engine.containers import Entry
from wherry.engine.model import ExecConfig, ExecRecord
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, WherryError
from wherry.failpoint import hit
from wherry.http.hijack import MULTIPLEXED_STREAM, RAW_STREAM, Hijack
from wherry.runtime.client import Attachment
from wherry.runtime.failure import StartError
from wherry.runtime.users import read_database, resolve

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger("wherry.engine")

PREFIX = "OCI runtime exec failed: exec failed: unable to start container process: "
PROBE = "probe-"
"""What the monitor's name of a health probe begins with: a new daemon finds those that an earlier one left."""


async def create_exec(engine: "Engine", ref: str, config: ExecConfig) -> str:
    """Prepare a process; returns its id. Raises `Conflict` when the container does not run (or is paused),
    `InvalidArgument` for no command, an unknown user or bad detach keys. POST /containers/{id}/exec."""
    entry = engine.containers.lookup(ref)
    entry.check("exec", ref)
    if not config.Cmd:
        raise InvalidArgument("No exec command specified")
    try:
        detach_keys.parse(config.DetachKeys)
    except InvalidArgument:
        raise Internal(f"Invalid escape keys ({config.DetachKeys}) provided") from None
    if config.User:
        await engine.run_blocking(_check_user, entry.record.state.pid, config.User)
    record = prepare(engine, entry, config)
    engine.execs.keep(record)
    return record.id


def prepare(engine: "Engine", entry: Entry, config: ExecConfig) -> ExecRecord:
    """Register a process to be run, whatever the container's state."""
    record = ExecRecord(id=secrets.token_hex(32), container_id=entry.id, config=config)
    engine.execs.add(record)
    entry.exec_ids.append(record.id)
    _publish(engine, entry, record, f"exec_create: {_command(record)}")
    return record


def _command(record: ExecRecord) -> str:
    """As Docker's events show it: the program, a space, the arguments."""
    return f"{record.entrypoint} {' '.join(record.arguments)}"


def _check_user(pid: int, user: str) -> None:
    """Docker looks the user up at once; so do we, inside the container's root by descriptor."""
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # it just ended: start will say so
    try:
        resolve(user, read_database(root, "/etc/passwd"), read_database(root, "/etc/group"))
    except StartError as error:
        raise InvalidArgument(error.message) from None
    finally:
        os.close(root)


async def start_exec(
    engine: "Engine",
    exec_id: str,
    *,
    detach: bool,
    tty: bool = False,
    console_size: tuple[int, int] | None = None,
    connection: Hijack | None = None,
) -> None:
    """Run a prepared process, with the client's connection as its streams unless `detach`.

    Raises `NotFound`, `Conflict` (already run, container not running), `InvalidArgument` when the command cannot be
    run; the last after `connection` was accepted: the caller tells it in band. POST /exec/{id}/start.
    """
    record = engine.execs.get(exec_id)
    entry = engine.containers.get(record.container_id)
    if record.started:
        state = "is already running" if record.running else "has already run"
        raise Conflict(f"exec command {exec_id} {state}")
    if entry is None:
        raise NotFound(f"No such container: {exec_id}")
    entry.check("exec")
    record.started = True
    size = console_size or record.config.ConsoleSize
    if detach or connection is None:
        await engine.to_the_end(run(engine, entry, record, [], size))
        return
    await connection.accept(RAW_STREAM if record.config.Tty else MULTIPLEXED_STREAM)
    client, early = await connection.hand_over()
    pending = Pending(client, _attachment(client.fileno(), record.config, early))
    try:
        await engine.to_the_end(run(engine, entry, record, [pending.attachment], size))
    finally:
        pending.close()
    connection.release()


def _attachment(fd: int, config: ExecConfig, early: bytes) -> Attachment:
    return Attachment(
        fd=fd,
        stdin=config.AttachStdin,
        stdout=config.AttachStdout,
        stderr=config.AttachStderr,
        mux=not config.Tty,
        detach_keys=detach_keys.parse(config.DetachKeys) if config.Tty else b"",
        early=early,
        id=secrets.token_hex(8),
    )


async def run(
    engine: "Engine",
    entry: Entry,
    record: ExecRecord,
    attachments: list[Attachment],
    size: tuple[int, int] | None = None,
    *,
    probe: bool = False,
) -> None:
    """Start a prepared process; returns when its program runs. A `probe` adopts the orphans it leaves, and the monitor
    knows it by a name of its own. Raises `Conflict` when the container does not run, `InvalidArgument` when the
    command cannot be run."""
    config = record.config
    record.started = record.running = True
    _publish(engine, entry, record, f"exec_start: {_command(record)}")
    try:
        monitor = entry.monitor
        if monitor is None:
            raise Conflict(f"container {entry.id} is not running")
        hit("engine.exec.before_spawn")
        process = specs.exec_config(engine, entry, config)
        record.pid = await monitor.exec(
            PROBE + record.id if probe else record.id,
            {**process, "subreaper": True} if probe else process,
            stdio={"tty": config.Tty, "open_stdin": config.AttachStdin, "stdin_once": True},
            attachments=attachments,
            seccomp_filter=None,
            console_size=list(size) if size and size[0] and size[1] else None,
        )
        hit("engine.exec.after_spawn")
        engine.execs.save(record)
    except WherryError as error:
        raise _failed(engine, entry, record, error) from error
    except ConnectionError as error:
        raise _failed(engine, entry, record, Conflict(f"container {entry.id} is not running")) from error
    except Exception as error:
        log.exception("unexpected error while starting an exec, please report it")
        raise _failed(engine, entry, record, Internal(str(error) or type(error).__name__)) from error


def _failed(engine: "Engine", entry: Entry, record: ExecRecord, error: WherryError) -> WherryError:
    text = str(error)
    missing = "executable file not found" in text or "no such file or directory" in text.lower()
    _close(engine, entry, record, 127 if missing else 126)
    if isinstance(error, Conflict):
        return error
    return InvalidArgument(text if text.startswith("OCI runtime exec failed") else PREFIX + text)


def finished(engine: "Engine", entry: Entry, exec_id: str, exit_code: int) -> None:
    """The monitor reports the end of an exec."""
    record = engine.execs.find(exec_id.removeprefix(PROBE))
    if record is not None and record.exit_code is None:
        _ended(engine, entry, record, exit_code)


def _ended(engine: "Engine", entry: Entry, record: ExecRecord, exit_code: int) -> None:
    # In this order: whoever waits for the end runs after this, and what follows from it is told after it.
    _close(engine, entry, record, exit_code)
    _publish(engine, entry, record, "exec_die", exitCode=str(exit_code))


def _close(engine: "Engine", entry: Entry, record: ExecRecord, exit_code: int) -> None:
    """Close the books on an exec. One that never ran does not die: there is no event of it."""
    record.running, record.exit_code = False, exit_code
    engine.execs.save(record)
    engine.execs.ended(record.id)
    if record.id in entry.exec_ids:
        entry.exec_ids.remove(record.id)


def container_ended(engine: "Engine", entry: Entry) -> None:
    """No process of the container is left: close the books on its execs."""
    for exec_id in tuple(entry.exec_ids):
        record = engine.execs.find(exec_id)
        if record is not None and record.running:
            _ended(engine, entry, record, 137)
        elif record is not None:
            engine.execs.ended(exec_id)
    entry.exec_ids.clear()


def load(engine: "Engine") -> None:
    """At start: the execs an earlier daemon knew, with those of their containers that are there."""
    for record in engine.execs.load():
        entry = engine.containers.get(record.container_id)
        if entry is None:
            engine.execs.drop(record.id)
        elif record.exit_code is None:
            entry.exec_ids.append(record.id)


def taken_back(engine: "Engine", entry: Entry, running: dict[str, int], exits: Mapping[str, int]) -> None:
    """At start: what the monitor knows of the container's execs, the pids of those that run and the exit codes of those
    that ended unheard."""
    for exec_id in tuple(entry.exec_ids):
        record = engine.execs.get(exec_id)
        if exec_id in running:
            record.started = record.running = True
            record.pid = running[exec_id]
        elif exec_id in exits:
            finished(engine, entry, exec_id, exits[exec_id])
        elif record.running:
            _ended(engine, entry, record, 137)


def find_exec(engine: "Engine", exec_id: str) -> ExecRecord:
    """The record of an exec. Raises `NotFound` when it, or its container, is not there."""
    record = engine.execs.get(exec_id)
    if engine.containers.get(record.container_id) is None:
        raise NotFound(f"No such container: {exec_id}")
    return record


def inspect_exec(engine: "Engine", exec_id: str) -> ExecRecord:
    """The record of an exec of a container that is there. GET /exec/{id}/json."""
    record = engine.execs.get(exec_id)
    if engine.containers.get(record.container_id) is None:
        raise NotFound(f"No such exec instance: {exec_id}")
    return record


async def resize_exec(engine: "Engine", exec_id: str, height: int, width: int) -> None:
    """Set the terminal size of a running exec. POST /exec/{id}/resize."""
    record = engine.execs.get(exec_id)
    entry = engine.containers.get(record.container_id)
    if entry is None or entry.monitor is None or not record.running:
        raise NotFound(f"NotFound: process does not exist {exec_id}: not found")
    await entry.monitor.resize(height, width, exec_id)


def _publish(engine: "Engine", entry: Entry, record: ExecRecord, action: str, **extra: str) -> None:
    engine.publish(entry.record, action, {"execID": record.id, **extra})
