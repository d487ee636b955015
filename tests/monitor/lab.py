"""Containers for the monitor's tests: a busybox root, a real runtime, a directory of their own for each test."""

import asyncio
import hashlib
import os
import secrets
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from wherry.errors import WherryError
from wherry.runtime.cgroups import open_cgroup
from wherry.runtime.client import Attachment, Monitor, Spawner

NAMESPACES = ("pid", "mount", "ipc", "uts", "network", "cgroup")
MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
]
APPLETS = (
    "sh",
    "test",
    "cat",
    "echo",
    "sleep",
    "seq",
    "true",
    "stty",
    "kill",
    "head",
    "dd",
    "yes",
    "sha256sum",
    "ls",
    "wc",
)


def make_layer(directory: Path) -> Path:
    """A root file system of one static program."""
    binaries = directory / "bin"
    binaries.mkdir(parents=True)
    for name in ("proc", "dev", "tmp"):
        (directory / name).mkdir()
    shutil.copy("/usr/bin/busybox", binaries / "busybox")
    for applet in APPLETS:
        (binaries / applet).symlink_to("busybox")
    return directory


class Events(list[dict[str, Any]]):
    """What a monitor reported; `await until(name)` for one to come."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def __call__(self, monitor: Monitor, event: dict[str, Any]) -> None:
        self.append(event)
        self._changed.set()

    async def until(self, name: str, **fields: Any) -> dict[str, Any]:
        while True:
            for event in self:
                if event["event"] == name and all(event.get(k) == v for k, v in fields.items()):
                    return event
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 60)


class Lab:
    """Makes requests and runs them; `tmp` holds everything."""

    def __init__(self, tmp: Path, layer: Path) -> None:
        self.tmp = tmp
        self.layer = layer
        self.spawner: Spawner | None = None
        self.monitors: list[Monitor] = []
        self.cgroups: list[str] = []
        self.sockets: list[socket.socket] = []
        self.expected_log: str | None = ""  # of the spawner; None: anything

    async def launch(self) -> Spawner:
        if self.spawner is None:
            self.spawner = await Spawner.launch(str(self.tmp / "spawner.log"))
        return self.spawner

    def request(self, *args: str, **overrides: Any) -> dict[str, Any]:
        identity = secrets.token_hex(32)
        base = self.tmp / "containers" / identity
        for name in ("upper", "work", "bundle", "bundle/rootfs"):
            (base / name).mkdir(parents=True)
        namespaces = [{"type": n} for n in NAMESPACES if n not in overrides.pop("without", ())]
        config: dict[str, Any] = {
            "ociVersion": "1.2.0",
            "process": {
                "args": list(args),
                "cwd": "/",
                "env": ["PATH=/bin", "TERM=xterm"],
                "user": {"uid": 0, "gid": 0},
                "capabilities": {},
            },
            "root": {"path": "rootfs"},
            "mounts": MOUNTS,
            "linux": {"namespaces": namespaces},
        }
        if overrides.pop("cgroup", False):
            config["linux"]["cgroupsPath"] = f"/wherry-monitor-test-{identity[:12]}"
            self.cgroups.append(config["linux"]["cgroupsPath"])
        request: dict[str, Any] = {
            "id": identity,
            "bundle": str(base / "bundle"),
            "config": config,
            "rootfs_mounts": [
                {
                    "type": "overlay",
                    "source": "overlay",
                    "lower": [str(self.layer)],
                    "upper": str(base / "upper"),
                    "work": str(base / "work"),
                    "options": [],
                }
            ],
            "seccomp_filter": None,
            "stdio": {"tty": False, "open_stdin": False, "stdin_once": False},
            "log": {"driver": "json-file", "path": str(base / "log"), "max_size": -1, "max_file": 1},
            "socket": str(base / "bundle" / "monitor.sock"),
            "exit_record": str(base / "exit.json"),
            "console_size": None,
            "start": True,
        }
        request["log"].update(overrides.pop("log", {}))
        request["stdio"].update(overrides.pop("stdio", {}))
        request.update(overrides)
        return request

    async def run(self, request: dict[str, Any], attachments: list[Attachment] | None = None) -> tuple[Monitor, Events]:
        events = Events()
        spawner = await self.launch()
        monitor = await spawner.create(request, attachments or [], events)
        self.monitors.append(monitor)
        self.handed_over()
        return monitor, events

    def client(self, **wishes: Any) -> tuple[socket.socket, Attachment]:
        """Our end of an attachment, and the attachment to hand over with `run`, `attach` or `exec`."""
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        self.sockets += [ours, theirs]
        defaults: dict[str, Any] = {"stdin": False, "stdout": True, "stderr": True, "mux": False, "id": "a1"}
        return ours, Attachment(theirs.fileno(), **{**defaults, **wishes})

    def handed_over(self) -> None:
        """The monitor has its copies: close ours, as the daemon does."""
        for theirs in self.sockets[1::2]:
            theirs.close()

    async def close(self) -> None:
        """End everything and look for what is left of it."""
        for monitor in self.monitors:
            try:
                await monitor.signal(9)
            except (WherryError, ConnectionError):
                pass
        pids = [m.pid for m in self.monitors]
        await until(lambda: not any(exists(pid) for pid in pids))
        for monitor in self.monitors:
            await monitor.close()
        if self.spawner:
            await self.spawner.close()
        for sock in self.sockets:
            sock.close()
        await until(lambda: not monitors_of(self.tmp))
        for path in self.cgroups:
            assert not open_cgroup(path).exists()
        errors = (self.tmp / "spawner.log").read_text() if self.spawner else ""
        assert self.expected_log in (None, errors), errors


def log_of(request: dict[str, Any]) -> str:
    return Path(request["log"]["path"]).read_text()


def receive_all(sock: socket.socket) -> bytes:
    chunks = []
    while chunk := sock.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def digest_all(sock: socket.socket) -> tuple[str, int]:
    """(sha256, length) of what comes until the end."""
    digest, length = hashlib.sha256(), 0
    while chunk := sock.recv(1 << 18):
        digest.update(chunk)
        length += len(chunk)
    return digest.hexdigest(), length


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Take stdcopy frames apart."""
    out = []
    while data:
        stream, length = struct.unpack(">B3xI", data[:8])
        assert len(data) >= 8 + length
        out.append((stream, data[8 : 8 + length]))
        data = data[8 + length :]
    return out


