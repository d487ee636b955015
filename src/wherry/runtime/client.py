"""The daemon's side of the spawner and of the monitors: asyncio, one socket each.

spawner = await Spawner.launch(log_path)
monitor = await spawner.create(request, attachments, on_event)      # the container runs
monitor = await connect(socket_path, on_event)                      # after a restart of the daemon
"""

import asyncio
import base64
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import wherry
from wherry.errors import Internal, Unavailable, from_kind
from wherry.linux import fdpass, memfd
from wherry.runtime import late
from wherry.runtime.lifecycle import compile_filter
from wherry.runtime.monitor import protocol

_START_S = 20.0
_RETRY_S = 0.001
_MARGIN_S = 5.0
_ANSWERS_S = 10.0
"""How long a monitor may take to answer: one that is stopped, or whose disk stalls, holds up nobody for longer."""
_CHANGES_S = 20.0
"""The same where the kernel or a disk has work to do: memory to take away, a log to clear."""

EventHandler = Callable[["Monitor", dict[str, Any]], None]


class Unresponsive(Internal):
    """The monitor did not answer in time, and will not do any more what it was asked, a signal excepted."""


class Attachment(NamedTuple):
    """A client to attach. `fd`: its socket, of which the monitor gets a duplicate; `mux`: stdcopy frames rather than
    plain output; `detach_keys`: empty for none; `early`: input that was read already; `id`: named by "detached"."""

    fd: int
    stdin: bool
    stdout: bool
    stderr: bool
    mux: bool
    detach_keys: bytes = b""
    early: bytes = b""
    id: str = ""

    def wishes(self) -> dict[str, Any]:
        """The message's part; the descriptor travels beside it."""
        return {
            "id": self.id,
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "mux": self.mux,
            "detach_keys": protocol.pack_bytes(self.detach_keys),
            "early": protocol.pack_bytes(self.early),
        }


