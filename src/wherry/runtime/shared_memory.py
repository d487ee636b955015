"""Mounts of another container, for `--ipc container:`: open_tree(2) copies only those of the caller's own mount
namespace, so a child goes there and sends what it copied."""

import os
import re
import socket

from wherry.linux import mounts as m
from wherry.linux import namespaces as ns
from wherry.linux.openat import filesystem_type

_TMPFS_MAGIC = 0x01021994
_SHARED_MEMORY = "/dev/shm"
_NAME = re.compile(r"(/proc/[0-9]+)(?:/root|(/fd/[0-9]+))/dev/shm")


def of_process(directory: str) -> str:
    """The name of the /dev/shm of a process, by its directory /proc/PID."""
    return f"{directory}/root{_SHARED_MEMORY}"


def of_namespace(descriptor: str) -> str:
    """The name of the /dev/shm of a mount namespace, by a descriptor of it, /proc/PID/fd/N. No path: only `copy_mount`
    can follow it."""
    return f"{descriptor}{_SHARED_MEMORY}"


def names_another(source: str) -> bool:
    """Whether a bind's source is the /dev/shm of a process in another mount namespace, or of such a namespace."""
    return _NAME.fullmatch(source) is not None


def copy_mount(source: str) -> int:
    """A detached copy of the mount that `source` (see `names_another`) names. Raises OSError."""
    match = _NAME.fullmatch(source)
    assert match
    namespace = os.open(match[1] + (match[2] or "/ns/mnt"), os.O_RDONLY | os.O_CLOEXEC)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = os.fork()
            if child == 0:
                _send_copy(theirs, namespace)
        os.close(namespace)
        said, fds, _, _ = socket.recv_fds(ours, 16, 1)
    os.waitpid(child, 0)
    if not fds:
        code = int(said or b"5")
        raise OSError(code, os.strerror(code), source)
    return fds[0]


def _send_copy(link: socket.socket, namespace: int) -> None:
    """In the child. Only a tmpfs is given away: whatever else a container puts there is its own."""
    try:
        ns.setns(namespace, ns.CLONE_NEWNS)
        fd = m.open_tree(m.AT_FDCWD, _SHARED_MEMORY)
        if filesystem_type(fd) != _TMPFS_MAGIC:
            raise OSError(22, "not a tmpfs")
        socket.send_fds(link, [b"0"], [fd])
    except OSError as error:
        link.send(str(error.errno or 5).encode("ascii"))
    finally:
        os._exit(0)
