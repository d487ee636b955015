"""A tracer inside a container's PID namespace, with every capability: `python tracer.py PIDFD look|hold|stop|forge`.

look: attaches to each process that appears and prints, one JSON object a line, what it would have in its hands: when it
was stopped before its program ran, its root, namespaces, capabilities, seccomp mode and descriptors. hold: does not let
go of it. stop: sends SIGSTOP to it, again and again. forge: says the third argument on its connection, with a
descriptor, and prints a line. Prints "ready" when it looks, ends when its input does.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
ATTACH, DETACH, WALL, PIDFD_GETFD = 16, 17, 0x40000000, 438
MODE = sys.argv[2]
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user")


def look_at(base: str) -> dict[str, object]:
    lines = Path(f"{base}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    fds = {fd: os.readlink(f"{base}/fd/{fd}") for fd in os.listdir(f"{base}/fd")}
    root = os.stat(f"{base}/root/.")
    return {
        "exe": os.readlink(f"{base}/exe"),
        "root": [root.st_dev, root.st_ino],
        "files": sorted(os.listdir(f"{base}/root/.")),
        "climbed": sorted(os.listdir(f"{base}/root/../..")),
        "cwd": os.readlink(f"{base}/cwd"),
        "namespaces": {name: os.readlink(f"{base}/ns/{name}") for name in NAMESPACES},
        "capabilities": [int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")],
        "uid": status["Uid"].split(),
        "no_new_privileges": status["NoNewPrivs"],
        "seccomp": status["Seccomp"],
        "fds": fds,
        "writable_exe": can_write(f"{base}/exe"),
    }


def can_write(path: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    os.close(fd)
    return True


def trace(pid: int) -> None:
    if libc.ptrace(ATTACH, pid, None, None):
        return
    try:
        os.waitpid(pid, WALL)
        print(json.dumps(look_at(f"/proc/{pid}")), flush=True)
    except (FileNotFoundError, ProcessLookupError, ChildProcessError):
        pass
    finally:
        if MODE == "look":
            libc.ptrace(DETACH, pid, None, None)


def stop(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        pass


def forge(pid: int) -> None:
    try:
        fds = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        pidfd = os.pidfd_open(pid)
        copies = [libc.syscall(PIDFD_GETFD, pidfd, fd, 0) for fd in fds if fd > 2 and fds[fd].startswith("socket:")]
        os.close(pidfd)
        for copy in copies:
            with socket.socket(fileno=copy) as link:
                socket.send_fds(link, [sys.argv[3].encode()], [0])
            print("forged", flush=True)
    except OSError:  # it has ended
        pass


TREATMENTS = {"look": trace, "hold": trace, "stop": stop, "forge": forge}


def main() -> None:
    libc.setns(int(sys.argv[1]), 0x20000000)
    if child := os.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    libc.unshare(0x00020000)
    libc.mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
    if libc.mount(b"proc", b"/proc", b"proc", 0, None):
        raise OSError(ctypes.get_errno(), "mount")
    known = {os.getpid(), 1}
    print("ready", flush=True)
    while not select.select([0], [], [], 0)[0]:
        present = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        for pid in present - known:
            TREATMENTS[MODE](pid)
        known = (known & present) | (present if MODE != "stop" else set())


main()