class Monitor:
    """A connection to the monitor of one container.

    Requests raise the `wherry.errors` the monitor answers with, `ConnectionError` when the connection is or gets
    lost, `Unresponsive`. Events go to the handler given at creation, in order; the last one of a lost connection is
    {"event": "gone"}, unless an "exit" came before it or `close` was called.
    """

    def __init__(self, sock: socket.socket, on_event: EventHandler) -> None:
        self.id = ""
        self.pid = 0
        self.monitor_pid = 0
        self.warnings: list[str] = []
        self._sock = sock
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._count = 0
        self._exited = False
        self._closed = False
        self._unmounted = asyncio.Event()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        """Whether the connection is lost or was dropped."""
        return self._closed

    async def status(self) -> dict[str, Any]:
        """{"status": "created|running|paused|exited", "id", "pid", "monitor_pid", "started_at": ns, "execs": [{"id",
        "pid"}]}; an ended one adds "exit_code", "signal", "oom_killed", "finished_at"."""
        status: dict[str, Any] = await self._ask({"op": "status"}, late=True)
        self.id, self.pid, self.monitor_pid = status["id"], status["pid"], status["monitor_pid"]
        return status

    async def start(self) -> None:
        """Start a container made with "start": false."""
        await self._ask({"op": "start"}, patience_s=late.PATIENCE_S + _MARGIN_S)

    async def signal(self, sig: int, exec_id: str | None = None) -> None:
        """Signal the container's init or an exec'd process. Raises Conflict when it does not run."""
        await self._ask({"op": "signal", "sig": sig, "exec_id": exec_id}, late=True)

    async def resize(self, height: int, width: int, exec_id: str | None = None) -> None:
        """Set the size of the terminal, in characters. Raises InvalidArgument without a terminal."""
        await self._ask({"op": "resize", "height": height, "width": width, "exec_id": exec_id})

    async def attach(self, attachment: Attachment) -> None:
        """Attach one more client to the container's process; the caller closes its own descriptor afterwards."""
        await self._ask({"op": "attach", "attachment": attachment.wishes()}, [attachment.fd])

    async def exec(
        self,
        exec_id: str,
        process: dict[str, Any],
        *,
        stdio: dict[str, Any],
        attachments: Sequence[Attachment],
        seccomp_filter: bytes | None,
        console_size: Sequence[int] | None = None,
    ) -> int:
        """Run the OCI `process` in the container; returns its pid on the host once its program runs.

        `stdio` is {"tty", "open_stdin"}; without `seccomp_filter` the container's own is used. Raises the runtime's
        refusal (program missing, not executable, user unknown, …).
        """
        tty = bool(stdio.get("tty"))
        message = {
            "op": "exec",
            "exec_id": exec_id,
            "stdio": stdio,
            "attachments": [a.wishes() for a in attachments],
            "filter": seccomp_filter is not None,
        }
        body = {"process": _with_console(process, tty, console_size)}
        with _Files(seccomp_filter, body) as files:
            fds = [*(a.fd for a in attachments), *files.fds]
            result = await self._ask(message, fds, patience_s=late.PATIENCE_S + _MARGIN_S)
        return int(result["pid"])

    async def pause(self, *, held: bool = False) -> None:
        """Freeze all processes of the container until `resume`; with `held` only as long as this connection lasts."""
        await self._ask({"op": "pause", "held": held})

    async def resume(self) -> None:
        """Undo `pause`."""
        await self._ask({"op": "resume"})

    async def update(self, resources: dict[str, Any]) -> list[str]:
        """Change the limits named in the OCI linux.resources; returns warnings."""
        result = await self._ask({"op": "update", "resources": resources}, patience_s=_CHANGES_S)
        return list(result["warnings"])

    async def clear_log(self) -> None:
        """Drop what the log holds. Raises Conflict when the container has ended: then nobody writes the log."""
        await self._ask({"op": "clear_log"}, patience_s=_CHANGES_S)

    async def close_stdin(self) -> None:
        """Close the container's stdin once it has what was typed so far."""
        await self._ask({"op": "close_stdin"})

    def mute(self) -> None:
        """Tell nobody of what happens from now on."""
        self._on_event = lambda _, __: None

    async def unmounted(self) -> None:
        """After the exit: wait until the container's mounts are gone, or the monitor is."""
        await self._unmounted.wait()

    async def close(self) -> None:
        """Drop the connection. The monitor goes on, or leaves if its container has ended."""
        if self._exited and not self._closed:
            try:
                await self._send({"op": "forget"})
            except OSError:
                pass
        self._drop()

    # ------------------------------------------------------------ the conversation

    def expect(self, number: int) -> "asyncio.Future[Any]":
        """The future of the reply to request `number`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._replies[number] = future
        return future

    async def _ask(
        self, message: dict[str, Any], fds: Sequence[int] = (), *, patience_s: float = 0.0, late: bool = False
    ) -> Any:
        """Its answer; with `late` it may do what it was asked when nobody waits any more."""
        patience_s = patience_s or _ANSWERS_S
        self._count += 1
        number = self._count
        future = self.expect(number)
        until = {} if late else {"until": time.monotonic() + patience_s}
        try:
            async with asyncio.timeout(patience_s):
                await self._send({**message, "seq": number, **until}, fds)
                return await future
        except TimeoutError:
            raise Unresponsive(f"the monitor of container {self.id} does not answer") from None
        finally:
            self._replies.pop(number, None)

    async def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        if self._closed:
            raise ConnectionError("the connection to the container's monitor is closed")
        await _send(self._sock, message, fds)

    def _readable(self) -> None:
        while not self._closed:
            try:
                received = protocol.receive(self._sock, wait=False)
            except BlockingIOError:
                return
            except (OSError, ValueError):
                received = None
            if received is None:
                self._lost()
                return
            record, fds = received
            try:
                message = protocol.decode(record, fds)
            finally:
                fdpass.close_all(fds)
            self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        if "event" in message:
            if message["event"] == "exit":
                self._exited = True
            if message["event"] == "unmounted" or (message["event"] == "exit" and not message.get("mounted")):
                self._unmounted.set()
            try:
                self._on_event(self, message)
            finally:
                self._acknowledge(message["number"])
            return
        future = self._replies.get(message.get("re", -1))
        if future is None or future.done():
            return
        error = message.get("error")
        if error:
            future.set_exception(from_kind(error["kind"], error["message"]))
        else:
            future.set_result(message.get("ok"))

    def _acknowledge(self, number: int) -> None:
        try:
            if not self._closed:
                protocol.send(self._sock, protocol.encode({"op": "ack", "number": number}), wait=False)
        except OSError:
            pass  # it stops waiting by itself

    def _lost(self) -> None:
        expected = self._exited or self._closed
        self._drop()
        if not expected:
            self._on_event(self, {"event": "gone"})

    def _drop(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._unmounted.set()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for future in self._replies.values():
            if not future.done():
                future.set_exception(ConnectionError("the container's monitor is gone"))


class Spawner:
    """The running spawner. A dead one is replaced at the next `create`."""

    def __init__(self, log_path: str) -> None:
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._starting = asyncio.Lock()

    @classmethod
    async def launch(cls, log_path: str) -> "Spawner":
        """Start a spawner whose stderr, and its monitors', is appended to `log_path`. Returns when it is ready;
        raises Internal when it does not come up."""
        spawner = cls(log_path)
        await spawner._ensure()
        return spawner

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def create(
        self, request: dict[str, Any], attachments: Sequence[Attachment], on_event: EventHandler
    ) -> Monitor:
        """Make a container, and start it if the request says so.

        `request`: {"id", "bundle", "config": OCI config, "rootfs_mounts": [...], "seccomp_filter": base64 or None,
        "stdio": {"tty", "open_stdin", "stdin_once"}, "log": see `logs.drivers.open_writer`, "socket": path,
        "exit_record": path, "console_size": [height, width] or None, "start": bool, "runtime": the command of another
        runtime that is to run it, or None (then "seccomp_filter" is None too)}. The returned monitor has `pid`
        and `warnings`. Raises the runtime's refusal as one of `wherry.errors`, with everything undone.
        """
        await self._ensure()
        assert self._sock
        config = request["config"]
        seccomp = base64.b64decode(request["seccomp_filter"]) if request.get("seccomp_filter") else None
        profile = (config.get("linux") or {}).get("seccomp")
        if seccomp is None and profile and not request.get("runtime"):
            seccomp = await asyncio.to_thread(compile_filter, profile)
        process = _with_console(config["process"], bool(request["stdio"].get("tty")), request.get("console_size"))
        process.setdefault("oomScoreAdj", 0)
        config = {**config, "process": process}
        head = _head({**request, "config": config}, attachments, seccomp is not None)
        body = {"config": config, "rootfs_mounts": request.get("rootfs_mounts")}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        monitor = Monitor(ours, on_event)
        reply = monitor.expect(0)
        try:
            with theirs, _Files(seccomp, body) as files:
                await _send(self._sock, head, [theirs.fileno(), *(a.fd for a in attachments), *files.fds])
            answer = await reply
        except ConnectionError:
            await _close(monitor)
            raise Unavailable("the process that starts containers ended unexpectedly; try again") from None
        except BaseException:
            await _close(monitor)
            raise
        monitor.id, monitor.pid, monitor.monitor_pid = request["id"], answer["pid"], answer["monitor_pid"]
        monitor.warnings = answer["warnings"]
        return monitor

    async def close(self) -> None:
        """End the spawner; containers and their monitors go on."""
        if self._sock:
            self._sock.close()
            self._sock = None
        if self._process:
            await asyncio.to_thread(self._process.wait)
            self._process = None

    async def _ensure(self) -> None:
        async with self._starting:
            if self._process and self._process.poll() is None:
                return
            await self.close()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = await asyncio.to_thread(_execute, theirs.fileno(), self._log_path)
            self._sock = ours
            ours.setblocking(False)
            try:
                hello = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ours, 64), _START_S)
            except TimeoutError:
                hello = b""
            if not hello:
                self._process.kill()
                await self.close()
                raise Internal(f"the spawner did not start; see {self._log_path}")


async def connect(socket_path: str, on_event: EventHandler) -> Monitor:
    """Take a running monitor back. Raises ConnectionError when none answers at `socket_path`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        directory = os.open(os.path.dirname(socket_path), os.O_PATH | os.O_CLOEXEC)
        try:
            # An address holds 108 bytes; a path may be longer.
            sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(socket_path)}")
        finally:
            os.close(directory)
    except OSError as error:
        sock.close()
        raise ConnectionError(f"no monitor answers at {socket_path}: {error.strerror}") from error
    monitor = Monitor(sock, on_event)
    try:
        await monitor.status()
    except BaseException:
        await _close(monitor)
        raise
    return monitor


