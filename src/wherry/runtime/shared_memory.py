"""Mounts of another container, for `--ipc container:`: open_tree(2) copies only those of the caller's own mount
namespace, so a child goes there and sends what it copied."""

import os
import socket

from wherry.linux import mounts as m
from wherry.linux import namespaces as ns
from wherry.linux.openat import filesystem_type

_TMPFS_MAGIC = 0x01021994
_SHARED_MEMORY = "/dev/shm"


def names_another(source: str) -> bool:
    """Whether a bind's source is the /dev/shm of a process in another mount namespace, by its name in /proc."""
    start, _, rest = source.removeprefix("/proc/").partition("/root")
    return source.startswith("/proc/") and start.isdecimal() and rest == _SHARED_MEMORY


def copy_mount(source: str) -> int:
    """A detached copy of the mount that `source` (see `names_another`) names. Raises OSError."""
    process = source.removesuffix(f"/root{_SHARED_MEMORY}")
    namespace = os.open(f"{process}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
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
