"""Paths inside a root directory that someone else may be changing: openat2(2) and what is built on it.

A path of a container is resolved once, by the kernel, with RESOLVE_IN_ROOT: symbolic links and ".." cannot leave the
root, magic links of procfs are refused. What comes back is a descriptor, and only it is used from then on. Needs
Linux 5.6.
"""

import ctypes
import errno
import os
import stat
import struct

from wherry.linux.syscalls import NR, syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

O_PATH = os.O_PATH
_MAX_LINKS = 40  # the kernel's own limit, path_resolution(7)


def openat2(dir_fd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): a new close-on-exec descriptor. Retries the EAGAIN that a concurrent rename causes."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path)
    for _ in range(64):
        try:
            return syscall(NR.openat2, dir_fd, name, how, len(how))
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), os.fsdecode(path))


def open_in_root(root_fd: int, path: str | bytes, flags: int, mode: int = 0) -> int:
    """Open `path` as a process whose root is `root_fd` would see it. Raises OSError naming `path`."""
    return openat2(root_fd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def mkdir_in_root(root_fd: int, path: str, mode: int) -> int:
    """Make the directory `path` and its missing parents in the root; return an O_PATH descriptor of it.

    A symbolic link to something missing is followed inside the root and its target made, as images with a dangling
    /var/run need. Raises OSError, NotADirectoryError when the path or a parent is something else.
    """
    try:
        return open_in_root(root_fd, path, O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return _make_directories(root_fd, _components(path), mode)


def create_in_root(root_fd: int, path: str, mode: int = 0o644) -> int:
    """Open `path` in the root O_PATH, making it an empty regular file, with its parents, when nothing is there."""
    try:
        return open_in_root(root_fd, path, O_PATH)
    except FileNotFoundError:
        pass
    for _ in range(_MAX_LINKS):
        parts = _components(path)
        if not parts:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        parent = mkdir_in_root(root_fd, "/".join(parts[:-1]) or "/", 0o755)
        try:
            return _create_at(parent, parts[-1], mode)
        except FileExistsError:
            link = os.readlink(parts[-1], dir_fd=parent)
        finally:
            os.close(parent)
        path = "/".join(_follow(parts[:-1], link, []))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _create_at(parent: int, name: str, mode: int) -> int:
    try:
        os.close(
            os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent)
        )
    except FileExistsError:
        if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
    return os.open(name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _components(path: str) -> list[str]:
    """The parts of `path` with "." and ".." resolved lexically: only used for what does not exist yet."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def _follow(parents: list[str], link: str, rest: list[str]) -> list[str]:
    before = "" if link.startswith("/") else "/".join(parents) + "/"
    return _components(before + link) + rest


def _make_directories(root_fd: int, parts: list[str], mode: int) -> int:
    for _ in range(_MAX_LINKS):
        fd, depth = _deepest(root_fd, parts)
        while depth < len(parts):
            try:
                link = _mkdir_at(fd, parts[depth], mode)
            except BaseException:
                os.close(fd)
                raise
            if link is not None:
                os.close(fd)
                parts = _follow(parts[:depth], link, parts[depth + 1 :])
                break
            try:
                below = os.open(parts[depth], O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            finally:
                os.close(fd)
            fd, depth = below, depth + 1
        else:
            return fd
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), "/" + "/".join(parts))


def _mkdir_at(fd: int, name: str, mode: int) -> str | None:
    """Make the directory; return the target instead when `name` is a symbolic link (which then dangles)."""
    try:
        os.mkdir(name, mode, dir_fd=fd)
    except FileExistsError:
        if stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            return os.readlink(name, dir_fd=fd)
    except NotADirectoryError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from None
    return None


def _deepest(root_fd: int, parts: list[str]) -> tuple[int, int]:
    """Open the longest prefix of `parts` that exists: (descriptor, how many parts it covers)."""
    for depth in range(len(parts), -1, -1):
        try:
            return open_in_root(root_fd, "/".join(parts[:depth]) or "/", O_PATH | os.O_DIRECTORY), depth
        except FileNotFoundError:
            continue
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/")


def filesystem_type(fd: int) -> int:
    """The magic number of the file system `fd` is on: f_type of fstatfs(2), <linux/magic.h>."""
    buffer = ctypes.create_string_buffer(256)
    syscall(NR.fstatfs, fd, buffer)
    (magic,) = struct.unpack_from("l", buffer.raw)
    return int(magic)