def _head(request: dict[str, Any], attachments: Sequence[Attachment], with_filter: bool) -> dict[str, Any]:
    """The part of a request that the monitor itself needs (`monitor.supervisor.Supervisor`)."""
    linux = request["config"].get("linux") or {}
    own_pids = any(n.get("type") == "pid" and not n.get("path") for n in linux.get("namespaces") or ())
    names = ("id", "bundle", "stdio", "log", "socket", "exit_record", "start", "runtime")
    return {
        **{name: request.get(name) for name in names},
        "cgroup": linux.get("cgroupsPath") or None,
        "shared_pids": not own_pids,
        "oom_score": request["config"]["process"]["oomScoreAdj"],
        "seccomp_flags": (linux.get("seccomp") or {}).get("flags"),
        "attachments": [a.wishes() for a in attachments],
        "filter": with_filter,
        "patience": _patience(request),
    }


def _patience(request: dict[str, Any]) -> float:
    """How many seconds the monitor is to wait for the container's program to run: longer than what it waits for, which
    tidies up after itself. Another runtime is called to create, to start and, if that fails, to delete."""
    return (3 if request.get("runtime") else 1) * late.patience(request["config"]) + _MARGIN_S


def _with_console(process: dict[str, Any], tty: bool, size: Sequence[int] | None) -> dict[str, Any]:
    out = {**process, "terminal": tty}
    if tty and size:
        out["consoleSize"] = {"height": size[0], "width": size[1]}
    return out


