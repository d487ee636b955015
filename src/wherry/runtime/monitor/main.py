"""The life of a monitor process, from the spawner's fork to its exit.

    spare     its helper waits for a container to make, having rehearsed it
    born      the helper makes the container and hands over what the monitor keeps (`birth`)
    resting   nothing has happened yet: the descriptors are polled, and nothing else of the process's memory is touched;
              a daemon that comes back is taken (`doze`)
    at work   the supervisor, for the rest of the container's life, from the first output, other request or end

Resting is why an idle container costs little: each function that runs writes reference counts, and each page
written is copied.
"""

import _socket
import gc
import os
import select
import struct
import sys
from functools import partial
from typing import NoReturn

from wherry.linux import fdpass, prctl
from wherry.linux.subreaper import become_subreaper
from wherry.runtime.monitor import birth, doze, overdue, protocol
from wherry.runtime.monitor.poller import POLLIN
from wherry.runtime.monitor.rehearsal import warm
from wherry.runtime.monitor.supervisor import Supervisor

_PEEK = _socket.MSG_PEEK | _socket.MSG_DONTWAIT


def main(source: _socket.socket) -> NoReturn:
    """Be the monitor of the container that the record to come from `source` asks for; with it come the control
    connection, the clients' sockets and the request's files. Called in a forked process; never returns."""
    code = 1
    try:
        code = _live(source)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


# The calls of `_live`, each bound to its arguments. A partial passes both on without counting references to them, and
# those made together lie together: what an idle monitor has touched is little more than these.
_setsid = partial(os.setsid)
_fork = partial(os.fork)
_pair = partial(_socket.socketpair, _socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
_receive = partial(_socket.socket.recvmsg)
_RECEIVE = (protocol.LARGEST_RECORD, _socket.CMSG_SPACE(fdpass.MAX_FDS * 4), _socket.MSG_CMSG_CLOEXEC)
_integers = partial(struct.Struct("i").iter_unpack)
_wait = partial(os.waitpid)
_new_poll = partial(select.poll)
_REST = birth.REST[0]
_HEAD = birth.HEAD_SIZE
_SOON_MS: int | None = 50  # None: for ever
_close = partial(os.close)
_set_option = partial(_socket.socket.setsockopt)
_TIMEOUT = (_socket.SOL_SOCKET, _socket.SO_RCVTIMEO)


def _live(source: _socket.socket) -> int:
    _setsid()
    become_subreaper()
    ours, theirs = _pair()
    pid = _fork()
    if not pid:
        ours.close()
        birth.be_helper(theirs, lambda: _make_container(theirs, source))
    theirs.close()
    source.close()
    begun, control, _, _ = _receive(ours, *_RECEIVE)
    if not begun:
        _wait(pid, 0)
        return 1
    ((connection,),) = _integers(control[0][2])
    _set_option(ours, *_TIMEOUT, begun[: birth.TIMEVAL_SIZE])
    try:
        state, control, _, _ = _receive(ours, *_RECEIVE)
    except BlockingIOError:
        overdue.give_up(pid, connection, begun[birth.TIMEVAL_SIZE :])
        return 1
    if not state:
        _wait(pid, 0)
        return 1
    _close(connection)
    kept = [fd for (fd,) in _integers(control[0][2])]
    record = state[_HEAD + state[2] :]
    if state[0] != _REST:
        return _work(record, kept, birth.Helper(pid, ours))
    ours.close()
    _rest(kept, state[1], pid, state[_HEAD : _HEAD + state[2]])
    return _work(record, kept, None)


def _make_container(link: _socket.socket, source: _socket.socket) -> None:
    warm()
    birth.create(link, source)


def _work(record: bytes, fds: list[int], helper: birth.Helper | None) -> int:
    prctl.set_name(b"wherry-monitor")
    gc.enable()
    state = protocol.decode(record, fds)
    if helper and state["started_at"]:
        helper.link.close()
        helper = None  # the supervisor reaps it
    Supervisor(state, fds, helper).run()
    return 0


def _rest(kept: list[int], watched: int, helper: int, status: bytes) -> None:
    """Wait until something happens: to any of the `watched` descriptors but the daemon's connection, whose mere end is
    nothing to wake for, and neither is a daemon that comes back and asks for our `status`. The helper is not waited for
    at once: a container may end before it has left."""
    poll, patience = _new_poll(), _SOON_MS
    for fd in kept[:watched]:
        poll.register(fd, POLLIN)
    alive = True
    while True:
        ready = [fd for fd, _ in poll.poll(patience)]
        if not ready:
            _wait(helper, 0)
            patience = None
        if kept[0] in ready:
            ready.remove(kept[0])
            if _ended(kept[0]):
                poll.unregister(kept[0])
                alive = False
            elif not doze.answer(kept[0], status):
                return
        if ready == kept[1:2] and not alive and (connection := doze.accept(kept[1])) >= 0:
            _close(kept[0])
            kept[0], alive = connection, True
            poll.register(connection, POLLIN)
        elif ready:
            return


def _ended(fd: int) -> bool:
    """Whether the connection is closed and nothing waits in it."""
    connection = _socket.socket(fileno=fd)
    try:
        return not connection.recv(1, _PEEK)
    except OSError:
        return True
    finally:
        connection.detach()
