"""Paths of a container as the archive calls take them, with Docker's answers for those that lead nowhere."""

import errno
import os
import posixpath
import stat
from typing import NamedTuple

from wherry.errors import Internal, InvalidArgument, NotFound, WherryError
from wherry.linux.openat import O_PATH, open_in_root

_LINKS_MAX = 255
# Go's FileMode: the kinds above the permissions
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


class PathStat(NamedTuple):
    """What a path is. `mode` in Go's bits, `mtime_ns` in nanoseconds; `link_target` where a link leads in the end."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str


class Found(NamedTuple):
    """A resolved path: an O_PATH descriptor, which is the caller's, of what may be a symbolic link itself."""

    fd: int
    status: os.stat_result


def absolute(path: str) -> str:
    """`path` from the root and without detours, but with the `/` or `/.` at its end: they mean something."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if posixpath.basename(path) == ".":
        return clean.rstrip("/") + "/."
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def base(path: str) -> str:
    """The last component, as Go's filepath.Base."""
    stripped = path.rstrip("/")
    return posixpath.basename(stripped) if stripped else "/" if path else "."


def find(root: int, path: str, container: str, asked: str) -> Found:
    """What is at `path`; a link at its very end is not followed unless `/` comes after it. `asked` is the path as
    errors name it. Raises `NotFound`, `Internal`."""
    try:
        fd = open_in_root(root, path, O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        raise refusal(error, "lstat " + path, container, asked) from None
    return Found(fd, os.fstat(fd))


def find_directory(root: int, path: str, container: str, asked: str) -> int:
    """A readable descriptor of the directory `path`, links followed. Raises as `find`, and `InvalidArgument`."""
    try:
        fd = open_in_root(root, path, O_PATH)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Internal("EvalSymlinks: too many links") from None
        raise refusal(error, "lstat " + path, container, asked) from None
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise InvalidArgument("extraction point is not a directory")
        return reopen(fd, os.O_DIRECTORY)
    finally:
        os.close(fd)


def reopen(fd: int, flags: int = 0) -> int:
    """A descriptor to read of what an O_PATH descriptor refers to. Links and devices cannot be opened this way."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | flags)


def refusal(error: OSError, what: str, container: str, asked: str) -> WherryError:
    """An error of the kernel's as Docker tells it."""
    if error.errno == errno.ENOENT:
        return NotFound(f"Could not find the file {asked} in container {container}")
    return Internal(f"{what}: {(error.strerror or str(error)).lower()}")


def describe(root: int, path: str, found: Found) -> PathStat:
    """The stat of `path`. Raises `Internal` for a link that leads round in circles."""
    status = found.status
    target = follow(root, path) if stat.S_ISLNK(status.st_mode) else ""
    return PathStat(base(path), status.st_size, go_mode(status.st_mode), status.st_mtime_ns, target)


def go_mode(mode: int) -> int:
    """A file's mode in the bits of Go's os.FileMode."""
    bits = sum(go for unix, go in _GO_BITS if mode & unix)
    return mode & 0o777 | bits | _GO_KINDS.get(stat.S_IFMT(mode), 0)


def follow(root: int, path: str) -> str:
    """Where `path` leads in the container, whether anything is there or not: for showing only."""
    waiting = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        target = _link_at(root, "/" + "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise Internal(f"evalSymlinksInScope: too many links in {path}")
        if target.startswith("/"):
            done = []
        waiting += target.split("/")[::-1]
    return "/" + "/".join(done)


def _link_at(root: int, path: str) -> str | None:
    try:
        fd = open_in_root(root, path, O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def mount_id(fd: int) -> str:
    """The id of the mount that `fd` is in."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return next(line.split()[1] for line in file if line.startswith("mnt_id:"))
