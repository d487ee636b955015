"""The terminal of a container: made in its own devpts, handed to whoever watches the container by descriptor."""

import errno
import os
import socket
import stat

from wherry.linux import mounts as m
from wherry.linux import openat, tty
from wherry.runtime import rootfs
from wherry.runtime.failure import StartError, words
from wherry.runtime.mount_options import MountOptions

_CONSOLE = "/dev/console"


def open_terminal(root_fd: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """Make a terminal in the devpts mounted at /dev/pts of the root: (master, peer). The peer comes from the master,
    not from a path. Raises StartError."""
    try:
        master = openat.open_in_root(root_fd, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        peer = tty.open_peer(master)
        if size is not None:
            tty.set_size(master, *size)
    except OSError as error:
        raise StartError("Internal", f"error opening the console's terminal: {words(error)}") from None
    return master, peer


def mount_console(root_fd: int, peer: int) -> None:
    """Bind the terminal on /dev/console, which is made when missing and must not be a link. Raises StartError."""
    try:
        dev = openat.open_in_root(root_fd, "/dev", openat.O_PATH | os.O_DIRECTORY)
        try:
            flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                os.close(os.open("console", flags, 0o666, dir_fd=dev))
            except FileExistsError:
                pass
            target = os.open("console", openat.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev)
            if stat.S_ISLNK(os.fstat(target).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), _CONSOLE)
        finally:
            os.close(dev)
        try:
            _bind(peer, target)
        finally:
            os.close(target)
    except OSError as error:
        raise StartError("Internal", f"error mounting the console at {_CONSOLE}: {words(error)}") from None


def _bind(peer: int, target: int) -> None:
    if rootfs.has_mount_api():
        m.move_mount(m.copy_mount(peer), target)
    else:
        os.close(rootfs.bind(target, m.fd_path(peer), MountOptions(bind=True)))


def become_controlled(peer: int) -> None:
    """Make the terminal ours: controlling, and descriptors 0, 1, 2."""
    tty.set_controlling(peer)
    take_streams(peer)


def take_streams(peer: int) -> None:
    """Make the terminal descriptors 0, 1, 2."""
    for number in (0, 1, 2):
        os.dup2(peer, number, inheritable=True)


def send(path: str, master: int) -> None:
    """Send the master to the listener of a `--console-socket`, named as runc names it. Raises StartError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            socket.send_fds(connection, [b"/dev/ptmx"], [master])
    except OSError as error:
        raise StartError("Internal", f"console socket {path}: {words(error)}") from None
