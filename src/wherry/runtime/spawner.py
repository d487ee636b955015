"""The spawner: a small warm process that forks a monitor for every container.

It is executed by the daemon from a sealed copy of the interpreter (`wherry.linux.memfd`), cannot be traced or looked
into, has one thread, and has imported all that monitors and containers' inits need before its first fork. It keeps
its heap out of the garbage collector's reach, so that its children share it. Its only connection is a SOCK_SEQPACKET
socket; when that ends, it ends, and the monitors live on, re-parented to init.

A request is a record of `monitor.protocol`, not decoded here, with descriptors: the monitor's end of its first
control connection, the sockets of clients that attach at once, and the file of a large record.
"""

import gc
import os
import signal
import struct
import sys
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, socket
from collections.abc import Callable

from wherry.linux import fdpass, prctl
from wherry.linux.syscalls import libc
from wherry.runtime import lifecycle
from wherry.runtime.monitor import protocol
from wherry.runtime.monitor.children import ignore_signals
from wherry.runtime.monitor.main import main as monitor_main

HELLO = b"ready"


def main(fd: int) -> None:
    """Serve requests on socket `fd` until it is closed."""
    prctl.close_all_but((fd,))
    connection = socket(fileno=fd)
    prctl.set_dumpable(False)
    prctl.set_name(b"wherry")
    os.umask(0o022)
    ignore_signals()
    lifecycle.host_facts()
    signal.signal(signal.SIGCHLD, _reaper(os.getpid()))
    _freeze()
    fdpass.send(connection, HELLO)
    _serve(connection)


def _serve(connection: socket) -> None:
    """Fork a monitor per record. All in one function with local names: what is touched here between two forks is
    memory that no monitor shares any more."""
    recvmsg, fork, close, integers = connection.recvmsg, os.fork, os.close, struct.Struct("i").iter_unpack
    size, space, flags = protocol.LARGEST_RECORD, CMSG_SPACE(fdpass.MAX_FDS * 4), MSG_CMSG_CLOEXEC
    while True:
        record, control, _, _ = recvmsg(size, space, flags)
        if not record:
            return
        if not control:
            continue
        fds = [fd for (fd,) in integers(control[0][2])]
        try:
            pid = fork()
        except OSError as error:
            _refuse(fds[0], error)
            pid = -1
        if pid == 0:
            connection.close()
            monitor_main(record, fds)
        for fd in fds:
            close(fd)
        del record, control, fds


def _reaper(spawner: int) -> Callable[[int, object], None]:
    """The handler of SIGCHLD. Monitors inherit it, and reap their children themselves."""

    def reap(number: int, frame: object) -> None:
        try:
            while os.getpid() == spawner and os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    return reap


def _freeze() -> None:
    """Everything made so far is for ever: children must not touch it to find that out again."""
    gc.collect()
    trim = getattr(libc, "malloc_trim", None)  # glibc's; what was freed since the start is nobody's to share
    if trim:
        trim(0)
    gc.freeze()
    gc.disable()


def _refuse(fd: int, error: OSError) -> None:
    message = {"re": 0, "error": {"kind": "Unavailable", "message": f"cannot fork a monitor: {error.strerror}"}}
    reply = socket(fileno=os.dup(fd))
    try:
        protocol.send(reply, protocol.encode(message), wait=False)
    except OSError:
        pass
    finally:
        reply.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
