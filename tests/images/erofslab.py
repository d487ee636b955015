"""A layer in both its forms, and what is to be seen of it."""

import hashlib
import os
import stat
from contextlib import contextmanager
from pathlib import Path

from tests.images.mkimg import stream
from wherry.errors import InvalidArgument
from wherry.images.archive.extract import LayerExtractor
from wherry.images.archive.reader import TarReader
from wherry.images.archive.sources import StreamSource
from wherry.images.erofs.layer import write_layer
from wherry.images.erofs.mounting import detached
from wherry.linux.mounts import move_mount


def unpack(data: bytes, target: Path) -> object:
    """Make a tree of an archive; what came out, or the type and text of the error."""
    target.mkdir(mode=0o755)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return LayerExtractor(fd).extract(TarReader(StreamSource(stream(data))))
    except (InvalidArgument, OSError) as error:
        return type(error), str(error)
    finally:
        os.close(fd)


def index(data: bytes, directory: Path) -> object:
    """Make an index of it; as `unpack`."""
    directory.mkdir()
    source = StreamSource(stream(data))
    try:
        return write_layer(source, directory / "index", directory / "tar", None, lambda _: None)
    except (InvalidArgument, OSError) as error:
        return type(error), str(error)


@contextmanager
def mounted(directory: Path):
    """The root of an index, as a path, mounted where nobody else sees it."""
    fd = detached(directory / "index", directory / "tar")
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def mount(directory: Path, target: Path) -> None:
    """Mount an index on a new directory."""
    target.mkdir()
    fd = detached(directory / "index", directory / "tar")
    place = os.open(target, os.O_PATH)
    try:
        move_mount(fd, place)
    finally:
        os.close(place)
        os.close(fd)


def seen(root: str | Path, *, directory_times: bool = True) -> dict[str, tuple]:
    """Everything that can be seen of a tree. Of the root, and of what no archive gives a time, that is left out."""
    found: dict[str, tuple] = {}
    first_names: dict[int, str] = {}
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted([*names, *files]):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            is_directory = stat.S_ISDIR(status.st_mode)
            untimed = (status.st_mode == stat.S_IFCHR and not status.st_rdev) or (is_directory and not directory_times)
            place = os.path.relpath(path, root)
            found[place] = (
                oct(status.st_mode),
                (status.st_uid, status.st_gid),
                0 if untimed else status.st_mtime_ns,
                status.st_nlink,
                status.st_rdev,
                0 if is_directory else status.st_size,
                _content(path, status),
                _xattrs(path),
                "" if is_directory else first_names.setdefault(status.st_ino, place),
            )
    found["."] = (oct(os.stat(root).st_mode), os.stat(root).st_nlink, _xattrs(root))
    return found


def _content(path: str, status: os.stat_result) -> bytes:
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    return os.fsencode(os.readlink(path)) if stat.S_ISLNK(status.st_mode) else b""


def _xattrs(path: str | Path) -> list[tuple[str, bytes]]:
    follow = os.fspath(path).startswith("/proc/self/fd/") and os.fspath(path).count("/") == 4
    names = os.listxattr(path, follow_symlinks=follow)
    return sorted((name, os.getxattr(path, name, follow_symlinks=follow)) for name in names)
