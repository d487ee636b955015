"""Archives of local files for `wherry cp`: packing what the user names, unpacking what an engine sends.

What an engine sends is not to be trusted: nothing is made outside of the directory it goes to. Names are taken apart
lexically, the parents opened with that directory as root (openat2), files made new and never written through.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile

from wherry.cli.errors import StatusError
from wherry.linux.openat import mkdir_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_PIECE = 1 << 20
_SECOND = 10**9
_XATTR, _CAPABILITY = "SCHILY.xattr.", "security.capability"
_GATHER = 1 << 18
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def pack(path: str, name: str) -> Iterator[bytes]:
    """The archive, in pieces, of the file or tree at `path`, under `name`. Raises OSError."""
    links: dict[tuple[int, int], str] = {}
    gathered: list[bytes] = []
    size = 0
    waiting = [(path, name)]
    while waiting:
        source, shown = waiting.pop()
        status = os.lstat(source)
        if stat.S_ISSOCK(status.st_mode):
            continue
        info = _info(source, shown, status, links)
        gathered.append(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        size += 512
        if info.isreg() and info.size:
            for piece in _content(source, info.size):
                gathered.append(piece)
                size += len(piece)
                if size >= _GATHER:
                    yield b"".join(gathered)
                    gathered, size = [], 0
        if stat.S_ISDIR(status.st_mode):
            inside = sorted(os.listdir(source), reverse=True)
            waiting += [(os.path.join(source, each), f"{shown.rstrip('/')}/{each}") for each in inside]
        if size >= _GATHER:
            yield b"".join(gathered)
            gathered, size = [], 0
    gathered.append(bytes(1024))
    yield b"".join(gathered)


def _info(source: str, shown: str, status: os.stat_result, links: dict[tuple[int, int], str]) -> tarfile.TarInfo:
    info = tarfile.TarInfo(shown)
    info.mode, info.uid, info.gid = status.st_mode & 0o7777, status.st_uid, status.st_gid
    info.mtime = status.st_mtime_ns // _SECOND
    kind = stat.S_IFMT(status.st_mode)
    info.type = _TYPES[kind]
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    elif kind == stat.S_IFLNK:
        info.linkname = os.readlink(source)
    elif kind == stat.S_IFREG:
        info.size = status.st_size
        first = links.setdefault((status.st_dev, status.st_ino), shown) if status.st_nlink > 1 else shown
        if first != shown:
            info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        elif capability := _capability(source):
            info.pax_headers = {f"{_XATTR}{_CAPABILITY}": capability.decode("utf-8", "surrogateescape")}
    return info


def _capability(path: str) -> bytes:
    """The capabilities of a program, the one extended attribute that Docker's takes along; b"" for none."""
    try:
        return os.getxattr(path, _CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""


_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def _content(source: str, size: int) -> Iterator[bytes]:
    left = size
    with open(source, "rb", buffering=0) as file:
        while left and (data := file.read(min(left, _PIECE))):
            left -= len(data)
            yield data
    if left:
        raise StatusError(f"{source}: it became shorter while it was copied")
    yield bytes(-size % 512)


def unpack(read: Callable[[int], bytes], directory: str, rename: tuple[str, str] | None) -> None:
    """Unpack an archive below the local `directory`. `rename`: (first component, what it becomes). Everything
    belongs to who does it. Raises StatusError with what stands in the way."""
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    late: list[tuple[str, tarfile.TarInfo]] = []
    try:
        stream: Any = _Stream(read)
        with tarfile.open(None, "r|", stream, _PIECE) as archive:
            for info in archive:
                name = _renamed(info.name, rename)
                if info.islnk():
                    info.linkname = _renamed(info.linkname, rename)
                if name:
                    _make(archive, root, name, info)
                    if info.isdir():
                        late.append((name, info))
        for name, info in reversed(late):
            _finish_directory(root, name, info)
    except tarfile.TarError as error:
        raise StatusError(f"invalid archive from the engine: {error}") from None
    finally:
        os.close(root)


class _Stream:
    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


def _renamed(name: str, rename: tuple[str, str] | None) -> str:
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            raise StatusError(f'"{name}" is outside of the directory')
        if part not in ("", "."):
            parts.append(part)
    if rename and parts and parts[0] == rename[0]:
        parts[0] = rename[1]
    elif rename and rename[0] in ("", ".", "/"):
        parts.insert(0, rename[1])
    return "/".join(parts)


def _make(archive: tarfile.TarFile, root: int, name: str, info: tarfile.TarInfo) -> None:
    directory, _, base = name.rpartition("/")
    parent = mkdir_in_root(root, directory or "/", 0o755)
    try:
        if not _cleared(parent, base, info):
            return
        if info.isreg():
            _write(archive, parent, base, info)
        elif info.isdir():
            os.mkdir(base, 0o700, dir_fd=parent)
        elif info.issym():
            os.symlink(info.linkname, base, dir_fd=parent)
        elif info.islnk():
            _link(root, parent, base, info)
        elif info.isfifo() or info.isdev():
            kind = stat.S_IFIFO if info.isfifo() else stat.S_IFCHR if info.ischr() else stat.S_IFBLK
            os.mknod(base, kind | info.mode & 0o777, os.makedev(info.devmajor, info.devminor), dir_fd=parent)
        if not info.isdir() and not info.islnk():
            os.utime(base, ns=_times(info), dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)


def _cleared(parent: int, base: str, info: tarfile.TarInfo) -> bool:
    """Make room for a file; False when it is a directory that is there."""
    try:
        status = os.stat(base, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return True
    was = stat.S_ISDIR(status.st_mode)
    if was and info.isdir():
        return False
    if was:
        raise StatusError(f'cannot overwrite directory "{base}" with non-directory "{info.name}"')
    if info.isdir():
        raise StatusError(f'cannot overwrite non-directory "{base}" with directory "{info.name}"')
    os.unlink(base, dir_fd=parent)
    return True


def _write(archive: tarfile.TarFile, parent: int, base: str, info: tarfile.TarInfo) -> None:
    fd = os.open(base, _NEW, 0o600, dir_fd=parent)
    try:
        for data in _stored(archive, info):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        _set_xattrs(fd, info)
        os.fchmod(fd, info.mode & 0o7777)
    finally:
        os.close(fd)


def _set_xattrs(fd: int, info: tarfile.TarInfo) -> None:
    """Give a file what an archive has of extended attributes; others than these an engine has no business to set."""
    for key, value in info.pax_headers.items():
        name = key.removeprefix(_XATTR)
        if name == key or not (name == _CAPABILITY or name.startswith("user.")):
            continue
        try:
            os.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):  # the file system, or the user, cannot
                raise


def _times(info: tarfile.TarInfo) -> tuple[int, int]:
    """The time of change, twice, in nanoseconds: exact where tarfile has no more than a float of it."""
    text = info.pax_headers.get("mtime", "")
    whole, _, fraction = text.removeprefix("-").partition(".")
    if not (whole + fraction).isdecimal():
        return (int(info.mtime) * _SECOND,) * 2
    exact = int(whole or "0") * _SECOND + int(f"{fraction:0<9}"[:9])
    return (-exact if text.startswith("-") else exact,) * 2


def _stored(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    """The content of a file; that of a plain one straight from the stream, which tarfile would copy three times."""
    plain = not info.issparse()
    source: Any = archive.fileobj if plain else archive.extractfile(info)
    if plain:
        source.seek(info.offset_data)
    left = info.size
    while left and (data := source.read(min(left, _PIECE))):
        left -= len(data)
        yield data
    if left:
        raise StatusError("unexpected EOF")


def _link(root: int, parent: int, base: str, info: tarfile.TarInfo) -> None:
    directory, _, name = info.linkname.rpartition("/")
    source = mkdir_in_root(root, directory or "/", 0o755)
    try:
        os.link(name, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(source)


def _finish_directory(root: int, name: str, info: tarfile.TarInfo) -> None:
    directory, _, base = name.rpartition("/")
    parent = mkdir_in_root(root, directory or "/", 0o755)
    try:
        fd = os.open(base, _DIRECTORY, dir_fd=parent)
        try:
            os.fchmod(fd, info.mode & 0o7777)
            os.utime(fd, ns=_times(info))
        finally:
            os.close(fd)
    finally:
        os.close(parent)
