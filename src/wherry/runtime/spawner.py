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
import select
import signal
import struct
import sys
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_NOSIGNAL,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    socket,
    socketpair,
)
from collections.abc import Callable
from functools import partial

from wherry.linux import fdpass, malloc, prctl, vfork
from wherry.runtime import lifecycle
from wherry.runtime.monitor import protocol
from wherry.runtime.monitor.children import ignore_signals
from wherry.runtime.monitor.main import main as monitor_main
from wherry.runtime.monitor.rehearsal import rehearse

HELLO = b"ready"
_QUIET_MS = 30  # about the time a container takes to start, and a short one to end
_KEPT = 4 << 20  # of a busy monitor: the buffers of one turn, until it rests


def main(fd: int) -> None:
    """Serve requests on socket `fd` until it is closed."""
    prctl.close_all_but((fd,))
    connection = socket(fileno=fd)
    prctl.set_dumpable(False)
    prctl.set_name(b"wherry")
    os.umask(0o022)
    ignore_signals()
    lifecycle.host_facts()
    vfork.reserve()
    signal.signal(signal.SIGCHLD, _reaper(os.getpid()))
    rehearse()
    _freeze()
    _serve(connection)


def _serve(connection: socket) -> None:
    """Give each record to the monitor that waits for one, and fork the next once nobody asks for a while, or somebody
    does: the processors are the starting container's first.

    What is touched here between two forks is memory that no monitor shares any more: hence one function, local names,
    and calls bound to their arguments (see `monitor.main`).
    """
    pair, fork, close = partial(socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC), partial(os.fork), partial(os.close)
    receive = partial(connection.recvmsg, protocol.LARGEST_RECORD, CMSG_SPACE(fdpass.MAX_FDS * 4), MSG_CMSG_CLOEXEC)
    send, integers = partial(socket.sendmsg), partial(struct.Struct("i").iter_unpack)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    ready = False
    while True:
        if ready:
            poll.poll(_QUIET_MS)
        link, theirs = pair()
        try:
            if not fork():
                connection.close()
                link.close()
                monitor_main(theirs)
        except OSError:
            pass  # no room: nobody has the other end of the link, and `send` fails
        theirs.close()
        if not ready:
            ready = True
            fdpass.send(connection, HELLO)
        record, control, _, _ = receive()
        if not record:
            return
        if not control:
            continue
        try:
            send(link, [record], control, MSG_NOSIGNAL)
        except OSError:
            _give_to_another(connection, record, control)
        link.close()
        for (fd,) in integers(control[0][2]):
            close(fd)
        del record, control


def _give_to_another(connection: socket, record: bytes, control: list[tuple[int, int, bytes]]) -> None:
    """The spare monitor is gone, or could not be forked when it was time: try once more."""
    link, theirs = fdpass.pair()
    try:
        if not os.fork():
            connection.close()
            link.close()
            monitor_main(theirs)
        theirs.close()
        link.sendmsg([record], control, MSG_NOSIGNAL)
    except OSError as error:
        _refuse(control, error)
    finally:
        link.close()


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
    malloc.trim()  # what was freed since the start is nobody's to share
    malloc.keep_freed(_KEPT)
    gc.freeze()
    gc.disable()


def _refuse(control: list[tuple[int, int, bytes]], error: OSError) -> None:
    """Answer in a monitor's place: its end of the control connection is the first descriptor."""
    message = {
        "re": 0,
        "error": {"kind": "Unavailable", "message": f"cannot fork a process for the container: {error.strerror}"},
    }
    reply = socket(fileno=os.dup(struct.unpack_from("i", control[0][2])[0]))
    try:
        protocol.send(reply, protocol.encode(message), wait=False)
    except OSError:
        pass
    finally:
        reply.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
