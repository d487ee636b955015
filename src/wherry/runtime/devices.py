"""The device nodes and links of a container's /dev."""

import os
import stat
from typing import NamedTuple

from wherry.linux.openat import O_PATH, create_in_root, mkdir_in_root, open_in_root
from wherry.runtime.failure import StartError, path_error


class Device(NamedTuple):
    """A node to be made: `path` in the container, `kind` c, b, u or p, permission bits `mode`."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


# config-linux.md, "Default Devices"
DEFAULT: tuple[Device, ...] = tuple(
    Device(path, "c", major, minor, 0o666, 0, 0)
    for path, major, minor in (
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    )
)
LINKS: tuple[tuple[str, str], ...] = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
)
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
NULL = os.makedev(1, 3)


def merge(configured: tuple[Device, ...]) -> tuple[Device, ...]:
    """The nodes to make: the default ones, unless the configuration has its own for the path, then the others."""
    own = {device.path for device in configured}
    return tuple(device for device in DEFAULT if device.path not in own) + configured


def make_nodes(root_fd: int, nodes: tuple[Device, ...]) -> None:
    """Make the nodes; their parents are made when missing, a node that is there already must be the same."""
    opened: dict[str, int] = {}
    try:
        for device in nodes:
            directory, _, name = device.path.rpartition("/")
            if directory not in opened:
                opened[directory] = mkdir_in_root(root_fd, directory or "/", 0o755)
            try:
                make_node_at(opened[directory], name, device)
            except OSError as error:
                raise StartError("Internal", path_error("mknod", device.path, error)) from None
    finally:
        for fd in opened.values():
            os.close(fd)


def make_node_at(parent: int, name: str, device: Device) -> None:
    """Make one node in the directory `parent`. The caller's umask is 0. Raises OSError."""
    number = os.makedev(device.major, device.minor)
    kind = _KINDS[device.kind]
    try:
        os.mknod(name, kind | device.mode, number, dir_fd=parent)
    except FileExistsError:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_IFMT(status.st_mode) != kind or (device.kind != "p" and status.st_rdev != number):
            raise
    if device.uid or device.gid:
        os.chown(name, device.uid, device.gid, dir_fd=parent, follow_symlinks=False)


def make_links(root_fd: int, *, kcore: bool) -> None:
    """The symbolic links of /dev; what exists under such a name is left alone. ptmx becomes the one of our devpts."""
    dev = open_in_root(root_fd, "/dev", O_PATH | os.O_DIRECTORY)
    try:
        for name, target in LINKS:
            if name == "core" and not kcore:
                continue
            try:
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                pass
        try:
            os.unlink("ptmx", dir_fd=dev)
        except FileNotFoundError:
            pass
        os.symlink("pts/ptmx", "ptmx", dir_fd=dev)
    except OSError as error:
        raise StartError("Internal", path_error("symlink", "/dev", error)) from None
    finally:
        os.close(dev)


def node_target(root_fd: int, path: str) -> int:
    """A file to bind a host's node onto, where mknod is not allowed (user namespaces): an O_PATH descriptor."""
    return create_in_root(root_fd, path, 0o666)


def open_null(root_fd: int) -> int:
    """The container's /dev/null, O_PATH, after making sure that it is the null device and no link or copy of
    something else. Raises StartError."""
    try:
        fd = open_in_root(root_fd, "/dev/null", O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        raise StartError("Internal", f"invalid /dev/null: {path_error('open', '/dev/null', error)}") from None
    if not is_null(os.fstat(fd)):
        os.close(fd)
        raise StartError("Internal", "invalid /dev/null: not the null device")
    return fd


def is_null(status: os.stat_result) -> bool:
    """Whether a file is the null device."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL
