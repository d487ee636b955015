"""Making the container's processes, in a helper: a child of the monitor that ends when the process runs.

The runtime's work touches much memory, and a page that is touched after a fork is a page of one's own. The helper
takes all that with it when it ends; its child, the container's init or the exec'd process, then belongs to the
monitor, which is a subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)). The helper's children are born in the container's PID
namespace; the monitor's own are not.

    monitor                             helper
    fork ─────────────────────────────▶ waits for a request
    ◀── begun ───────────────────────── decode, lifecycle.create, start (or wait for "go")
    ◀── pid, pidfd, terminal, pipes ─── exit

From "begun" on its time is limited; see `overdue`.

For the container itself the helper also opens what the monitor keeps, and answers the daemon. That of an exec is the
process that sets up (`runtime.exec`); the monitor goes on meanwhile (`joining`).
"""

import os
import select
import signal
import struct
import sys
import time
from _socket import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from wherry.failpoint import hit
from wherry.linux import fdpass, memfd
from wherry.runtime import lifecycle, wire
from wherry.runtime.cgroups import Cgroup, open_cgroup
from wherry.runtime.child import end_child
from wherry.runtime.exec import Joiner, join_container
from wherry.runtime.failure import StartError
from wherry.runtime.late import too_late
from wherry.runtime.logs.drivers import check_target, open_writer
from wherry.runtime.monitor import control, protocol
from wherry.runtime.monitor.stdio import Pipes, open_pipes

if TYPE_CHECKING:
    from wherry.runtime.foreign import Created, Runtime

_LARGEST_FILTER = 1 << 20
_LOG_PREFIX = "failed to create task for container: failed to initialize logging driver: "


EXEC_HEAD = ("id", "cgroup", "oom_score", "seccomp_flags", "runtime", "bundle")
"""What of a container's request its execs need, too."""


class Order(NamedTuple):
    """What to make: the message's small part, the files of its large part and of the seccomp filter (-1: none), the
    pipes."""

    head: dict[str, Any]
    body: int
    filter: int
    pipes: Pipes


def take_order(head: dict[str, Any], message: dict[str, Any], fds: list[int]) -> Order:
    """Take the files of `message` from the end of `fds` and open the pipes it asks for. Raises OSError."""
    stdio = message["stdio"]
    body = fds.pop()
    seccomp = fds.pop() if message.get("filter") else -1
    return Order(head, body, seccomp, open_pipes(tty=bool(stdio.get("tty")), stdin=bool(stdio.get("open_stdin"))))


class Helper:
    """A running helper: its pid and our end of the connection to it."""

    def __init__(self, pid: int, link: socket) -> None:
        self.pid = pid
        self.link = link

    def answer(self) -> tuple[dict[str, Any], list[int]]:
        """Its next message. Raises StartError when that is a refusal, or none comes; it has ended then."""
        try:
            record, fds = self._receive()
            if not record:
                raise StartError("Internal", "the process that makes containers ended unexpectedly")
            message = protocol.decode(record, fds)
            if "error" in message:
                raise StartError(message["error"]["kind"], message["error"]["message"])
            return message, fds
        except BaseException:
            self.end()
            raise

    def _receive(self) -> tuple[bytes, list[int]]:
        try:
            return fdpass.receive(self.link, protocol.LARGEST_RECORD)
        except BlockingIOError:  # the time that `begun` has limited is up
            os.kill(self.pid, signal.SIGKILL)
            raise StartError("Internal", too_late()) from None

    def start(self) -> None:
        """Let the container that waits at its gate run. Raises StartError."""
        try:
            protocol.send(self.link, protocol.encode({"op": "go"}))
        except OSError as error:
            self.end()
            raise StartError("Internal", f"the container's init is gone: {error.strerror}") from None
        self.answer()
        self.end()

    def end(self) -> None:
        """Let it go; an init still at its gate ends with it."""
        self.link.close()
        os.waitpid(self.pid, 0)


def begin_exec(order: Order, init: tuple[int, int], taken: Callable[[int], bool]) -> Joiner:
    """Begin to run a further process beside `init`, (pid, pidfd); `taken` tells children that it is not. Raises
    OSError."""
    return Joiner(lambda link: _join(link, order, init), taken)


# ---------------------------------------------------------------- in the helper


def be_helper(link: socket, work: Callable[[], None]) -> NoReturn:
    """Do `work` and end; a failure is told on `link`."""
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        protocol.send(link, protocol.encode({"error": refusal(error)}))
    finally:
        os._exit(code)