class _Files:
    """The sealed files of a request: the seccomp filter, if there is one, then the body."""

    def __init__(self, seccomp: bytes | None, body: dict[str, Any]) -> None:
        self.fds: list[int] = []
        if seccomp is not None:
            self.fds.append(memfd.sealed("wherry-seccomp", seccomp))
        self.fds.append(memfd.sealed("wherry-body", protocol.encode(body)))

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        fdpass.close_all(self.fds)


async def _close(monitor: Monitor) -> None:
    """Drop a connection nobody has been told of: without events."""
    monitor._drop()


async def _send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int]) -> None:
    payload = protocol.encode(message)
    while True:
        try:
            protocol.send(sock, payload, list(fds), wait=False)
            return
        except BlockingIOError:
            await asyncio.sleep(_RETRY_S)


def _execute(fd: int, log_path: str) -> "subprocess.Popen[bytes]":
    """Execute the spawner from a sealed copy of the interpreter we run; it talks on socket `fd`."""
    interpreter = os.readlink("/proc/self/exe").removesuffix(" (deleted)")
    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(wherry.__file__)))
    code = (
        f"import sys; sys.path.append({package_parent!r}); sys.argv = ['spawner', '{fd}']; "
        "from wherry.runtime.spawner import main; main(int(sys.argv[1]))"
    )
    copy = memfd.sealed_copy("/proc/self/exe", "wherry-python")
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            # argv[0] is how the interpreter finds its standard library.
            [interpreter, "-I", "-S", "-B", "-X", "utf8", "-X", "no_debug_ranges", "-c", code],
            executable=f"/proc/self/fd/{copy}",
            pass_fds=(copy, fd),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(copy)
        os.close(log)


def _environment() -> dict[str, str]:
    """Nothing of the daemon's but what the interpreter needs to load and the tests' failpoints."""
    wanted = {"PATH": os.environ.get("PATH", os.defpath), "WHERRY_FAILPOINT": os.environ.get("WHERRY_FAILPOINT", "")}
    directory = _shared_library_directory()
    if directory:
        wanted["LD_LIBRARY_PATH"] = directory
    return wanted


def _shared_library_directory() -> str:
    """Where libpython lies when the interpreter is linked with it: from a copy in memory, a search path relative to
    the executable ($ORIGIN) leads nowhere."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.partition("/")[2].rstrip("\n")
            if "libpython" in os.path.basename(path):
                return "/" + os.path.dirname(path)
    return ""
