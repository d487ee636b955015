"""What a container's own layer changes of the layers below it, seen without walking those.

The upper directory of an overlay holds what was touched. What of that is a difference depends on what lies below at the
same place, which is looked up layer by layer as the kernel merges them: the first layer that has a name decides, a
whiteout or an opaque directory hides the rest (kernel overlayfs.rst). As Docker, a directory counts as changed when
something in it did, or its mode or owner; a file that was copied up but not written does not count.

The upper directory may be a running container's: it is walked by descriptors, no link in it is followed. The layers
below are private and never change.
"""

import os
import stat
from collections.abc import Collection
from typing import NamedTuple

from wherry.images.archive.extract import OPAQUE_XATTR

MODIFIED, ADDED, DELETED = 0, 1, 2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITY = "security.capability"
_NS = 10**9
_DEPTH_MAX = 512


class Change(NamedTuple):
    """`path` in the container; `kind` is MODIFIED, ADDED or DELETED."""

    path: str
    kind: int


class _Below(NamedTuple):
    """What the layers below have under a name: its stat and a path to read it by; for a directory those that merge."""

    status: os.stat_result
    path: bytes
    directories: list[bytes]


class Differ:
    """Compares one upper directory with the layers below it; used once."""

    def __init__(self, lower: list[str], assumed: Collection[str] = (), *, whole: bool = False) -> None:
        """`lower` directories, top first. `assumed` are paths without leading slash that count as lying below though no
        layer has them: what the engine itself puts into every container. With `whole` the upper directory is no
        overlay's but a complete tree, and what is not in it was removed."""
        self._lower = [os.fsencode(path) for path in lower]
        self.assumed = frozenset(os.fsencode(path) for path in assumed)
        self.whole = whole
        self._found: list[tuple[bytes, int]] = []

    def changes(self, upper: int) -> list[Change]:
        """All differences, in the order of their paths. `upper` is a descriptor of the upper directory."""
        self._directory(upper, b"", self._lower, 0)
        self._found.sort(key=lambda item: item[0].split(b"/"))
        return [Change("/" + os.fsdecode(path), kind) for path, kind in self._found]

    def _directory(self, upper: int, path: bytes, below: list[bytes], depth: int) -> bool:
        """Compare a directory's content; whether anything in it changed."""
        before = len(self._found)
        names = {os.fsencode(name) for name in os.listdir(upper)}
        for name in sorted(names):
            try:
                self._entry(upper, name, path + b"/" + name if path else name, below, depth)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it changed meanwhile
        if below and (self.whole or _is_opaque(upper)):
            gone = {name for directory in below for name in map(os.fsencode, os.listdir(directory))} - names
            for name in gone:
                if _look(below, name) is not None:
                    self._found.append((path + b"/" + name if path else name, DELETED))
        return len(self._found) > before

    def _entry(self, upper: int, name: bytes, path: bytes, below: list[bytes], depth: int) -> None:
        status = os.stat(name, dir_fd=upper, follow_symlinks=False)
        old = _look(below, name)
        if not self.whole and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            if old is not None:
                self._found.append((path, DELETED))
            return
        assumed = old is None and path in self.assumed
        kind = ADDED if old is None else MODIFIED
        changed = not assumed and (old is None or _differs(upper, name, status, old))
        if stat.S_ISDIR(status.st_mode) and depth < _DEPTH_MAX:
            fd = os.open(name, _DIRECTORY, dir_fd=upper)
            try:
                changed = self._directory(fd, path, old.directories if old else [], depth + 1) or changed
            finally:
                os.close(fd)
        if changed:
            self._found.append((path, MODIFIED if assumed else kind))


def differences(upper: str, differ: Differ) -> list[Change]:
    """All differences of the upper directory. Raises OSError."""
    fd = os.open(upper, _DIRECTORY)
    try:
        return differ.changes(fd)
    finally:
        os.close(fd)


def _look(layers: list[bytes], name: bytes) -> _Below | None:
    """What the merge of the directories `layers`, top first, has under `name`."""
    found: _Below | None = None
    for directory in layers:
        path = directory + b"/" + name
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(status.st_mode):
            is_whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
            return found or (None if is_whiteout else _Below(status, path, []))
        if found is None:
            found = _Below(status, path, [])
        found.directories.append(path)
        if _is_opaque(path):
            break
    return found


def _differs(upper: int, name: bytes, status: os.stat_result, old: _Below) -> bool:
    """Whether a file is another than the one below: Docker's comparison."""
    was = old.status
    if (status.st_mode, status.st_uid, status.st_gid, status.st_rdev) != (
        was.st_mode,
        was.st_uid,
        was.st_gid,
        was.st_rdev,
    ):
        return True
    if not stat.S_ISDIR(status.st_mode) and (status.st_size != was.st_size or not _same_time(status, was)):
        return True
    return _capability(b"/proc/self/fd/%d/%s" % (upper, name)) != _capability(old.path)


def _same_time(one: os.stat_result, other: os.stat_result) -> bool:
    """Equal, or equal in seconds where one has no fraction: archives leave that out."""
    if one.st_mtime_ns // _NS != other.st_mtime_ns // _NS:
        return False
    return one.st_mtime_ns == other.st_mtime_ns or not one.st_mtime_ns % _NS or not other.st_mtime_ns % _NS


def _capability(path: bytes) -> bytes:
    try:
        return os.getxattr(path, _CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""


def _is_opaque(where: int | bytes) -> bool:
    try:
        return os.getxattr(where, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