def refusal(error: BaseException) -> dict[str, str]:
    """An exception as {"kind", "message"}; a defect of ours also goes to the spawner's log."""
    if isinstance(error, StartError):
        return {"kind": error.kind, "message": error.message}
    if not isinstance(error, OSError):
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    return {"kind": "Internal", "message": str(error)}


def _join(link: wire.Wire, order: Order, init: tuple[int, int]) -> None:
    process = protocol.decode_file(order.body)["process"]
    process.setdefault("oomScoreAdj", order.head.get("oom_score"))
    flags = order.head.get("seccomp_flags")
    config = {"linux": {"seccomp": {"flags": flags}}} if flags is not None else {}
    hit("monitor.before_exec")
    if order.head.get("runtime"):
        _foreign(order.head).join(link, init[0], process, stdio=order.pipes.child)
        return
    join_container(
        link,
        init,
        process,
        stdio=order.pipes.child,
        load_filter=lifecycle.filter_loader(config, _filter(order)),
        cgroup=_cgroup(order.head),
        keyring=f"_ses.{order.head['id']}",
    )


REST = b"R"  # first byte of the handing-over: nothing is to be done until something happens
WORK = b"W"
_WATCHED = 7  # fields of `Kept` that become readable when something happens


class Kept(NamedTuple):
    """What the monitor of a running container holds, as its helper opened it. -1: there is none."""

    connection: int
    listener: int
    pidfd: int
    console: int
    oom: int
    stdout: int
    stderr: int
    stdin: int
    filter: int
    mounts: int


def create(link: socket, source: socket) -> None:
    """In the helper of a new monitor: wait for a request, make the container it asks for, hand over to the monitor, and
    answer the daemon, whatever happens. Nothing happens when the spawner or the monitor ends before.

    The monitor is told when it begins: a struct timeval, how long that may take, and {"cgroup", "socket"}; with it
    comes the connection to the daemon. The handing-over is REST or WORK, a byte with how many of the descriptors to
    watch, one with the length of what follows, which the monitor answers for its status as long as it rests, and
    {"head", "kept", "pid", "started_at"}; with it come the descriptors of `Kept`, and the clients'.
    """
    received = protocol.receive(source) if _comes_first(source, link) else None
    source.close()
    if received is None:
        return
    record, fds = received
    connection = socket(fileno=fds.pop(0))
    try:
        answer = {"re": 0, "ok": _create(link, connection, record, fds)}
    except BaseException as error:
        answer = {"re": 0, "error": refusal(error)}
        _tell(connection, answer)
        os._exit(1)
    _tell(connection, answer)


