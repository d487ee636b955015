"""A laboratory: a real engine, in a process with network, mount and PID namespaces of its own.

`scenario` runs an async test there. When the test ends, however it ends, the PID namespace dies with it and takes every
monitor and container along; the cgroups are removed by the parent. `lab.daemon()` opens the engine; opening it again
after `lab.kill()` is a restart of the daemon.
"""

import asyncio
import functools
import inspect
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import wherry.failpoint as points
from wherry.engine import attach, create, exec, images, logs, remove, start, stop, wait
from wherry.engine.config import EngineConfig
from wherry.engine.containers import Entry
from wherry.engine.engine import Engine
from wherry.engine.model import ContainerConfig, ExecConfig, HostConfig, NetworkingConfig, from_wire
from wherry.engine.reconcile import reconcile
from wherry.http.stdcopy import Deframer
from wherry.linux import cgroupfs, rtnetlink
from wherry.linux.syscalls import NR, syscall
from wherry.store.trees import delete_tree

_NEWNS, _NEWNET, _NEWPID = 0x20000, 0x40000000, 0x20000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_LIMIT_S = 250

BUSYBOX = "/usr/bin/busybox"
APPLETS = ("sh", "sleep", "true", "false", "cat", "echo", "env", "id", "pwd", "ls", "wc", "hostname", "ip", "kill")


class Lab:
    """Roots, cgroup parent and engines of one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_root = str(root / "data")
        self.exec_root = str(root / "x")
        self.cgroup_parent = f"/{root.name}"
        self.engine: Engine

    def config(self, **options: Any) -> EngineConfig:
        return EngineConfig(
            data_root=self.data_root, exec_root=self.exec_root, cgroup_parent=self.cgroup_parent, **options
        )

    @asynccontextmanager
    async def daemon(self, **options: Any) -> AsyncIterator["Daemon"]:
        """An engine that is opened, and closed at the end."""
        engine = await Engine.open(self.config(**options))
        try:
            yield Daemon(engine)
        finally:
            await engine.close()


class Daemon:
    """An engine and the words of a test."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def image(self, reference: str = "busybox", changes: list[str] | None = None) -> str:
        archive = io.BytesIO(busybox_archive())
        return await images.import_(self.engine, archive, reference=reference, changes=changes or [])

    async def create(self, *cmd: str, name: str | None = None, image: str = "busybox", **fields: Any) -> str:
        """Fields of HostConfig and ContainerConfig mixed, as keywords."""
        host = {k: v for k, v in fields.items() if k in HostConfig.__struct_fields__}
        host.setdefault("NetworkMode", "none")
        config = {k: v for k, v in fields.items() if k in ContainerConfig.__struct_fields__}
        assert set(fields) == set(host) - {"NetworkMode"} | set(config) | (set(fields) & {"NetworkMode"}), fields
        result = await create.create(
            self.engine,
            name=name,
            config=from_wire(ContainerConfig, {"Image": image, "Cmd": list(cmd) or None, **config}),
            host_config=from_wire(HostConfig, host),
            networking=NetworkingConfig(),
        )
        return result.id

    async def start(self, ref: str) -> None:
        await start.start(self.engine, ref)

    async def run(self, *cmd: str, **fields: Any) -> str:
        ref = await self.create(*cmd, **fields)
        await self.start(ref)
        return ref

    async def finish(self, ref: str) -> int:
        """Wait for the end; its exit code."""
        waiter = await wait.wait(self.engine, ref)
        async with asyncio.timeout(60):
            return (await waiter.result())[0]

    async def output(self, ref: str, *, stderr: bool = False) -> str:
        options = logs.LogOptions(stdout=True, stderr=stderr)
        chunks = [chunk async for chunk in await logs.logs(self.engine, ref, options)]
        return plain(b"".join(chunks), tty=self.entry(ref).record.config.Tty)

    async def exec(self, ref: str, *cmd: str, **fields: Any) -> tuple[int, str]:
        """Run a command attached; (exit code, what it wrote)."""
        config = from_wire(ExecConfig, {"Cmd": list(cmd), "AttachStdout": True, "AttachStderr": True, **fields})
        exec_id = await exec.create_exec(self.engine, ref, config)
        client = Client()
        await exec.start_exec(self.engine, exec_id, detach=False, connection=client)
        text = plain(await client.read_all(), tty=config.Tty)
        await self.until(lambda: exec.inspect_exec(self.engine, exec_id).exit_code is not None)
        return exec.inspect_exec(self.engine, exec_id).exit_code or 0, text

    async def attach(self, ref: str, **options: Any) -> "Client":
        client = Client()
        wanted = {"stream": True, "stdin": True, "stdout": True, "stderr": True} | options
        await attach.attach(self.engine, ref, attach.AttachOptions(**wanted), client)
        return client

    async def rm(self, ref: str, **options: Any) -> None:
        await remove.remove(self.engine, ref, **options)

    async def stop(self, ref: str, seconds: int = 0) -> None:
        await stop.stop(self.engine, ref, timeout=seconds)

    def entry(self, ref: str) -> Entry:
        return self.engine.containers.lookup(ref)

    async def until(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        await until(condition, seconds)

    async def logged(self, ref: str, text: str) -> None:
        """Until the container has written `text`."""
        await self.until(lambda: text in Path(self.entry(ref).record.log_path).read_text())

    async def leaks(self) -> list[str]:
        await self.engine.settle()
        return await reconcile(self.engine, dry_run=True)

    async def clean(self) -> None:
        """Remove everything; nothing may be left."""
        for entry in self.engine.containers:
            await self.rm(entry.id, force=True, volumes=True)
        leaks = await self.leaks()
        assert leaks == [], leaks


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait for what happens in other processes."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  nothing here can tell when
            await asyncio.sleep(0.005)


class Client:
    """A `Hijack` over a socket pair: what a client of attach or exec sees."""

    upgraded = True

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.content_type = ""

    async def accept(self, content_type: str) -> None:
        self.content_type = content_type

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._theirs, data)

    async def hand_over(self) -> tuple[socket.socket, bytes]:
        copy = self._theirs.dup()
        copy.setblocking(False)
        return copy, b""

    def release(self) -> None:
        self._theirs.close()

    async def close(self) -> None:
        self._theirs.close()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.ours, data)

    async def read_all(self) -> bytes:
        """Until the other side ends the conversation."""
        out = b""
        async with asyncio.timeout(60):
            while data := await asyncio.get_running_loop().sock_recv(self.ours, 65536):
                out += data
        return out

    async def read_until(self, marker: bytes) -> bytes:
        out = b""
        async with asyncio.timeout(60):
            while marker not in out:
                data = await asyncio.get_running_loop().sock_recv(self.ours, 65536)
                assert data, f"the conversation ended before {marker!r}: {out!r}"
                out += data
        return out


