"""Trees into archives: what lies below a descriptor, written member by member to a sink, the content by the kernel.

The tree may be somebody's who changes it meanwhile, on purpose. Every name is opened relative to the descriptor of its
directory and without following links; what a name turns out to be counts, not what it was a moment ago; a file that
shrinks is filled up with zeros, so that the archive stays whole. Members come in the order of their names, directories
before their content; sockets are left out, as the tools do. Of the extended attributes security.capability is kept,
times are in whole seconds: both as Docker.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple, Protocol

from wherry.images.archive import headers, writer
from wherry.linux.openat import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITY = "security.capability"
_HELD_DIRECTORIES = 64
_SMALL = 64 << 10
_READ = 1 << 20
_NS = 10**9
_GONE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EACCES, errno.ESTALE)
_KINDS = {
    stat.S_IFREG: headers.REGULAR,
    stat.S_IFDIR: headers.DIRECTORY,
    stat.S_IFLNK: headers.SYMLINK,
    stat.S_IFCHR: headers.CHARACTER,
    stat.S_IFBLK: headers.BLOCK_DEVICE,
    stat.S_IFIFO: headers.FIFO,
}


class Sink(Protocol):
    """Where an archive goes. Both raise OSError when nobody takes it any more."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""
        ...

    def send_file(self, fd: int, count: int, /) -> int:
        """Take up to `count` bytes from a file's beginning; how many there were."""
        ...


class FunctionSink:
    """A sink that hands everything to one function."""

    def __init__(self, append: Callable[[bytes], object]) -> None:
        self.write = append

    def send_file(self, fd: int, count: int, /) -> int:
        left = count
        while left and (data := os.read(fd, min(left, _READ))):
            self.write(data)
            left -= len(data)
        return count - left


class _Level(NamedTuple):
    """A directory being gone through."""

    path: bytes
    prefix: bytes
    names: list[bytes]


