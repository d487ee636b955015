"""A container that did not get to its program in time: a container whose PID namespace it joins holds it up, a file
system or another runtime hangs. All of it is killed, and the daemon is told."""

import os
import signal
import time
from _socket import socket

from wherry.runtime import late
from wherry.runtime.cgroups import open_cgroup
from wherry.runtime.monitor import protocol

_DIES_S = 5.0  # what waits for a dead file system does not die: the daemon is not to wait for that
_LOOK_S = 0.01


def give_up(helper: int, connection: int, begun: bytes) -> None:
    """In the monitor, which has no children but `helper`: end what that has made. `begun` is what it said when it
    began (`birth.create`); `connection`, the daemon's, is closed."""
    what = protocol.decode(begun, [])
    os.kill(helper, signal.SIGKILL)
    _end_children()
    cgroup = open_cgroup(what["cgroup"]) if what["cgroup"] else None
    daemon = socket(fileno=connection)
    try:
        if cgroup is not None:
            cgroup.kill()
            _end_children()
            cgroup.remove()
        os.unlink(what["socket"])
    except OSError:
        pass  # the daemon looks after what is left
    finally:
        error = {"kind": "Internal", "message": late.too_late()}
        try:
            protocol.send(daemon, protocol.encode({"re": 0, "error": error}), wait=False)
        except OSError:
            pass  # it is gone
        daemon.close()


def _end_children() -> None:
    """Kill and reap our children, and theirs, who become ours."""
    deadline = time.monotonic() + _DIES_S
    while time.monotonic() < deadline:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_S)


def _children() -> list[int]:
    """Ours, reaped by nobody else: the numbers mean them."""
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _parent_of(name) == own]


def _parent_of(pid: str) -> int:
    try:
        return late.parent_of(int(pid))
    except (OSError, IndexError, ValueError):
        return 0