def _comes_first(source: socket, link: socket) -> bool:
    """Wait until something happens to either; whether `source` can be read and `link` is still there."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    poll.register(link, select.POLLIN)
    return [fd for fd, _ in poll.poll()] == [source.fileno()]


def _tell(connection: socket, answer: dict[str, Any]) -> None:
    try:
        protocol.send(connection, protocol.encode(answer))
    except OSError:
        pass  # the daemon is gone; its successor will find us
    connection.close()


def _create(link: socket, connection: socket, record: bytes, fds: list[int]) -> dict[str, Any]:
    head = protocol.decode(record, fds)
    begun = protocol.encode({"cgroup": head["cgroup"], "socket": head["socket"]})
    protocol.send(link, begun, [connection.fileno()], prefix=_timeval(head["patience"]))
    hit("monitor.begun")
    listener = control.listen(head["socket"])
    try:
        open_writer({**head["log"], "limit": None}).close()
        _check_log(head["log"])
        order = take_order(head, head, fds)
        cgroup = _cgroup(head)
        created, oom, warnings = _make(order, cgroup, at_once=head["start"])
        try:
            if head["start"]:
                created.start()
            pipes = order.pipes
            kept = Kept(
                connection=connection.fileno(),
                listener=listener.fileno(),
                pidfd=created.process.pidfd,
                console=created.process.console,
                oom=oom,
                stdout=pipes.stdout,
                stderr=pipes.stderr,
                stdin=pipes.stdin,
                filter=order.filter,
                mounts=created.mounts,
            )
            _hand_over(link, head, kept, created.process.pid, fds)
            if not head["start"]:
                _tell(connection, {"re": 0, "ok": _born(created, warnings)})
                _start_when_told(link, created)
        except BaseException:
            _undo(created.process, cgroup)
            raise
    except BaseException:
        os.unlink(head["socket"])
        raise
    return _born(created, warnings)


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


HEAD_SIZE = 3
TIMEVAL_SIZE = len(_timeval(0))


def _check_log(config: dict[str, Any]) -> None:
    try:
        check_target(config)
    except OSError as error:
        raise StartError("Internal", f"{_LOG_PREFIX}{error}") from None


def _born(created: "lifecycle.Created | Created", warnings: list[str]) -> dict[str, Any]:
    return {"pid": created.process.pid, "monitor_pid": os.getppid(), "warnings": warnings}


def _foreign(head: dict[str, Any]) -> "Runtime":
    """The other runtime that runs this container; imported only where there is one."""
    from wherry.runtime.foreign import Runtime

    return Runtime(head["runtime"], head["bundle"], head["id"])


def delete_foreign(head: dict[str, Any]) -> None:
    """Have the runtime that ran a container which ended let go of it."""
    _foreign(head).delete()


def _make(
    order: Order, cgroup: Cgroup | None, *, at_once: bool
) -> tuple["lifecycle.Created | Created", int, list[str]]:
    """(the container, up to its gate or beyond; what `_watch_oom` returns; warnings). Raises StartError with everything
    undone."""
    body, warnings = protocol.decode_file(order.body), list[str]()
    oom = -1

    def watch() -> None:
        nonlocal oom
        oom = _watch_oom(cgroup, warnings)
        if at_once:
            hit("monitor.before_start")

    hit("monitor.before_create")
    try:
        make = _foreign(order.head).create if order.head.get("runtime") else lifecycle.create
        created = make(
            body["config"],
            order.head["bundle"],
            stdio=order.pipes.child,
            rootfs_mounts=body.get("rootfs_mounts"),
            seccomp_filter=_filter(order),
            cgroup=cgroup,
            warn=warnings.append,
            container_id=order.head["id"],
            at_once=at_once,
            hold_mounts=True,
            on_cgroup=watch,
        )
    finally:
        order.pipes.close_child()
        os.close(order.body)
    return created, oom, warnings


def _hand_over(link: socket, head: dict[str, Any], kept: Kept, pid: int, clients: list[int]) -> None:
    fds = [*(fd for fd in kept if fd >= 0), *clients]
    watched = sum(fd >= 0 for fd in kept[:_WATCHED])
    # Clients may have sent something already, and orphans of a shared PID namespace are to be reaped.
    rest = head["start"] and not clients and not head["shared_pids"]
    started_at = time.time_ns() if head["start"] else 0
    state = {"head": head, "kept": [fd >= 0 for fd in kept], "pid": pid, "started_at": started_at}
    status = _status(head, pid, started_at)
    first = (REST if rest else WORK) + bytes([watched, len(status)]) + status
    protocol.send(link, protocol.encode(state), fds, prefix=first)


def _status(head: dict[str, Any], pid: int, started_at: int) -> bytes:
    """What a monitor at rest answers (`supervisor.Supervisor`); empty when it is too long for that."""
    own = {"id": head["id"], "monitor_pid": os.getppid(), "pid": pid, "started_at": started_at}
    text = protocol.encode({"status": "running", **own, "execs": []})
    return text if len(text) < 256 else b""


def unpack_kept(present: list[bool], fds: list[int]) -> Kept:
    """`Kept` with the numbers of this process; takes them out of `fds`."""
    return Kept(*(fds.pop(0) if there else -1 for there in present))


def _start_when_told(link: socket, created: "lifecycle.Created | Created") -> NoReturn:
    """Serve `Helper.start`. Whatever happens, the container is the monitor's to bury."""
    record, _ = fdpass.receive(link, protocol.LARGEST_RECORD)
    if record:
        hit("monitor.before_start")
        try:
            created.start()
            protocol.send(link, protocol.encode({}))
        except StartError as error:
            protocol.send(link, protocol.encode({"error": refusal(error)}))
    os._exit(0)


def _undo(process: lifecycle.Process, cgroup: Cgroup | None) -> None:
    end_child(process.pid)
    if cgroup:
        cgroup.kill()
        cgroup.remove()


def _filter(order: Order) -> bytes | None:
    return memfd.read(order.filter, _LARGEST_FILTER) if order.filter >= 0 else None


def _cgroup(head: dict[str, Any]) -> Cgroup | None:
    return open_cgroup(head["cgroup"]) if head.get("cgroup") else None


def _watch_oom(cgroup: Cgroup | None, warnings: list[str]) -> int:
    if cgroup is None:
        return -1
    try:
        return cgroup.oom_events()[0]
    except FileNotFoundError:  # no memory controller here, as the daemon has told
        return -1
    except OSError as error:
        warnings.append(f"out-of-memory events are not seen: {error.strerror}")
        return -1
