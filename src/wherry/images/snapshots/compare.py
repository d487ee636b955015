"""How one tree differs from another: what a container made without overlay changed in its copy of the image.

The rule is Docker's for its drivers without a diff of their own (moby pkg/archive, ChangesDirs): a file is modified
when its mode, owner, device, size or time differs, a directory when its mode or owner does or anything in it changed.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MODIFIED, ADDED, DELETED = 0, 1, 2
"""Kinds of changes, numbered as in GET /containers/{id}/changes."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 256 << 10


class Change(NamedTuple):
    """One path that differs."""

    path: str
    """absolute in the container"""
    kind: int
    status: os.stat_result | None
    """what is there now; None for what was deleted"""
    before: os.stat_result | None
    """what was there; None for what was added"""


def changes(old: Path, new: Path) -> Iterator[Change]:
    """What turns the tree `old` into `new`, a directory before what is in it. The new one may be changing: what
    vanishes meanwhile is passed over. Raises OSError when either is no directory."""
    old_fd = os.open(old, _DIRECTORY)
    try:
        new_fd = os.open(new, _DIRECTORY)
        try:
            yield from between(old_fd, new_fd)
        finally:
            os.close(new_fd)
    finally:
        os.close(old_fd)


def between(old: int, new: int, *, contents: bool = False) -> Iterator[Change]:
    """As `changes`, of two descriptors. `contents`: files of equal size and time are read, too, unless they are one."""
    yield from _Comparison(contents).below("", old, new)


def size_of(change: Change, old: int) -> int:
    """Bytes in the file that is there now, or that was deleted, of a directory that was with all below it; `old` is
    the descriptor of the old tree. 0 for other directories."""
    status = change.status or change.before
    if status is None or not stat.S_ISDIR(status.st_mode):
        return status.st_size if status else 0
    return _tree_size(old, change.path[1:]) if change.status is None else 0


def _tree_size(root: int, path: str) -> int:
    """Bytes in the files of the directory `path` below `root`. Nobody writes there."""
    total = 0
    for _, _, names, fd in os.fwalk(path, dir_fd=root):
        total += sum(os.stat(name, dir_fd=fd, follow_symlinks=False).st_size for name in names)
    return total


def written(old: Path, new: Path) -> int:
    """Bytes in the files that are new or changed, each inode once."""
    sizes = {
        (change.status.st_dev, change.status.st_ino): change.status.st_size
        for change in changes(old, new)
        if change.status is not None and not stat.S_ISDIR(change.status.st_mode)
    }
    return sum(sizes.values())


class _Comparison:
    """One walk through two trees."""

    def __init__(self, contents: bool) -> None:
        self._contents = contents

    def below(self, path: str, old: int, new: int) -> Iterator[Change]:
        """The changes between two directories; `old` -1 when there was none."""
        names = set(os.listdir(old)) if old >= 0 else set()
        for name in sorted(names | set(os.listdir(new))):
            before = _status(name, old) if name in names else None
            after = _status(name, new)
            where = f"{path}/{name}"
            if after is None:
                yield from [Change(where, DELETED, None, before)] if before else []
            elif stat.S_ISDIR(after.st_mode):
                yield from self._directory(where, name, (old, before), (new, after))
            elif before is None or self._differs(name, (old, before), (new, after)):
                yield Change(where, ADDED if before is None else MODIFIED, after, before)

    def _directory(
        self, path: str, name: str, old: tuple[int, os.stat_result | None], new: tuple[int, os.stat_result]
    ) -> Iterator[Change]:
        before, after = old[1], new[1]
        was_directory = before is not None and stat.S_ISDIR(before.st_mode)
        old_fd = os.open(name, _DIRECTORY, dir_fd=old[0]) if was_directory else -1
        try:
            try:
                new_fd = os.open(name, _DIRECTORY, dir_fd=new[0])
            except (FileNotFoundError, NotADirectoryError):
                return
            try:
                inside = self.below(path, old_fd, new_fd)
                first = next(inside, None)
                if before is None or first is not None or _differs(before, after):
                    yield Change(path, ADDED if before is None else MODIFIED, after, before)
                if first is not None:
                    yield first
                    yield from inside
            finally:
                os.close(new_fd)
        finally:
            if old_fd >= 0:
                os.close(old_fd)

    def _differs(self, name: str, old: tuple[int, os.stat_result], new: tuple[int, os.stat_result]) -> bool:
        if _differs(old[1], new[1]):
            return True
        # layers that two images share show one inode number
        return self._contents and old[1].st_ino != new[1].st_ino and not _same_content(name, old[0], new[0], new[1])


def _same_content(name: str, old: int, new: int, status: os.stat_result) -> bool:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(name, dir_fd=old) == os.readlink(name, dir_fd=new)
    if not stat.S_ISREG(status.st_mode):
        return True
    with open(os.open(name, _FILE, dir_fd=old), "rb") as one, open(os.open(name, _FILE, dir_fd=new), "rb") as other:
        while piece := one.read(_PIECE):
            if piece != other.read(_PIECE):
                return False
    return True


def _status(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _differs(before: os.stat_result, after: os.stat_result) -> bool:
    same = (before.st_mode, before.st_uid, before.st_gid, before.st_rdev)
    if same != (after.st_mode, after.st_uid, after.st_gid, after.st_rdev):
        return True
    if stat.S_ISDIR(after.st_mode):
        return False
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
