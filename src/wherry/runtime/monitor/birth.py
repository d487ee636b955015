"""Making the container's processes, in a helper: a child of the monitor that ends when the process runs.

The runtime's work touches much memory, and a page that is touched after a fork is a page of one's own. The helper
takes all that with it when it ends; its child, the container's init or the exec'd process, then belongs to the
monitor, which is a subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)). The helper's children are born in the container's PID
namespace; the monitor's own are not.

    monitor                          helper
    fork ──────────────────────────▶ decode the body, lifecycle.create, start (or wait for "go")
    Born ◀── pid, pidfd, terminal ── exit
"""

import os
from _socket import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from wherry.failpoint import hit
from wherry.linux import fdpass, memfd
from wherry.runtime import lifecycle
from wherry.runtime.cgroups import Cgroup, open_cgroup
from wherry.runtime.exec import exec_process
from wherry.runtime.failure import StartError
from wherry.runtime.monitor import protocol
from wherry.runtime.monitor.stdio import Pipes

_GO = b"go"
_LARGEST_FILTER = 1 << 20


class Order(NamedTuple):
    """What to make: the message's small part, the files of its large part and of the seccomp filter (-1: none), the
    pipes."""

    head: dict[str, Any]
    body: int
    filter: int
    pipes: Pipes


class Born(NamedTuple):
    """A process that runs, or waits at its gate; `oom_fd` is -1 for an exec and where memory is not watched."""

    process: lifecycle.Process
    oom_fd: int
    warnings: list[str]


class Helper:
    """The helper of a container that is created now and started later."""

    def __init__(self, pid: int, link: socket) -> None:
        self._pid = pid
        self._link = link

    def start(self) -> None:
        """Open the gate; the helper ends. Raises StartError."""
        try:
            fdpass.send(self._link, protocol.encode({"op": "go"}))
            _answer(self._link)
        except OSError as error:
            raise StartError("Internal", f"the container's init is gone: {error.strerror}") from None
        finally:
            self.end()

    def end(self) -> None:
        """Let it go; an init still at its gate ends with it."""
        self._link.close()
        os.waitpid(self._pid, 0)


def create(order: Order) -> tuple[Born, Helper | None]:
    """Make the container, and start it if `head["start"]`, else return the helper that can. Raises StartError with
    everything undone."""
    helper = _fork(lambda link: _create(link, order))
    born = _await(helper)
    if not order.head.get("start"):
        return born, helper
    helper.end()
    return born, None


def execute(order: Order, init_pid: int) -> Born:
    """Run a further process beside `init_pid`. Raises StartError."""
    helper = _fork(lambda link: _execute(link, order, init_pid))
    born = _await(helper)
    helper.end()
    return born


# ---------------------------------------------------------------- the monitor's side


def _fork(work: Callable[[socket], None]) -> Helper:
    ours, theirs = fdpass.pair()
    pid = os.fork()
    if not pid:
        ours.close()
        _be_helper(theirs, work)
    theirs.close()
    return Helper(pid, ours)


def _await(helper: Helper) -> Born:
    try:
        message, fds = _answer(helper._link)
    except BaseException:
        helper.end()
        raise
    pidfd = fds.pop(0)
    console = fds.pop(0) if message["console"] else -1
    oom_fd = fds.pop(0) if message["oom"] else -1
    return Born(lifecycle.Process(message["pid"], pidfd, console), oom_fd, message["warnings"])


def _answer(link: socket) -> tuple[dict[str, Any], list[int]]:
    record, fds = fdpass.receive(link, protocol.LARGEST_RECORD)
    if not record:
        raise StartError("Internal", "the process that makes containers ended unexpectedly")
    message = protocol.decode(record, fds)
    if "error" in message:
        raise StartError(message["error"]["kind"], message["error"]["message"])
    return message, fds


# ---------------------------------------------------------------- the helper's side


def _be_helper(link: socket, work: Callable[[socket], None]) -> None:
    try:
        try:
            work(link)
        except StartError as error:
            _refuse(link, error.kind, error.message)
        except Exception as error:
            _refuse(link, "Internal", f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _refuse(link: socket, kind: str, message: str) -> None:
    protocol.send(link, protocol.encode({"error": {"kind": kind, "message": message}}))


def _create(link: socket, order: Order) -> None:
    body = protocol.decode_file(order.body)
    config, warnings = body["config"], list[str]()
    cgroup = open_cgroup(order.head["cgroup"]) if order.head.get("cgroup") else None
    hit("monitor.before_create")
    created = lifecycle.create(
        config,
        order.head["bundle"],
        stdio=order.pipes.child,
        rootfs_mounts=body.get("rootfs_mounts"),
        seccomp_filter=_filter(order),
        cgroup=cgroup,
        warn=warnings.append,
        container_id=order.head["id"],
    )
    try:
        oom_fd = _watch_oom(cgroup, warnings)
        if order.head.get("start"):
            hit("monitor.before_start")
            created.start()
        _report(link, created.process, oom_fd, warnings)
        if not order.head.get("start"):
            _start_when_told(link, created)
    except BaseException:
        _undo(created.process, cgroup)
        raise


def _start_when_told(link: socket, created: lifecycle.Created) -> None:
    record, _ = fdpass.receive(link, 64)
    if not record:
        raise StartError("Internal", "never started")
    created.start()
    protocol.send(link, protocol.encode({}))


def _undo(process: lifecycle.Process, cgroup: Cgroup | None) -> None:
    try:
        os.kill(process.pid, 9)
        os.waitpid(process.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    if cgroup:
        cgroup.kill()
        cgroup.remove()


def _execute(link: socket, order: Order, init_pid: int) -> None:
    body, warnings = protocol.decode_file(order.body), list[str]()
    flags = order.head.get("seccomp_flags")
    body["process"].setdefault("oomScoreAdj", order.head.get("oom_score"))
    hit("monitor.before_exec")
    process = exec_process(
        init_pid,
        {"linux": {"seccomp": {"flags": flags}}} if flags is not None else {},
        body["process"],
        stdio=order.pipes.child,
        seccomp_filter=_filter(order),
        cgroup=open_cgroup(order.head["cgroup"]) if order.head.get("cgroup") else None,
        warn=warnings.append,
        container_id=order.head["id"],
    )
    _report(link, process, -1, warnings)


def _filter(order: Order) -> bytes | None:
    return memfd.read(order.filter, _LARGEST_FILTER) if order.filter >= 0 else None


def _report(link: socket, process: lifecycle.Process, oom_fd: int, warnings: list[str]) -> None:
    fds = [process.pidfd, *(fd for fd in (process.console, oom_fd) if fd >= 0)]
    message = {"pid": process.pid, "console": process.console >= 0, "oom": oom_fd >= 0, "warnings": warnings}
    protocol.send(link, protocol.encode(message), fds)


def _watch_oom(cgroup: Cgroup | None, warnings: list[str]) -> int:
    if cgroup is None:
        return -1
    try:
        return cgroup.oom_events()[0]
    except OSError as error:
        warnings.append(f"out-of-memory events are not seen: {error.strerror}")
        return -1
