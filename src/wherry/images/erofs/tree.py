"""A layer's files in memory, as small as Python lets them be: inodes are 64 bytes each in one array, as in the image.

Directories are dictionaries of names, so that there can be no cycles: a directory gets into one when it is made, and
never again. Paths are resolved as the kernel does it with the layer as root (RESOLVE_IN_ROOT of openat2(2)); errors are
the kernel's. What a hostile archive makes this cost in memory and steps is bounded: beyond that, `Unsuitable`.
"""

import errno
import os
import stat
from array import array
from collections.abc import Sequence

from wherry.images.archive.names import NAME_MAX
from wherry.images.erofs import Unsuitable, format
from wherry.images.erofs.attributes import Xattr

ROOT = 1
_LINKS_MAX = 40
_PATH_MAX = 4096
_MEMORY_MAX = 96 << 20
_INODE_COST = 256  # of its name in the directory too: 210 were measured
_STEPS_MAX = 20_000_000

KINDS = {
    stat.S_IFREG: format.REGULAR,
    stat.S_IFDIR: format.DIRECTORY,
    stat.S_IFCHR: format.CHARACTER,
    stat.S_IFBLK: format.BLOCK_DEVICE,
    stat.S_IFIFO: format.FIFO,
    stat.S_IFLNK: format.SYMLINK,
}


def failure(number: int) -> OSError:
    """The error `number` as Python's kind of OSError."""
    return OSError(number, os.strerror(number))


class Tree:
    """Inodes by number; 0 is none, `ROOT` the root directory."""

    def __init__(self, now_ns: int) -> None:
        """`now_ns` is the time of what no archive tells the time of."""
        self.inodes = bytearray(format.INODE_SIZE)
        self.kinds = bytearray(1)
        self.directories: dict[int, dict[bytes, int]] = {}
        self.parents = {ROOT: ROOT}
        self.targets: dict[int, bytes] = {}
        """of symbolic links"""
        self.xattrs: dict[int, list[Xattr]] = {}
        self.opaque: set[int] = set()
        self.chunks: dict[int, array[int]] = {}
        """the block addresses of files in chunks"""
        self.whiteouts: set[int] = set()
        self.now_ns = now_ns
        self._memory = 0
        self._steps = 0
        self.add(stat.S_IFDIR | 0o755)
        self.directories[ROOT] = {}

    # inodes

    def add(
        self, mode: int, owner: tuple[int, int] = (0, 0), mtime_ns: int | None = None, size: int = 0, data: int = 0
    ) -> int:
        """A new inode, in no directory yet; its number. For the rest see `format.inode`."""
        number = len(self.kinds)
        self.spend(_INODE_COST)
        mtime_ns = self.now_ns if mtime_ns is None else mtime_ns
        self.inodes += format.inode(number, mode, owner, mtime_ns, size, data)
        self.kinds.append(KINDS[mode & 0o170000])
        return number

    def spend(self, size: int) -> None:
        """`size` bytes of memory are about to be taken for good."""
        self._memory += size
        if self._memory > _MEMORY_MAX:
            raise Unsuitable("its index would take too much memory")

    def enter(self, directory: int, name: bytes, number: int) -> None:
        """Give an inode the `name`, which is free, in a directory."""
        self.spend(len(name))
        self.directories[directory][name] = number

    def make_directory(self, parent: int, name: bytes) -> int:
        """A new directory, 0755 root:root."""
        if len(name) > NAME_MAX:
            raise failure(errno.ENAMETOOLONG)
        number = self.add(stat.S_IFDIR | 0o755)
        self.spend(_INODE_COST)
        self.directories[number] = {}
        self.parents[number] = parent
        self.enter(parent, name, number)
        return number

    def link(self, directory: int, name: bytes, number: int) -> None:
        """One more name for an inode that is no directory."""
        self.spend(_INODE_COST)
        self.enter(directory, name, number)
        self._count(number, 1)

    def remove(self, directory: int, name: bytes) -> None:
        """Take a name away, and all below it."""
        doomed = [self.directories[directory].pop(name)]
        while doomed:
            number = doomed.pop()
            children = self.directories.pop(number, None)
            if children is None:
                self._count(number, -1)
                continue
            del self.parents[number]
            doomed.extend(children.values())

    def _count(self, number: int, change: int) -> None:
        at = number * format.INODE_SIZE
        format.set_links(self.inodes, at, format.links(self.inodes, at) + change)

    # paths

    def resolve(self, parts: Sequence[bytes]) -> int:
        """The directory at a path, links followed. Raises OSError."""
        waiting = list(reversed(parts))
        here, followed = ROOT, 0
        while waiting:
            name = waiting.pop()
            self.step()
            children = self.directories.get(here)
            if children is None:
                raise failure(errno.ENOTDIR)
            if name in (b"", b"."):
                continue
            if name == b"..":
                here = self.parents[here]
                continue
            number = children.get(name)
            if number is None:
                raise failure(errno.ENAMETOOLONG if len(name) > NAME_MAX else errno.ENOENT)
            target = self.targets.get(number)
            if target is None:
                here = number
                continue
            followed += 1
            if followed > _LINKS_MAX:
                raise failure(errno.ELOOP)
            here = ROOT if target.startswith(b"/") else here
            waiting.extend(reversed(target.split(b"/")))
        if here not in self.directories:
            raise failure(errno.ENOTDIR)
        return here

    def make_directories(self, parts: Sequence[bytes]) -> int:
        """The directory at a path, made if missing with its parents; where a link leads nowhere, what it names is made.
        Raises OSError. (`linux.openat.mkdir_in_root` does the same on a disk.)"""
        names = list(parts)
        for _ in range(_LINKS_MAX):
            if sum(map(len, names)) + len(names) > _PATH_MAX:
                raise failure(errno.ENAMETOOLONG)
            here, depth = self._deepest(names)
            while depth < len(names):
                number = self.directories[here].get(names[depth])
                target = self.targets.get(number or 0)
                if target is not None:
                    names = _follow(names[:depth], target) + names[depth + 1 :]
                    break
                here = self.make_directory(here, names[depth]) if number is None else number
                if here not in self.directories:
                    raise failure(errno.ENOTDIR)
                depth += 1
            else:
                return here
        raise failure(errno.ELOOP)

    def _deepest(self, names: list[bytes]) -> tuple[int, int]:
        for depth in range(len(names), 0, -1):
            try:
                return self.resolve(names[:depth]), depth
            except FileNotFoundError:
                continue
        return ROOT, 0

    def step(self) -> None:
        """One step on a path: an archive of links to links can ask for very many."""
        self._steps += 1
        if self._steps > _STEPS_MAX:
            raise Unsuitable("its paths take too many steps")


def _follow(parents: list[bytes], target: bytes) -> list[bytes]:
    """Where a link leads that is in the directory `parents`; ".." taken as names."""
    found = [] if target.startswith(b"/") else list(parents)
    for part in target.split(b"/"):
        if part == b"..":
            del found[-1:]
        elif part not in (b"", b"."):
            found.append(part)
    return found
