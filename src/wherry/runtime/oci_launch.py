"""The commands that start processes: create, run, exec; and the foreground ones' terminal and signals."""

import json
import os
import signal
import socket
import time
from typing import Any

from wherry.runtime import console, lifecycle, oci_relay
from wherry.runtime import process as processes
from wherry.runtime.exec import exec_process
from wherry.runtime.failure import StartError, words
from wherry.runtime.lifecycle import Created, Process
from wherry.runtime.oci_cli import Usage
from wherry.runtime.oci_commands import (
    Call,
    cgroup_of,
    delete,
    load_config,
    start_waiting,
    status_of,
    write_pid_file,
)
from wherry.runtime.setup import Gate, Stdio
from wherry.runtime.state import ContainerDirectory, Record, process_start_time

_STDIO = Stdio(0, 1, 2)
_EVERY_CPU = "0-8191"  # as many as a kernel can be built for; those there are not do not count


def _check_terminal(wanted: bool, call: Call, foreground: bool) -> None:
    socket_path = call.text("console-socket")
    if wanted and not foreground and not socket_path:
        raise StartError("InvalidArgument", "cannot allocate tty if runc will detach without setting console socket")
    if socket_path and (foreground or not wanted):
        raise StartError("InvalidArgument", "cannot use console socket if runc will not detach or allocate tty")


def _preserved(call: Call) -> int:
    """--preserve-fds, and what socket activation (LISTEN_FDS) passes."""
    return int(call.text("preserve-fds", "0")) + int(os.environ.get("LISTEN_FDS") or 0)


def _hand_over(call: Call, process: Process, kind: str) -> None:
    """Give what the caller asked for to the sockets and into the file it named. Raises StartError."""
    if call.text("console-socket"):
        console.send(call.text("console-socket"), process.console)
    path = call.text("pidfd-socket")
    if path:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(path)
                socket.send_fds(connection, [kind.encode()], [process.pidfd])
        except OSError as error:
            raise StartError("Internal", f"pidfd socket {path}: {words(error)}") from None
    write_pid_file(call.text("pid-file"), process.pid)


def create(call: Call, *, foreground: bool) -> tuple[ContainerDirectory, Record, Created]:
    """Make a container whose init waits for `start`, or, in the foreground and without hooks, for nothing; everything
    is undone when that fails."""
    directory = call.container()
    bundle = os.path.abspath(call.text("bundle", "."))
    config = load_config(bundle)
    wants_terminal = bool((config.get("process") or {}).get("terminal"))
    _check_terminal(wants_terminal, call, foreground)
    cgroup = cgroup_of(directory.id, config)
    keyring = not call.flag("no-new-keyring")
    directory.create()
    lock = directory.lock()
    try:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = Record(directory.id, 0, 0, bundle, stamp, os.geteuid(), cgroup.path, config, keyring)
        directory.save(record)
        at_once = foreground and not any((config.get("hooks") or {}).values())
        listener = None if at_once else directory.listen()
        created = lifecycle.create(
            config,
            bundle,
            stdio=_STDIO,
            cgroup=cgroup,
            warn=call.log.warn,
            container_id=directory.id,
            gate=Gate(listener) if listener else None,
            at_once=at_once,
            no_pivot=call.flag("no-pivot"),
            new_keyring=keyring,
            preserve_fds=_preserved(call),
        )
        try:
            if listener:
                listener.close()
            else:
                created.start()
            pid = created.process.pid
            record = record._replace(pid=pid, start_time=process_start_time(pid))
            directory.save(record)
            _hand_over(call, created.process, "standard")
        except BaseException:
            os.kill(created.process.pid, signal.SIGKILL)
            os.waitpid(created.process.pid, 0)
            cgroup.remove()
            raise
    except BaseException:
        directory.remove()
        raise
    finally:
        os.close(lock)
    return directory, record, created


def run(call: Call) -> int:
    """create, start, and unless detached wait and delete: the exit code of the container's program."""
    detached = call.flag("detach")
    oci_relay.block_signals()
    directory, record, created = create(call, foreground=not detached)
    try:
        if directory.waiting():
            start_waiting(directory, record, call.log.warn)
    except BaseException:
        delete(directory, True, call.log.warn)
        raise
    if detached:
        return 0
    code = oci_relay.accompany(created.process)
    if not call.flag("keep"):
        delete(directory, True, call.log.warn)
    return code


