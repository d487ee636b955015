"""Unpack an archive into a directory of a container that may be running, for `docker cp`.

As for layers, everything is made relative to descriptors, with O_EXCL and without following links. Here others write
in the tree as well: a directory can be moved or become a link between two steps. What was opened stays what it was,
and links of the archive or the container are followed with the directory as their root, so that nothing is ever made
outside of it. Names of whiteouts mean nothing.
"""

import errno
import os
import stat
from collections.abc import Sequence

from wherry.errors import Internal, InvalidArgument, WherryError
from wherry.images.archive import headers
from wherry.images.archive.extract import LayerExtractor
from wherry.images.archive.names import NAME_MAX, clean
from wherry.images.archive.reader import Entry, Source, TarReader
from wherry.images.archive.sources import open_plain

_BAD_HEADER = "archive/tar: invalid tar header"


class CopyExtractor(LayerExtractor):
    """Unpacks one archive below the directory `root_fd`."""

    def __init__(
        self, root_fd: int, place: str, *, keep_kinds: bool, owner: tuple[int, int] | None, mounted: Sequence[int]
    ) -> None:
        """`place` is the directory's name in error messages. `keep_kinds`: no directory may take the place of a file,
        nor the other way round. `owner`: (uid, gid) of all that is made, instead of what the archive says. `mounted`:
        descriptors of what is mounted in the tree, which must not be removed."""
        super().__init__(root_fd)
        self._whiteouts = False
        self._owner = owner
        self._place = place
        self._keep_kinds = keep_kinds
        self._mounted = mounted
        self._mount_points = {(status.st_dev, status.st_ino) for status in map(os.fstat, mounted)}

    def _make(self, reader: TarReader, entry: Entry) -> None:
        try:
            super()._make(reader, entry)
        except InvalidArgument as error:
            raise _reworded(error, entry) from error

    def _check_replacing(self, parent: int, name: bytes, status: os.stat_result, entry: Entry) -> None:
        was, becomes = stat.S_ISDIR(status.st_mode), entry.type == headers.DIRECTORY
        if self._keep_kinds and was != becomes:
            first, second = ("directory", "non-directory") if was else ("non-directory", "directory")
            raise Internal(f'cannot overwrite {first} "{os.fsdecode(name)}" with {second} "{self._place}"')
        # The kernel keeps mount points of its caller's namespace only, and these mounts are in none of ours.
        if not was and (status.st_dev, status.st_ino) not in self._mount_points:
            return
        path = os.path.join(_path_of(parent), os.fsdecode(name))
        if any(point == path or point.startswith(path + "/") for point in map(_path_of, self._mounted)):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def _explain(self, error: OSError, entry: Entry) -> Exception:
        if isinstance(error, FileNotFoundError):
            return error
        verb = "RemoveAll" if error.errno in (errno.EBUSY, errno.ENOTEMPTY) else "openat"
        return Internal(f"{verb} {os.fsdecode(entry.name).rstrip('/')}: {(error.strerror or str(error)).lower()}")


def _path_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def _reworded(error: InvalidArgument, entry: Entry) -> WherryError:
    """What is wrong with an entry, as Docker says it."""
    name, link = os.fsdecode(entry.name), os.fsdecode(entry.linkname)
    if str(error).startswith("unhandled tar header type"):
        return Internal(f"unhandled tar header type {ord(entry.type)}")
    if entry.type == headers.HARDLINK and not _is_clean(entry.linkname):
        return Internal(f'invalid hardlink target "{link}"')
    if any(len(part) > NAME_MAX for part in entry.name.split(b"/")):
        return Internal(f"openat {name}: file name too long")
    return error if _is_clean(entry.name) else Internal(f'invalid entry name "{name}"')


def _is_clean(name: bytes) -> bool:
    try:
        clean(name)
    except InvalidArgument:
        return False
    return True


def copy_in(
    directory: int,
    place: str,
    source: Source,
    *,
    keep_kinds: bool = False,
    owner: tuple[int, int] | None = None,
    mounted: Sequence[int] = (),
) -> None:
    """Unpack the archive that `source` gives, compressed or not, below `directory`; what follows its end is read too.
    For the other arguments see `CopyExtractor`.

    Raises `Internal` with Docker's words for an archive that is none or cannot be unpacked, FileNotFoundError when a
    link in it leads nowhere. What was made until then stays.
    """
    try:
        plain, _ = open_plain(source)
        reader = TarReader(plain)
        CopyExtractor(directory, place, keep_kinds=keep_kinds, owner=owner, mounted=mounted).extract(reader)
        reader.drain()
    except InvalidArgument as error:
        text = str(error).removeprefix("invalid archive: ")
        raise Internal(_BAD_HEADER if text.startswith(_BAD_HEADER) else text) from error
