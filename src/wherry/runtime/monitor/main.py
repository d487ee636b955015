"""The life of a monitor process, from the spawner's fork to its exit.

    born      a helper makes the container and hands over what the monitor keeps (`birth`)
    resting   nothing has happened yet: the descriptors are polled, and nothing else of the process's memory is touched
    at work   the supervisor, for the rest of the container's life, from the first output, request or end

Resting is why an idle container costs little: each function that runs writes reference counts, and each page
written is copied.
"""

import _socket
import gc
import os
import select
import signal
import sys
import traceback
from typing import NoReturn

from wherry.linux import fdpass, prctl
from wherry.runtime.monitor import birth, protocol
from wherry.runtime.monitor.supervisor import Supervisor

_PEEK = _socket.MSG_PEEK | _socket.MSG_DONTWAIT


def main(record: bytes, fds: list[int]) -> NoReturn:
    """Be the monitor of the container that `record` asks for; `fds` are the control connection, the clients' sockets
    and the request's files. Called in a forked process; never returns."""
    code = 1
    try:
        code = _live(record, fds)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _live(record: bytes, fds: list[int]) -> int:
    os.setsid()
    signal.set_wakeup_fd(-1)  # the spawner's
    _name_ourselves()
    prctl.set_child_subreaper(True)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    pid = os.fork()
    if not pid:
        ours.close()
        birth.be_helper(theirs, lambda: birth.create(theirs, record, fds))
    theirs.close()
    fdpass.close_all(fds)
    order, _ = fdpass.receive(ours, 2)
    if not order:
        os.waitpid(pid, 0)
        return 1
    record, fds = fdpass.receive(ours, protocol.LARGEST_RECORD)
    if order[:1] == birth.REST:
        ours.close()
        os.waitpid(pid, 0)
        _rest(fds[: order[1]])
        return _work(record, fds, None)
    return _work(record, fds, birth.Helper(pid, ours))


def _work(record: bytes, fds: list[int], helper: birth.Helper | None) -> int:
    gc.enable()
    state = protocol.decode(record, fds)
    if helper and state["started_at"]:
        helper.end()
        helper = None
    Supervisor(state, fds, helper).run()
    return 0


def _name_ourselves() -> None:
    fd = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(fd, b"wherry-monitor")
    os.close(fd)


def _rest(kept: list[int]) -> None:
    """Wait until something happens: to any descriptor but the first, the daemon's connection, whose mere end is
    nothing to wake for."""
    poll = select.poll()
    for fd in kept:
        poll.register(fd, select.POLLIN)
    while True:
        ready = poll.poll()
        if len(ready) > 1 or ready[0][0] != kept[0] or not _ended(kept[0]):
            return
        poll.unregister(kept[0])


def _ended(fd: int) -> bool:
    """Whether the connection is closed and nothing waits in it."""
    connection = _socket.socket(fileno=fd)
    try:
        return not connection.recv(1, _PEEK)
    except OSError:
        return True
    finally:
        connection.detach()
