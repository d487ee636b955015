"""Messages with file descriptors over SOCK_SEQPACKET unix sockets (unix(7), SCM_RIGHTS and SCM_CREDENTIALS).

One message is one record: it arrives whole or not at all. The C module `_socket` is used rather than `socket`, whose
classes and enums the forked processes can do without.
"""

import _socket
import os
import struct

MAX_FDS = 253  # the kernel's SCM_MAX_FD

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
_FD_SPACE = _socket.CMSG_SPACE(MAX_FDS * 4)
_NAMED_SPACE = _FD_SPACE + _socket.CMSG_SPACE(_CREDENTIALS.size)


def pair() -> tuple[_socket.socket, _socket.socket]:
    """Two connected SOCK_SEQPACKET sockets, close-on-exec, blocking."""
    left, right = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    return left, right


def name_senders(sock: _socket.socket) -> None:
    """From now on the kernel notes who sends what `sock` receives: see `receive_named`."""
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)


def send(sock: _socket.socket, payload: bytes, fds: list[int] | tuple[int, ...] = (), *, wait: bool = True) -> None:
    """Send one record with copies of `fds`; the caller keeps its own.

    Raises BlockingIOError when the queue is full and `wait` is false, OSError(EMSGSIZE) when `payload` exceeds the
    socket's buffer, BrokenPipeError or ConnectionResetError when the peer is gone.
    """
    control = []
    if fds:
        control = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
    flags = _socket.MSG_NOSIGNAL | (0 if wait else _socket.MSG_DONTWAIT)
    sock.sendmsg([payload], control, flags)


def receive(sock: _socket.socket, size: int, *, wait: bool = True) -> tuple[bytes, list[int]]:
    """Receive one record of at most `size` bytes and the fds that came with it (close-on-exec, now the caller's).

    An empty payload means the end of the conversation. Raises BlockingIOError when nothing waits and `wait` is false,
    ValueError for a record or fd list cut short (its fds are closed).
    """
    payload, fds, _ = _receive(sock, size, _FD_SPACE, wait)
    return payload, fds


def receive_named(sock: _socket.socket, size: int, *, wait: bool = True) -> tuple[bytes, list[int], int]:
    """As `receive`, of a socket that names senders; the third is the sender's pid, 0 at the end of the conversation.

    It is the kernel's word: a sender can name another only if it has CAP_SYS_ADMIN over its PID namespace, and only a
    process of that namespace.
    """
    return _receive(sock, size, _NAMED_SPACE, wait)


def _receive(sock: _socket.socket, size: int, space: int, wait: bool) -> tuple[bytes, list[int], int]:
    flags = _socket.MSG_CMSG_CLOEXEC | (0 if wait else _socket.MSG_DONTWAIT)
    payload, control, result, _ = sock.recvmsg(size, space, flags)
    fds: list[int] = []
    sender = 0
    for level, kind, data in control:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            count = len(data) // 4
            fds.extend(struct.unpack(f"{count}i", data[: count * 4]))
        elif level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS:
            sender = _CREDENTIALS.unpack(data)[0]
    if result & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        close_all(fds)
        raise ValueError("message longer than its receiver allows")
    return payload, fds, sender


def close_all(fds: list[int]) -> None:
    """Close every fd of the list and empty it."""
    while fds:
        os.close(fds.pop())
