"""Messages with file descriptors over SOCK_SEQPACKET unix sockets (unix(7), SCM_RIGHTS in cmsg(3)).

One message is one record: it arrives whole or not at all. The C module `_socket` is used rather than `socket`, whose
classes and enums the forked processes can do without.
"""

import _socket
import os
import struct

MAX_FDS = 253  # the kernel's SCM_MAX_FD

_FD_BYTES = MAX_FDS * 4


def pair() -> tuple[_socket.socket, _socket.socket]:
    """Two connected SOCK_SEQPACKET sockets, close-on-exec, blocking."""
    left, right = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    return left, right


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
    flags = _socket.MSG_CMSG_CLOEXEC | (0 if wait else _socket.MSG_DONTWAIT)
    payload, control, result, _ = sock.recvmsg(size, _socket.CMSG_SPACE(_FD_BYTES), flags)
    fds: list[int] = []
    for level, kind, data in control:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            count = len(data) // 4
            fds.extend(struct.unpack(f"{count}i", data[: count * 4]))
    if result & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        close_all(fds)
        raise ValueError("message longer than its receiver allows")
    return payload, fds


def close_all(fds: list[int]) -> None:
    """Close every fd of the list and empty it."""
    while fds:
        os.close(fds.pop())