def streams(data: bytes) -> tuple[bytes, bytes]:
    """(stdout, stderr) of framed data."""
    parts = frames(data)
    return b"".join(p for s, p in parts if s == 1), b"".join(p for s, p in parts if s == 2)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Any, timeout_s: float = 60) -> None:
    """Wait for something that no event tells."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # nothing to wait on: it happens in other processes
            await asyncio.sleep(0.005)


async def start_tracer(init: int, *mode: str) -> "subprocess.Popen[bytes]":
    """A `tracer` in the PID namespace of process `init`; it ends when its input is closed."""
    tracer = _tracer(init, *mode)
    assert tracer.stdout
    assert await asyncio.to_thread(tracer.stdout.readline) == b"ready\n"
    return tracer


def _tracer(init: int, *mode: str) -> "subprocess.Popen[bytes]":
    pidfd = os.pidfd_open(init)
    try:
        command = [sys.executable, str(Path(__file__).with_name("tracer.py")), str(pidfd), *mode]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[pidfd])
    finally:
        os.close(pidfd)


def monitors_of(directory: Path) -> list[int]:
    """Spawners whose log lies in `directory`, and the monitors and helpers they made."""
    processes = [entry for entry in os.listdir("/proc") if entry.isdigit()]
    return [int(p) for p in processes if _stderr(p) == str(directory / "spawner.log")]


def _stderr(pid: str) -> str:
    """Where the process's stderr goes: the log of the spawner that made it."""
    try:
        return os.readlink(f"/proc/{pid}/fd/2")
    except OSError:
        return ""