def execute(call: Call) -> int:
    """exec: the exit code of the program, 0 when detached, 255 when it could not be started."""
    if not call.positional or (len(call.positional) < 2 and not call.text("process")):
        raise Usage("exec needs a container id and a command, or --process")
    directory = ContainerDirectory(call.root, call.positional[0])
    record = directory.load()
    status = status_of(directory, record)
    if status == "stopped":
        raise StartError("Conflict", "cannot exec in a stopped container")
    if status == "paused" and not call.flag("ignore-paused"):
        raise StartError("Conflict", "cannot exec in a paused container (use --ignore-paused to override)")
    process = _process(call, record.config)
    detached = call.flag("detach")
    _check_terminal(bool(process.get("terminal")), call, foreground=not detached)
    cgroup = cgroup_of(directory.id, record.config)
    for path in call.many("cgroup"):
        from wherry.runtime.cgroups import open_cgroup

        cgroup = open_cgroup(f"{cgroup.path}/{path.rpartition(':')[2]}")
    oci_relay.block_signals()
    _move_to_initial_cpus(process)
    try:
        started = exec_process(
            record.pid,
            record.config,
            process,
            stdio=_STDIO,
            seccomp_filter=None,
            cgroup=cgroup if cgroup.exists() else None,
            warn=call.log.warn,
            container_id=directory.id if record.keyring else None,
            preserve_fds=_preserved(call),
        )
    except StartError as error:
        call.log.write("error", f"exec failed: {error.message}")
        return 255
    try:
        _hand_over(call, started, "setns")
    except BaseException:
        os.kill(started.pid, signal.SIGKILL)
        raise
    return 0 if detached else oci_relay.accompany(started)


def _move_to_initial_cpus(process: dict[str, Any]) -> None:
    """Run on execCPUAffinity's `initial`, and so does the process until it is in its cgroup. Without a `final` it may
    then use what the cgroup allows: an affinity, once asked for, outlives the entry into a cgroup."""
    affinity = process.get("execCPUAffinity") or {}
    cpus = processes.cpu_list(affinity.get("initial") or "")
    if not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise StartError(
            "InvalidArgument", f"execCPUAffinity.initial {affinity['initial']!r}: {words(error)}"
        ) from None
    process["execCPUAffinity"] = {**affinity, "final": affinity.get("final") or _EVERY_CPU}


def _process(call: Call, config: dict[str, Any]) -> dict[str, Any]:
    """The process to execute: --process FILE, else the container's own changed by the options."""
    if call.text("process"):
        with open(call.text("process"), encoding="utf-8") as file:
            decoded: dict[str, Any] = json.load(file)
        return decoded
    process: dict[str, Any] = json.loads(json.dumps(config["process"]))
    process["args"] = call.positional[1:]
    process["terminal"] = call.flag("tty")
    process.pop("consoleSize", None)
    process.pop("commandLine", None)
    if call.text("cwd"):
        process["cwd"] = call.text("cwd")
    process["env"] = [*(process.get("env") or []), *call.many("env")]
    if call.flag("no-new-privs"):
        process["noNewPrivileges"] = True
    if call.text("apparmor"):
        process["apparmorProfile"] = call.text("apparmor")
    if call.text("process-label"):
        process["selinuxLabel"] = call.text("process-label")
    _add_capabilities(process, call.many("cap"))
    if call.text("user"):
        process["user"] = _user(call.text("user"))
    if call.many("additional-gids"):
        process.setdefault("user", {})["additionalGids"] = [int(gid) for gid in call.many("additional-gids")]
    return process


def _add_capabilities(process: dict[str, Any], names: list[str]) -> None:
    if not names:
        return
    sets = process.setdefault("capabilities", {})
    for kind in ("bounding", "effective", "permitted"):
        present = sets.get(kind) or []
        sets[kind] = present + [name for name in names if name not in present]


def _user(text: str) -> dict[str, Any]:
    """--user takes numbers: "uid[:gid]"."""
    uid, colon, gid = text.partition(":")
    if not uid.isdigit() or (colon and not gid.isdigit()):
        raise StartError("InvalidArgument", f"parsing {text} as int for uid failed")
    return {"uid": int(uid), "gid": int(gid or 0)}
