"""The commands of the OCI command line, one function each."""

import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wherry.linux.pidfd import pidfd_open, pidfd_send_signal
from wherry.runtime import cgroups, hooks
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.failure import StartError, words
from wherry.runtime.oci_cli import Log, Usage, Values
from wherry.runtime.state import OCI_VERSION, ContainerDirectory, Record, containers, process_start_time, write_whole

if TYPE_CHECKING:
    from wherry.runtime.wire import Wire

_KILL_PATIENCE_S = 10.0


class Call:
    """One call of the command line."""

    def __init__(self, root: str, values: Values, positional: list[str], log: Log) -> None:
        self.root = root
        self.values = values
        self.positional = positional
        self.log = log

    def text(self, name: str, default: str = "") -> str:
        """The value of an option."""
        value = self.values.get(name)
        return value if isinstance(value, str) else default

    def flag(self, name: str) -> bool:
        """Whether an option without value was given."""
        return bool(self.values.get(name))

    def many(self, name: str) -> list[str]:
        """All values of an option."""
        value = self.values.get(name)
        return value if isinstance(value, list) else []

    def container(self, at_most: int = 1) -> ContainerDirectory:
        """The container named by the first argument. Raises Usage for a wrong number of arguments."""
        if not self.positional or len(self.positional) > at_most:
            raise Usage(f"expected a container id and at most {at_most - 1} more arguments")
        return ContainerDirectory(self.root, self.positional[0])


def run(command: str, root: str, values: Values, positional: list[str], log: Log) -> int:
    """Execute a command; failures go to the log, and give 1."""
    call = Call(root, values, positional, log)
    try:
        return _COMMANDS[command](call)
    except StartError as error:
        log.write("error", error.message)
    except OSError as error:
        log.write("error", f"{error.filename}: {words(error)}" if error.filename else words(error))
    except ValueError as error:
        log.write("error", str(error))
    return 1


