"""Mounting: the descriptor-based mount API (Linux 5.2, mount_setattr 5.12) and the old one, one function per call.

Man pages: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2), mount(2), pivot_root(2).
Numbers from <linux/mount.h> and <sys/mount.h>.
"""

import errno
import os
import struct

from wherry.linux.syscalls import NR, syscall

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

# mount(2) flags
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000

# attributes of one mount, fsmount(2) and mount_setattr(2)
ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_ATIME = 0x70  # a mask: the three below are its values
ATTR_RELATIME = 0x0
ATTR_NOATIME = 0x10
ATTR_STRICTATIME = 0x20
ATTR_NODIRATIME = 0x80
ATTR_IDMAP = 0x100000
ATTR_NOSYMFOLLOW = 0x200000

MNT_DETACH = 0x2

_OPEN_TREE_CLONE = 0x1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_FSOPEN_CLOEXEC = 0x1
_FSMOUNT_CLOEXEC = 0x1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_EMPTY_BOTH = 0x04 | 0x40  # F_EMPTY_PATH | T_EMPTY_PATH

# MS_ bit → attribute bit, for those who fall back from one API to the other
_ATTR_TO_MS = (
    (ATTR_RDONLY, MS_RDONLY),
    (ATTR_NOSUID, MS_NOSUID),
    (ATTR_NODEV, MS_NODEV),
    (ATTR_NOEXEC, MS_NOEXEC),
    (ATTR_NODIRATIME, MS_NODIRATIME),
    (ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW),
)


def fsopen(fstype: str) -> int:
    """A configuration context for a new file system instance."""
    return syscall(NR.fsopen, os.fsencode(fstype), _FSOPEN_CLOEXEC)


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Set the option `key=value` of a context. The kernel takes at most 255 bytes of key and value each for most
    file systems; a path longer than that is given as the descriptor's /proc/self/fd name."""
    syscall(NR.fsconfig, fd, _FSCONFIG_SET_STRING, os.fsencode(key), os.fsencode(value), 0)


def fsconfig_flag(fd: int, key: str) -> None:
    """Set the option `key`, which takes no value."""
    syscall(NR.fsconfig, fd, _FSCONFIG_SET_FLAG, os.fsencode(key), 0, 0)


def fsconfig_create(fd: int) -> None:
    """Make the superblock, or find the one that fits."""
    syscall(NR.fsconfig, fd, _FSCONFIG_CMD_CREATE, 0, 0, 0)


def fsmount(fd: int, attributes: int = 0) -> int:
    """A descriptor of a new mount, attached nowhere, of a context's superblock."""
    return syscall(NR.fsmount, fd, _FSMOUNT_CLOEXEC, attributes)


def new_filesystem(
    fstype: str, options: list[tuple[str, str | None]], attributes: int = 0, *, context: int = -1
) -> int:
    """Mount a new instance of `fstype` and return the descriptor of the (detached) mount.

    `options` are (key, value) pairs, value None for a flag. `context`: of `fsopen`, in place of one of our own; it is
    closed. Raises OSError whose strerror carries the file system's own words when it left any.
    """
    fd = context if context >= 0 else fsopen(fstype)
    try:
        for key, value in options:
            if value is None:
                fsconfig_flag(fd, key)
            else:
                fsconfig_string(fd, key, value)
        fsconfig_create(fd)
        return fsmount(fd, attributes)
    except OSError as error:
        raise _explained(fd, error, fstype) from None
    finally:
        os.close(fd)


def _explained(fd: int, error: OSError, fstype: str) -> OSError:
    """The error with the messages a file system left in the context's log ("e overlay: …")."""
    words = []
    try:
        while True:
            words.append(os.read(fd, 1024).decode("utf-8", "replace").strip()[2:])
    except OSError:
        pass
    text = os.strerror(error.errno or 0) + (f" ({'; '.join(words)})" if words else "")
    return OSError(error.errno, text, fstype)


def open_tree(dir_fd: int, path: str, flags: int = 0) -> int:
    """A detached copy of the mount at `path` (open_tree with OPEN_TREE_CLONE); AT_RECURSIVE takes the tree, an empty
    path with AT_EMPTY_PATH means `dir_fd` itself."""
    return syscall(NR.open_tree, dir_fd, os.fsencode(path), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | flags)


def copy_mount(fd: int, *, recursive: bool = False) -> int:
    """A detached copy of the mount, rooted at what `fd` refers to."""
    return open_tree(fd, "", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0))


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach the mount to the place `target_fd` refers to; no path is looked up."""
    syscall(NR.move_mount, mount_fd, b"", target_fd, b"", _MOVE_MOUNT_EMPTY_BOTH)


def mount_setattr(
    fd: int, *, set_: int = 0, clear: int = 0, propagation: int = 0, userns_fd: int = 0, recursive: bool = False
) -> None:
    """Change the attributes of the mount `fd` is the root of. `propagation` is one of MS_PRIVATE, MS_SLAVE, MS_SHARED,
    MS_UNBINDABLE or 0; `userns_fd` goes with ATTR_IDMAP in `set_`. Changing an ATTR_ATIME value clears the old."""
    if set_ & ATTR_ATIME:
        clear |= ATTR_ATIME
    attributes = struct.pack("QQQQ", set_, clear, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(NR.mount_setattr, fd, b"", flags, attributes, len(attributes))


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError naming the target."""
    try:
        syscall(
            NR.mount,
            os.fsencode(source) or None,
            os.fsencode(target),
            os.fsencode(fstype) or None,
            flags,
            os.fsencode(data) or None,
        )
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from None


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError naming the target."""
    try:
        syscall(NR.umount2, os.fsencode(target), flags)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from None


def mounted(path: str) -> bool:
    """Whether something is mounted on the directory `path`, be it a bind of the same file system."""
    try:
        inside, outside = _mount_id(path), _mount_id(os.path.dirname(path))
    except FileNotFoundError:
        return False
    return inside != outside


def _mount_id(path: str) -> str:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            return next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def unmount_all(path: str) -> None:
    """Unmount everything that is mounted on the directory `path`. Who uses it goes on. Raises OSError."""
    while mounted(path):
        umount2(path, MNT_DETACH)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2); with (".", ".") the old root ends up stacked on the new one, ready to be detached."""
    syscall(NR.pivot_root, os.fsencode(new), os.fsencode(old))


def fd_path(fd: int) -> str:
    """A path that means exactly what `fd` refers to, for the old calls."""
    return f"/proc/self/fd/{fd}"


def attributes_to_flags(attributes: int) -> int:
    """The MS_ flags that say the same as mount attributes."""
    flags = 0
    for attribute, flag in _ATTR_TO_MS:
        if attributes & attribute:
            flags |= flag
    atime = attributes & ATTR_ATIME
    if atime == ATTR_NOATIME:
        flags |= MS_NOATIME
    elif atime == ATTR_STRICTATIME:
        flags |= MS_STRICTATIME
    return flags


def has_mount_api() -> bool:
    """Whether the descriptor-based API works here: Linux 5.2, and no seccomp filter around us that hides it."""
    try:
        os.close(fsopen("tmpfs"))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        raise
    return True
