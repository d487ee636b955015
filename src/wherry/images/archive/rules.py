"""What a layer's archive may say and what it means, for all who unpack one: into a tree, or an index of the tar."""

import errno
import os
import stat
from typing import NamedTuple

from wherry.errors import InvalidArgument
from wherry.images.archive import headers
from wherry.images.archive.names import clean, show
from wherry.images.archive.reader import Entry

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_WHITEOUT_META = b".wh..wh."
FOREIGN_XATTRS = (b"trusted.overlay.", b"user.overlay.")
"""Beginnings of the extended attributes that an archive cannot set: overlay's own."""

NODE_TYPES = {headers.CHARACTER: stat.S_IFCHR, headers.BLOCK_DEVICE: stat.S_IFBLK, headers.FIFO: stat.S_IFIFO}
_TYPES = frozenset((headers.REGULAR, headers.DIRECTORY, headers.SYMLINK, headers.HARDLINK, *NODE_TYPES))
_ID_MAX = (1 << 32) - 2  # (uid_t)-1 means "leave as it is" to chown(2)
_TIME_MAX_NS = ((1 << 63) - 1) // 2
_ITS_FAULT = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.EXDEV, errno.ENAMETOOLONG)
)  # fmt: skip

Parts = tuple[bytes, ...]


class Unpacked(NamedTuple):
    """What came out: `size` is the sum of the regular files' and symbolic links' sizes in bytes, as Docker counts."""

    size: int
    entries: int


def place(entry: Entry, *, layer: bool = True) -> Parts:
    """The components of the path an entry is for; () for one that stands for nothing: the root, and in a `layer` the
    bookkeeping of aufs. Raises `InvalidArgument` for what no archive may have."""
    parts = clean(entry.name)
    if not parts:
        if layer and entry.type != headers.DIRECTORY:
            raise InvalidArgument("invalid archive: the root is not a directory")
        return ()
    if layer and parts[0].startswith(_WHITEOUT_META) and parts != (OPAQUE,):
        return ()
    if entry.type not in _TYPES:
        raise InvalidArgument(f"unhandled tar header type {ord(entry.type)} of {show(entry.name)}")
    if not (0 <= entry.uid <= _ID_MAX and 0 <= entry.gid <= _ID_MAX):
        raise InvalidArgument(f"invalid archive: owner {entry.uid}:{entry.gid} of {show(entry.name)}")
    return parts


def device(entry: Entry) -> int:
    """The number of the device an entry is. Raises `InvalidArgument` for one that cannot be."""
    major, minor = entry.device
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise InvalidArgument(f"invalid archive: device {major}:{minor} of {show(entry.name)}")
    return os.makedev(major, minor)


def link_target(entry: Entry) -> Parts:
    """The path of what a hard link is a link to. Raises `InvalidArgument`."""
    target = clean(entry.linkname)
    if not target:
        raise InvalidArgument(f"invalid archive: hard link {show(entry.name)} to the root")
    return target


def hidden(name: bytes) -> bytes:
    """The name that the whiteout `name` (not an opaque mark) hides. Raises `InvalidArgument`."""
    found = name[len(WHITEOUT) :]
    if found in (b"", b".", b".."):
        raise InvalidArgument(f"invalid archive: whiteout {show(name)}")
    return found


def time_ns(entry: Entry) -> int:
    """The modification time as file systems can have it, in nanoseconds."""
    return max(-_TIME_MAX_NS, min(entry.mtime_ns, _TIME_MAX_NS))


def explain(error: OSError, entry: Entry) -> Exception:
    """An error met with an entry as the archive's fault where it is one."""
    if error.errno in _ITS_FAULT:
        to = f" -> {show(entry.linkname)}" if entry.linkname else ""
        return InvalidArgument(f"invalid archive: {show(entry.name)}{to}: {error.strerror}")
    return OSError(error.errno or 0, f"{error.strerror} (unpacking {show(entry.name)})")