def load_config(bundle: str) -> dict[str, Any]:
    """Decode the bundle's config.json. Raises StartError."""
    try:
        fd = os.open(os.path.join(bundle, "config.json"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise StartError("NotFound", "JSON specification file config.json not found") from None
    with open(fd, "rb") as file:
        config = json.load(file)
    if not isinstance(config, dict):
        raise StartError("InvalidArgument", "config.json is not an object")
    return config


def cgroup_of(container_id: str, config: dict[str, Any]) -> Cgroup:
    """The container's cgroup: linux.cgroupsPath, or one named by its id. Raises StartError for a systemd slice."""
    path = (config.get("linux") or {}).get("cgroupsPath") or f"/{container_id}"
    if ":" in path:
        raise StartError("InvalidArgument", f"cgroupsPath {path!r} is a systemd slice, which is not supported")
    return cgroups.open_cgroup(path)


def status_of(directory: ContainerDirectory, record: Record) -> str:
    """created, running, paused or stopped."""
    if not record.alive():
        return "stopped"
    if directory.waiting():
        return "created"
    try:
        return "paused" if cgroups.open_cgroup(record.cgroup).frozen() else "running"
    except OSError:
        return "running"


def state_of(directory: ContainerDirectory, record: Record) -> dict[str, Any]:
    """What `state` prints: runtime.md, "State", and runc's additions."""
    status = status_of(directory, record)
    return {
        "ociVersion": OCI_VERSION,
        "id": record.id,
        "pid": 0 if status == "stopped" else record.pid,
        "status": status,
        "bundle": record.bundle,
        "rootfs": os.path.realpath(os.path.join(record.bundle, record.config["root"]["path"])),
        "created": record.created,
        "owner": "root" if record.owner == 0 else str(record.owner),
        "annotations": record.config.get("annotations") or {},
    }


def hook_state(record: Record, status: str) -> hooks.State:
    """What hooks are told."""
    return hooks.State(record.id, status, record.pid, record.bundle, record.config.get("annotations") or {})


def write_pid_file(path: str, pid: int) -> None:
    """The pid in decimal, whole or absent; no path, no file."""
    if path:
        write_whole(os.path.abspath(path), str(pid).encode())


def _create(call: Call) -> int:
    from wherry.runtime import oci_launch

    oci_launch.create(call, foreground=False)
    return 0


def _run_container(call: Call) -> int:
    from wherry.runtime import oci_launch

    return oci_launch.run(call)


def _exec(call: Call) -> int:
    from wherry.runtime import oci_launch

    return oci_launch.execute(call)


def start_waiting(directory: ContainerDirectory, record: Record, warn: Callable[[str], None]) -> None:
    """Open the gate of a created container. Raises StartError."""
    status = status_of(directory, record)
    if status != "created":
        reason = "has stopped" if status == "stopped" else "is already running"
        raise StartError("Conflict", f"cannot start a container that {reason}")
    from wherry.runtime import wire

    connection = wire.Wire(directory.knock())
    try:
        wire.open_gate(connection)
        _await_program(connection, record)
    finally:
        connection.close()
    directory.open_gate()
    try:
        hooks.run_all(
            (record.config.get("hooks") or {}).get("poststart") or [], "poststart", hook_state(record, "running")
        )
    except StartError as error:
        warn(error.message)


def _await_program(connection: "Wire", record: Record) -> None:
    namespaces = (record.config.get("linux") or {}).get("namespaces") or ()
    if not any(entry.get("type") == "pid" and entry.get("path") for entry in namespaces):
        connection.receive()
        return
    from wherry.runtime import late

    pidfd = pidfd_open(record.pid)
    try:
        late.await_program(connection, pidfd, late.patience(record.config))
    finally:
        os.close(pidfd)


def _start(call: Call) -> int:
    directory = call.container()
    lock = directory.lock()
    try:
        start_waiting(directory, directory.load(), call.log.warn)
    finally:
        os.close(lock)
    return 0


def _state(call: Call) -> int:
    directory = call.container()
    print(json.dumps(state_of(directory, directory.load()), indent=2))
    return 0


def signal_number(name: str) -> int:
    """A signal's number from "9", "KILL" or "SIGKILL". Raises StartError."""
    if name.isdigit() and 0 <= int(name) <= 64:
        return int(name)
    word = name.upper()
    try:
        return signal.Signals[word if word.startswith("SIG") else f"SIG{word}"].value
    except KeyError:
        raise StartError("InvalidArgument", f'unknown signal "{name}"') from None


def _kill(call: Call) -> int:
    directory = call.container(2)
    number = signal_number(call.positional[1] if len(call.positional) > 1 else "TERM")
    record = directory.load()
    if call.flag("all"):
        _signal_all(cgroups.open_cgroup(record.cgroup), number)
        return 0
    if not record.alive():
        raise StartError("Conflict", "container not running")
    _signal_init(record, number)
    return 0


def _signal_init(record: Record, number: int) -> None:
    """By descriptor, opened before the last look at who it is: the pid may have been given to another since."""
    try:
        pidfd = pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if record.alive():
            pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def _signal_all(cgroup: Cgroup, number: int) -> None:
    if number == signal.SIGKILL:
        cgroup.kill()
        return
    for pid in cgroup.pids():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _delete(call: Call) -> int:
    directory = call.container()
    force = call.flag("force")
    if not os.path.isdir(directory.path):
        if force:
            return 0
        raise StartError("NotFound", "container does not exist")
    lock = directory.lock()
    try:
        delete(directory, force, call.log.warn)
    finally:
        os.close(lock)
    return 0


def delete(directory: ContainerDirectory, force: bool, warn: Callable[[str], None]) -> None:
    """Remove what is left of a container. Raises StartError when it runs and is not to be forced."""
    try:
        record = directory.load()
    except StartError:
        if not force:
            raise
        directory.remove()
        return
    status = status_of(directory, record)
    if status in ("running", "paused") and not force:
        raise StartError("Conflict", f"cannot delete container {record.id} that is not stopped: {status}")
    cgroup = cgroups.open_cgroup(record.cgroup)
    if status != "stopped":
        _end(record, cgroup)
    if cgroup.exists():
        cgroup.kill()
        cgroup.remove()
    try:
        hooks.run_all(
            (record.config.get("hooks") or {}).get("poststop") or [], "poststop", hook_state(record, "stopped")
        )
    except StartError as error:
        warn(error.message)
    directory.remove()


def _end(record: Record, cgroup: Cgroup) -> None:
    """Kill init and wait until it is gone (a zombie is)."""
    _signal_init(record, signal.SIGKILL)
    if cgroup.exists():
        cgroup.kill()
        cgroup.thaw()
    deadline = time.monotonic() + _KILL_PATIENCE_S
    while process_start_time(record.pid) == record.start_time:
        if time.monotonic() > deadline:
            raise StartError("Internal", "container init still running")
        time.sleep(0.002)


def _list(call: Call) -> int:
    if call.positional:
        raise Usage("list takes no arguments")
    records = containers(call.root)
    if call.flag("quiet"):
        for record in records:
            print(record.id)
        return 0
    states = [state_of(ContainerDirectory(call.root, record.id), record) for record in records]
    if _wants_json(call):
        print(json.dumps(states))
        return 0
    rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    rows += [(s["id"], str(s["pid"]), s["status"], s["bundle"], s["created"], s["owner"]) for s in states]
    _print_table(rows)
    return 0


def _wants_json(call: Call) -> bool:
    """--format. Raises StartError."""
    wanted = call.text("format", "table")
    if wanted not in ("table", "json"):
        raise StartError("InvalidArgument", "invalid format option")
    return wanted == "json"


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _ps(call: Call) -> int:
    directory = call.container(64)
    pids = sorted(cgroups.open_cgroup(directory.load().cgroup).pids())
    if _wants_json(call):
        print(json.dumps(pids))
        return 0
    for line in _ps_lines(call.positional[1:] or ["-ef"], set(pids)):
        print(line)
    return 0


def _ps_lines(options: list[str], pids: set[int]) -> list[str]:
    """What the host's ps(1), called with `options`, prints of `pids`, and its heading. Raises StartError."""
    import subprocess

    try:
        done = subprocess.run(["ps", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except FileNotFoundError:
        raise StartError("Internal", 'exec: "ps": executable file not found in $PATH') from None
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        raise StartError("Internal", f"exit status {done.returncode}: {output}")
    heading, *rows = output.splitlines() or [""]
    if "PID" not in heading.split():
        raise StartError("Internal", "couldn't find PID field in ps output")
    column = heading.split().index("PID")
    return [heading, *(row for row in rows if row.split() and int(row.split()[column]) in pids)]


def _pause(call: Call) -> int:
    directory = call.container()
    record = directory.load()
    if status_of(directory, record) not in ("running", "created"):
        raise StartError("Conflict", "container not running")
    cgroups.open_cgroup(record.cgroup).freeze()
    return 0


def _resume(call: Call) -> int:
    directory = call.container()
    record = directory.load()
    if status_of(directory, record) != "paused":
        raise StartError("Conflict", "container not paused")
    cgroups.open_cgroup(record.cgroup).thaw()
    return 0


def _update(call: Call) -> int:
    directory = call.container()
    record = directory.load()
    if not record.alive():
        raise StartError("Conflict", "container not running")
    resources = _resources(call)
    _refuse_rdt(call)
    for warning in cgroups.open_cgroup(record.cgroup).update(resources):
        call.log.warn(warning)
    return 0


_MEMORY = {"memory": "limit", "memory-reservation": "reservation", "memory-swap": "swap"}
_CPU = {
    "cpu-period": "period",
    "cpu-quota": "quota",
    "cpu-burst": "burst",
    "cpu-share": "shares",
    "cpu-rt-period": "realtimePeriod",
    "cpu-rt-runtime": "realtimeRuntime",
    "cpu-idle": "idle",
}
_SIGNED = ("cpu-quota", "cpu-rt-runtime", "cpu-idle")
_SIZE = re.compile(r"(\d+(?:\.\d+)*) ?([kmgtp])?i?b?", re.IGNORECASE)  # as go-units reads it


def _invalid(option: str, reason: str) -> StartError:
    return StartError("InvalidArgument", f"invalid value for {option}: {reason}")


def _bytes(option: str, text: str) -> int:
    if text == "-1":
        return -1
    match = _SIZE.fullmatch(text)
    if not match:
        raise _invalid(option, f"invalid size: '{text}'")
    return int(float(match[1]) * (1 << 10 * " kmgtp".index((match[2] or " ").lower())))


def _number(option: str, text: str) -> int:
    signed = option in _SIGNED
    if not re.fullmatch("[+-]?[0-9]+" if signed else "[0-9]+", text):
        raise _invalid(option, f'strconv.Parse{"Int" if signed else "Uint"}: parsing "{text}": invalid syntax')
    return int(text)


def _flag_number(call: Call, option: str) -> int | None:
    """An option that is a number for the parser of the command line already."""
    text = call.text(option)
    if text and not re.fullmatch("[+-]?[0-9]+", text):
        raise Usage(f'invalid value "{text}" for flag -{option}: parse error')
    return int(text) if text else None


def _resources(call: Call) -> dict[str, Any]:
    """linux.resources from a file ("-": stdin) or from the options: nothing is no error."""
    source = call.text("resources")
    if source:
        return _read_resources(source)
    pids, weight = _flag_number(call, "pids-limit"), _flag_number(call, "blkio-weight")
    resources: dict[str, Any] = {}
    for option, key in _MEMORY.items():
        if call.text(option):
            resources.setdefault("memory", {})[key] = _bytes(option, call.text(option))
    for option, key in _CPU.items():
        if call.text(option):
            resources.setdefault("cpu", {})[key] = _number(option, call.text(option))
    for option, key in (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")):
        if call.text(option):
            resources.setdefault("cpu", {})[key] = call.text(option)
    if pids is not None:
        resources["pids"] = {"limit": pids}
    if weight is not None:
        resources["blockIO"] = {"weight": weight}
    return resources


def _read_resources(source: str) -> dict[str, Any]:
    with sys.stdin if source == "-" else open(source, encoding="utf-8") as file:
        text = file.read()
    if not text.strip():
        raise StartError("InvalidArgument", "EOF")
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def _refuse_rdt(call: Call) -> None:
    """Intel's cache and memory bandwidth control; no container of ours is in such a group. Raises StartError."""
    if call.text("l3-cache-schema"):
        raise StartError("InvalidArgument", "Intel RDT/CAT: l3 cache schema is not enabled")
    if call.text("mem-bw-schema"):
        raise StartError("InvalidArgument", "Intel RDT/MBA: memory bandwidth schema is not enabled")


def _duration_s(text: str) -> float:
    """A Go duration of one unit: "5s", "500ms", "1m"."""
    for suffix, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        number = text.removesuffix(suffix)
        if number != text:
            return float(number) * factor
    raise Usage(f"bad duration {text!r}")


def _events(call: Call) -> int:
    directory = call.container()
    record = directory.load()
    if not record.alive():
        raise StartError("Conflict", "container not running")
    cgroup = cgroups.open_cgroup(record.cgroup)
    if call.flag("stats"):
        _print_event("stats", record.id, cgroup.stats())
        return 0
    interval_s = _duration_s(call.text("interval", "5s"))
    if interval_s <= 0:
        raise Usage("duration interval must be greater than 0")
    oom_fd, oom_count = cgroup.oom_events()
    poller = select.poll()
    poller.register(oom_fd, select.POLLIN)
    due = time.monotonic() + interval_s
    killed = oom_count()
    while record.alive():
        if poller.poll(max(0.0, due - time.monotonic()) * 1000):
            os.read(oom_fd, 4096)
            if oom_count() > killed:
                killed = oom_count()
                _print_event("oom", record.id, None)
        else:
            _print_event("stats", record.id, cgroup.stats())
            due += interval_s
    return 0


def _print_event(kind: str, container_id: str, data: dict[str, Any] | None) -> None:
    event: dict[str, Any] = {"type": kind, "id": container_id}
    if data is not None:
        event["data"] = data
    print(json.dumps(event), flush=True)


def _spec(call: Call) -> int:
    from wherry.runtime import oci_templates

    path = os.path.join(call.text("bundle", "."), "config.json")
    if os.path.lexists(path):
        raise StartError("Conflict", "File config.json exists. Remove it first")
    text = json.dumps(oci_templates.example(rootless=call.flag("rootless")), indent="\t")
    write_whole(os.path.abspath(path), text.encode())
    os.chmod(path, 0o644)
    return 0


def _features(call: Call) -> int:
    from wherry.runtime import oci_templates

    print(json.dumps(oci_templates.features(), indent=4))
    return 0


def _refuse(call: Call) -> int:
    raise StartError("Unimplemented", "checkpoint and restore are not supported by this runtime")


_COMMANDS: dict[str, Callable[[Call], int]] = {
    "create": _create,
    "run": _run_container,
    "start": _start,
    "exec": _exec,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
    "list": _list,
    "ps": _ps,
    "pause": _pause,
    "resume": _resume,
    "update": _update,
    "events": _events,
    "spec": _spec,
    "features": _features,
    "checkpoint": _refuse,
    "restore": _refuse,
}
