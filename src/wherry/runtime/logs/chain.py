"""The files of one log, found by a reader while a writer renames and compresses them.

A plain file is recognised by its inode (which cannot be reused while the reader holds it open), a compressed one by
the inode and time its header names. Files only move to higher numbers, and the higher-numbered move first: a reader
that sees its file at number K before and after it opened K-1 has the true successor.
"""

import errno
import os
import stat
import tempfile
import zlib
from typing import NamedTuple

from wherry.runtime.logs.rotation import IDENTITY_BYTES, compressed_identity

_CHUNK = 1 << 18
_ATTEMPTS = 50


class File(NamedTuple):
    """One file of the log, open. `inode` is that of the plain original; a compressed file also knows when that was
    last changed (0 for a plain one: ask `fd`)."""

    fd: int
    inode: int
    compressed: bool
    changed_ns: int
    packed: bool  # `fd` is still the compressed content

    def close(self) -> None:
        os.close(self.fd)


def plain(file: File) -> File:
    """`file` with readable content: a compressed one is unpacked into a file without a name, and closed."""
    if not file.packed:
        return file
    try:
        return file._replace(fd=_inflate(file.fd), packed=False)
    finally:
        file.close()


class _Entry(NamedTuple):
    number: int
    path: str
    inode: int
    changed_ns: int
    compressed: bool


class Chain:
    """The log at `path` with its predecessors."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory, self._name = os.path.split(path)

    def open_all(self) -> list[File]:
        """Every file, the oldest first, as they were at one moment. Empty when there is no log (yet)."""
        for _ in range(_ATTEMPTS):
            entries = self._scan()
            files = self._open_entries(entries)
            if len(files) == len(entries) and self._scan() == entries:
                return files
            for file in files:
                file.close()
        raise OSError(f"{self._path}: rotates faster than it can be read")

    def successor(self, file: File) -> File | None:
        """The next younger file; None while `file` is the one being written. When `file` has been rotated out of
        existence, the oldest that is left."""
        for _ in range(_ATTEMPTS):
            entries = self._scan()
            place = self._place(file, entries)
            if place is not None and place.number == 0:
                return None
            following = self._following(place, entries)
            if following is None:
                return None
            opened = self._open(following)
            if opened and self._same(self._place(file, self._scan()), place):
                return opened
            if opened:
                opened.close()
        return None

    def is_current(self, file: File) -> bool:
        """Whether `file` is the one being written: a cheap question."""
        try:
            return os.stat(self._path).st_ino == file.inode and not file.compressed
        except FileNotFoundError:
            return False

    @staticmethod
    def _same(one: _Entry | None, other: _Entry | None) -> bool:
        return (one.number if one else None) == (other.number if other else None)

    @staticmethod
    def _following(place: _Entry | None, entries: list[_Entry]) -> _Entry | None:
        if place is None:
            return entries[0] if entries else None
        return next((entry for entry in entries if entry.number == place.number - 1), None)

    @staticmethod
    def _place(file: File, entries: list[_Entry]) -> _Entry | None:
        """Where `file` is now; the lowest number wins, since an old compressed file may name a reused inode."""
        matches = [e for e in entries if e.inode == file.inode and (e.compressed or not file.compressed)]
        return matches[-1] if matches else None

    def _scan(self) -> list[_Entry]:
        """The files there are, the highest number first. Looked at in ascending order: one that moves meanwhile is
        met again rather than missed; the later look is the true one."""
        found: dict[int, _Entry] = {}
        for number in range(self._highest() + 2):
            for suffix in ("",) if number == 0 else ("", ".gz"):
                entry = self._look(number, f"{self._path}.{number}{suffix}" if number else self._path, bool(suffix))
                if entry:
                    found.setdefault(number, entry)
        return sorted(found.values(), reverse=True)

    def _highest(self) -> int:
        numbers = [0]
        for name in os.listdir(self._directory or "."):
            if name.startswith(self._name + "."):
                middle = name[len(self._name) + 1 :].removesuffix(".gz")
                if middle.isdigit():
                    numbers.append(int(middle))
        return max(numbers)

    @staticmethod
    def _look(number: int, path: str, compressed: bool) -> _Entry | None:
        try:
            if not compressed:
                status = os.lstat(path)
                return _Entry(number, path, status.st_ino, 0, False) if stat.S_ISREG(status.st_mode) else None
            with open(path, "rb", buffering=0, opener=_opener) as file:
                identity = compressed_identity(file.read(IDENTITY_BYTES)) or (0, 0)
                return _Entry(number, path, *identity, True)
        except FileNotFoundError:
            return None

    def _open_entries(self, entries: list[_Entry]) -> list[File]:
        files = []
        for entry in entries:
            file = self._open(entry)
            if file:
                files.append(file)
        return files

    def _open(self, entry: _Entry) -> File | None:
        """Open what `entry` says; None when something else is there by now."""
        try:
            fd = _opener(entry.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if not entry.compressed:
            if os.fstat(fd).st_ino == entry.inode:
                return File(fd, entry.inode, False, 0, False)
        elif (compressed_identity(os.pread(fd, IDENTITY_BYTES, 0)) or (0, 0)) == (entry.inode, entry.changed_ns):
            return File(fd, entry.inode, True, entry.changed_ns, True)
        os.close(fd)
        return None


def _opener(path: str, flags: int) -> int:
    """Open a regular file and nothing else: no link is followed, nobody waits for the writer of a pipe. Raises
    FileNotFoundError for what is none."""
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise FileNotFoundError(errno.ENOENT, "not a regular file", path) from None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise FileNotFoundError(errno.ENOENT, "not a regular file", path)


def _inflate(source: int) -> int:
    """The content of gzip file `source`; a damaged end is left out."""
    with tempfile.TemporaryFile(buffering=0) as target:
        inflate = zlib.decompressobj(31)
        try:
            while chunk := os.read(source, _CHUNK):
                target.write(inflate.decompress(chunk))
            target.write(inflate.flush())
        except zlib.error:
            pass
        return os.dup(target.fileno())