class Packer:
    """Writes one archive; used by one thread."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._links: dict[tuple[int, int], bytes] = {}

    def finish(self) -> None:
        """The end of the archive."""
        self._sink.write(writer.end())

    def tree(self, root: int, prefix: bytes, *, top: bool = True) -> None:
        """The directory `root` and all below it. `prefix` is its name in the archive, b"" for none; with `top` it is a
        member itself."""
        if top:
            self._directory(root, prefix)
        prefix = prefix if not prefix or prefix.endswith(b"/") else prefix + b"/"
        walk = _Walk(root)
        try:
            walk.push(os.dup(root), b"", prefix)
            while (level := walk.top) is not None:
                if level.names:
                    self._step(walk, level, level.names.pop())
                else:
                    walk.pop()
        finally:
            walk.close()

    def _step(self, walk: "_Walk", level: _Level, name: bytes) -> None:
        try:
            parent = walk.descriptor()
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                fd = os.open(name, _DIRECTORY, dir_fd=parent)
                self._directory(fd, level.prefix + name)
                walk.push(fd, level.path + b"/" + name if level.path else name, level.prefix + name + b"/")
            else:
                self.leaf(parent, name, level.prefix + name, status)
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def _directory(self, fd: int, name: bytes) -> None:
        status = os.fstat(fd)
        self._member(name if name.endswith(b"/") else name + b"/", status, headers.DIRECTORY, xattrs=self._xattrs(fd))

    def leaf(self, parent: int, name: bytes, shown: bytes, status: os.stat_result) -> None:
        """One file that is no directory: `name` in the directory `parent`, called `shown` in the archive."""
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind == headers.REGULAR:
            self._regular(os.open(name, _FILE, dir_fd=parent), shown)
        elif kind is not None and not self._linked(shown, status):
            link = os.readlink(name, dir_fd=parent) if kind == headers.SYMLINK else b""
            self._member(shown, status, kind, linkname=link)

    def single(self, fd: int, shown: bytes) -> None:
        """The one file, no directory, that the O_PATH descriptor `fd` refers to."""
        status = os.fstat(fd)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind == headers.REGULAR:
            self._regular(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC), shown)
        elif kind is not None:
            link = os.fsencode(os.readlink("", dir_fd=fd)) if kind == headers.SYMLINK else b""
            self._member(shown, status, kind, linkname=link)

    def _regular(self, fd: int, shown: bytes) -> None:
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and not self._linked(shown, status):
                self._member(shown, status, headers.REGULAR, size=status.st_size, xattrs=self._xattrs(fd))
                self._content(fd, status.st_size)
        finally:
            os.close(fd)

    def _content(self, fd: int, size: int) -> None:
        if size > _SMALL:
            sent = self._sink.send_file(fd, size)
        else:
            data = os.read(fd, size) if size else b""
            sent = len(data)
            self._sink.write(data)
        while sent < size:  # it shrank under us
            zeros = bytes(min(size - sent, _SMALL))
            self._sink.write(zeros)
            sent += len(zeros)
        if size % headers.BLOCK:
            self._sink.write(writer.padding(size))

    def _xattrs(self, fd: int) -> dict[bytes, bytes] | None:
        """The extended attributes that are kept."""
        try:
            return {_CAPABILITY.encode(): os.getxattr(fd, _CAPABILITY)}
        except OSError:
            return None

    def _mtime_ns(self, status: os.stat_result) -> int:
        """The time that is kept, as far as it is."""
        return status.st_mtime_ns // _NS * _NS

    def _linked(self, shown: bytes, status: os.stat_result) -> bool:
        """Whether the file is in the archive under another name; then a link to that is written."""
        if status.st_nlink < 2:
            return False
        first = self._links.setdefault((status.st_dev, status.st_ino), shown)
        if first == shown:
            return False
        self._member(shown, status, headers.HARDLINK, linkname=first)
        return True

    def _member(
        self,
        name: bytes,
        status: os.stat_result,
        kind: bytes,
        *,
        size: int = 0,
        linkname: bytes = b"",
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        device = (0, 0)
        if kind in (headers.CHARACTER, headers.BLOCK_DEVICE):
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        self._sink.write(
            writer.member(
                name,
                kind=kind,
                mode=status.st_mode & 0o7777,
                uid=status.st_uid,
                gid=status.st_gid,
                size=size,
                mtime_ns=self._mtime_ns(status),
                linkname=linkname,
                device=device,
                xattrs=xattrs,
            )
        )


class _Walk:
    """The way down to the directory at hand. Containers nest directories more deeply than descriptors last: those of
    far ancestors are given back, and found again by a path in which nothing may be a link."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._levels: list[_Level] = []
        self._descriptors: list[int] = []

    @property
    def top(self) -> _Level | None:
        return self._levels[-1] if self._levels else None

    def push(self, fd: int, path: bytes, prefix: bytes) -> None:
        """Go into the directory `fd`, which is ours to close."""
        self._descriptors.append(fd)
        self._levels.append(_Level(path, prefix, []))
        names = sorted((os.fsencode(name) for name in os.listdir(fd)), reverse=True)
        self._levels[-1] = _Level(path, prefix, names)
        if len(self._descriptors) > _HELD_DIRECTORIES and self._descriptors[-_HELD_DIRECTORIES] >= 0:
            os.close(self._descriptors[-_HELD_DIRECTORIES])
            self._descriptors[-_HELD_DIRECTORIES] = -1

    def descriptor(self) -> int:
        """The directory at hand."""
        if self._descriptors[-1] < 0:
            self._descriptors[-1] = open_below(self._root, self._levels[-1].path, _DIRECTORY)
        return self._descriptors[-1]

    def pop(self) -> None:
        """Back to the parent."""
        self._levels.pop()
        fd = self._descriptors.pop()
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        while self._levels:
            self.pop()


def open_below(root: int, path: bytes, flags: int) -> int:
    """Open `path` below the directory `root`, none of whose components may be a link. Raises OSError."""
    return openat2(root, path or b".", flags, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