def plain(data: bytes, *, tty: bool = False) -> str:
    """Without the stream headers."""
    if tty:
        return data.decode()
    return b"".join(payload for _, payload in Deframer().feed(data)).decode()


@functools.cache
def busybox_archive() -> bytes:
    """A root file system that is one static busybox."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        with open(os.path.realpath(BUSYBOX), "rb") as program:
            entry = tarfile.TarInfo("bin/busybox")
            entry.size, entry.mode = os.fstat(program.fileno()).st_size, 0o755
            archive.addfile(entry, program)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        for name, text in (
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
            ("etc/group", "root:x:0:\nnobody:x:65534:\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


Scenario = Callable[..., Any]


def _run(work: Any) -> None:
    if inspect.iscoroutine(work):
        asyncio.run(work)


def scenario(test: Scenario) -> Callable[..., None]:
    """Run `test(lab, ...)`, async or not, in namespaces of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        root = Path(tempfile.mkdtemp(prefix="wl", dir="/tmp"))
        try:
            report = _in_namespaces(lambda: _run(test(Lab(root), *args, **kwargs)), lambda: _thaw(root.name))
        finally:
            _remove_cgroups(root.name)
            delete_tree(root)
        assert not report, report

    # pytest looks for fixtures in the signature of what is wrapped: the lab is none.
    parameters = list(inspect.signature(test).parameters.values())[1:]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _in_namespaces(function: Callable[[], object], at_the_end: Callable[[], object]) -> str:
    """Fork three deep: the first makes the namespaces, the second is PID 1 and reaps, the third works. Returns the
    traceback, "" when all is well."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            syscall(NR.unshare, _NEWNS | _NEWNET | _NEWPID)
            first = os.fork()
            if first == 0:
                _be_init(function, writer)
            os._exit(os.waitpid(first, 0)[1] and 1)
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as report:
        said = report.read()
    at_the_end()
    status = os.waitpid(pid, 0)[1]
    return said or ("" if status == 0 else f"the scenario ended with status {status}")


def _be_init(function: Callable[[], object], writer: int) -> None:
    os.setsid()
    syscall(NR.mount, None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    syscall(NR.mount, b"proc", b"/proc", b"proc", 0, None)
    with rtnetlink.RouteSocket() as route:
        route.request("lo up", rtnetlink.set_link(1, up=True))
    worker = os.fork()
    if worker == 0:
        signal.alarm(_LIMIT_S)
        _work(function, writer)
    os.close(writer)
    while True:
        pid, status = os.wait()
        if pid == worker:
            os._exit(1 if status else 0)


def _work(function: Callable[[], object], writer: int) -> None:
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        os.write(writer, traceback.format_exc().encode()[-60_000:])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _thaw(name: str) -> None:
    """A frozen process does not die (v1), nor then does its PID namespace."""
    mounts = cgroupfs.mounted()
    if "freezer" in mounts.v1:
        for path in cgroupfs.descendants(f"{mounts.v1['freezer']}/{name}"):
            cgroupfs.write_if_there(path, "freezer.state", "THAWED")


def _remove_cgroups(name: str) -> None:
    mounts = cgroupfs.mounted()
    for mount in {*mounts.v1.values(), *([mounts.v2] if mounts.v2 else [])}:
        directory = f"{mount}/{name}"
        if os.path.isdir(directory):
            for path in cgroupfs.descendants(directory):
                cgroupfs.remove(path)
            cgroupfs.remove(directory)


def crash_at(failpoint: str, function: Callable[[], Awaitable[None]]) -> int:
    """Run an engine's work in a further process which SIGKILLs itself at `failpoint` ("name" or "name@n"); returns its
    wait status. The monitors live on."""
    pid = os.fork()
    if pid == 0:
        name, _, count = failpoint.partition("@")
        armed = functools.partial(points._armed, {name: ("kill", int(count or 1))})
        for name, loaded in list(sys.modules.items()):
            if name.startswith("wherry.") and hasattr(loaded, "hit"):
                loaded.hit = armed  # type: ignore[attr-defined]
        try:
            asyncio.run(function())  # type: ignore[arg-type]
        except BaseException:
            traceback.print_exc()
            os._exit(9)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def ip_json(*arguments: str) -> Any:
    done = subprocess.run(["ip", "-j", *arguments], capture_output=True, check=True)
    return json.loads(done.stdout or b"[]")
