"""An append-only file that starts anew when it is full, its predecessors kept as NAME.1 (youngest), NAME.2, …

    NAME                written
    NAME.1 … NAME.N     complete; with compression NAME.1.gz and so on, made in a child process
    NAME.gz.tmp         the compression in progress; garbage when no writer has the log open
    NAME.new            what takes NAME's place when the log is cleared; garbage likewise

A rotation renames from the oldest to the youngest, so a file only ever moves to the next higher number, and a reader
that knows its file's inode finds its place again (`wherry.runtime.logs.chain`). A compressed file names the inode and
the last change of the file it was made from in its gzip header for the same purpose.
"""

import os
import signal
import struct
import zlib
from collections.abc import Callable

Fork = Callable[[], int]  # like os.fork

# RFC 1952, with one extra subfield of ours, "WL"
_GZIP = struct.Struct("<4sIBB H2sH QQ")
_MAGIC = b"\x1f\x8b\x08\x04"
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_CHUNK = 1 << 18


class RotatingFile:
    """The file at `path`, at most `max_files` of about `max_size` bytes each (-1: one file without bounds).

    `repair(fd)` is called with a file that already exists and returns the length of its sound part. `fork` makes the
    child that compresses; its pid must be handed to `reaped` when it ended.
    """

    def __init__(
        self,
        path: str,
        max_size: int,
        max_files: int,
        *,
        compress: bool,
        repair: Callable[[int], int],
        fork: Fork = os.fork,
    ) -> None:
        self._path = path
        self._max_size = max_size
        self._last = max(max_files, 1) - 1
        self._compress = compress and self._last > 0
        self._fork = fork
        self._child = 0
        self._child_index = 0
        self._fd = -1
        self._size = 0
        self._limit = max_size
        self._fresh = True
        self.generation = 0  # changes with every new file
        self.lost = 0
        self._discard(f"{path}.gz.tmp")
        self._discard(f"{path}.new")
        self._open(repair)

    def room(self) -> int:
        """How many bytes to write before asking again, at least 1; starts a new file when this one is full."""
        if self._fresh:  # what the last writer had no time to compress; not before there is something to write
            self._fresh = False
            self._start_compression()
        if self._max_size <= 0:
            return _CHUNK * 16
        if self._size >= self._limit:
            self._rotate()
        return max(self._limit - self._size, 1)

    def append(self, *parts: bytes) -> None:
        """Write whole records. A full disk loses them (`lost` counts) rather than stop the container or leave half a
        record."""
        total = sum(map(len, parts))
        try:
            written = os.writev(self._fd, parts)
        except OSError:
            written = 0
        if written == total:
            self._size += total
            return
        self.lost += 1
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._size += written

    def owns(self, pid: int) -> bool:
        """Whether child `pid` compresses for us."""
        return pid == self._child != 0

    def reaped(self, pid: int, status: int) -> bool:
        """Tell of an ended child; false when it is not ours."""
        if not self.owns(pid):
            return False
        self._child = 0
        temporary, plain = f"{self._path}.gz.tmp", f"{self._path}.{self._child_index}"
        if status == 0 and self._child_index <= self._last and os.path.exists(plain):
            os.rename(temporary, plain + ".gz")
            self._discard(plain)
        else:
            self._discard(temporary)
        if status == 0:  # after a failure (disk full) the next rotation tries again
            self._start_compression()
        return True

    def clear(self) -> None:
        """Begin again with an empty file and no predecessors. Readers find the old ones empty, and go on to the new one
        as after a rotation. Raises OSError; the log is as it was when the new file can't be made."""
        fd = os.open(f"{self._path}.new", _FLAGS | os.O_CREAT | os.O_TRUNC, 0o640)
        os.rename(f"{self._path}.new", self._path)
        self._give_up_compression()
        os.ftruncate(self._fd, 0)
        self._adopt(fd, 0)
        for path in predecessors(self._path):
            os.truncate(path, 0)
            os.unlink(path)

    def close(self) -> None:
        """End the use of the file. A compression under way is given up: the next writer of this log does it."""
        self._give_up_compression()
        os.close(self._fd)
        self._fd = -1

    def _give_up_compression(self) -> None:
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._child = 0
            self._discard(f"{self._path}.gz.tmp")

    def _open(self, repair: Callable[[int], int] | None = None) -> None:
        fd = os.open(self._path, _FLAGS | os.O_CREAT, 0o640)
        size = os.fstat(fd).st_size
        if repair and size:
            sound = repair(fd)
            if sound != size:
                os.ftruncate(fd, sound)
            size = sound
        self._adopt(fd, size)

    def _adopt(self, fd: int, size: int) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._size = size
        self._limit = self._max_size
        self.generation += 1

    def _rotate(self) -> None:
        """Start a new file; when that fails, the old one goes on (a log too long is better than none)."""
        try:
            self._shift()
            self._open()
        except OSError:
            self._limit = self._size + self._max_size

    def _shift(self) -> None:
        if not self._last:
            self._discard(self._path)
            return
        self._discard(f"{self._path}.{self._last}")
        self._discard(f"{self._path}.{self._last}.gz")
        for index in range(self._last - 1, 0, -1):
            for suffix in ("", ".gz"):
                self._move(f"{self._path}.{index}{suffix}", f"{self._path}.{index + 1}{suffix}")
        self._move(self._path, f"{self._path}.1")
        self._child_index += 1
        self._start_compression()

    def _start_compression(self) -> None:
        """Compress the oldest plain file, one at a time: output faster than gzip leaves some files plain, and the
        container never waits."""
        if not self._compress or self._child:
            return
        for index in range(self._last, 0, -1):
            try:
                source = os.open(f"{self._path}.{index}", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            self._child_index = index
            self._compress_in_child(source)
            os.close(source)
            return

    def _compress_in_child(self, source: int) -> None:
        try:
            target = os.open(f"{self._path}.gz.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        except OSError:
            return
        try:
            self._child = self._fork()
        except OSError:
            self._discard(f"{self._path}.gz.tmp")
        else:
            if not self._child:
                _compress_and_exit(source, target)
        os.close(target)

    @staticmethod
    def _move(source: str, target: str) -> None:
        try:
            os.rename(source, target)
        except FileNotFoundError:
            pass

    @staticmethod
    def _discard(path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


def predecessors(path: str) -> list[str]:
    """The older files of the log at `path`, in no order."""
    directory, name = os.path.split(path)
    found = [n for n in os.listdir(directory or ".") if n.startswith(f"{name}.")]
    return [os.path.join(directory, n) for n in found if n[len(name) + 1 :].removesuffix(".gz").isdigit()]


def clear_files(path: str) -> None:
    """`RotatingFile.clear` for a log that nobody writes. Raises OSError."""
    file = RotatingFile(path, -1, 1, compress=False, repair=lambda fd: os.fstat(fd).st_size)
    try:
        file.clear()
    finally:
        file.close()


def _compress_and_exit(source: int, target: int) -> None:
    """In the child: keep nothing of the parent's open (a client's connection would not end), be last in line for the
    processor, never return."""
    try:
        source, target = os.dup(source), os.dup(target)
        high = max(source, target) + 1
        source, target = os.dup2(source, high), os.dup2(target, high + 1)
        os.closerange(3, high)
        os.closerange(high + 2, 1 << 20)
        os.nice(19)
        compress(source, target)
        os._exit(0)
    except BaseException:
        os._exit(1)


def compress(source: int, target: int) -> None:
    """Write file `source` to `target` as gzip whose header names the inode and the time of change of `source`."""
    status = os.fstat(source)
    header = _GZIP.pack(_MAGIC, int(status.st_mtime), 0, 255, 20, b"WL", 16, status.st_ino, status.st_mtime_ns)
    os.write(target, header)
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    checksum = length = 0
    while chunk := os.read(source, _CHUNK):
        checksum = zlib.crc32(chunk, checksum)
        length += len(chunk)
        _write_all(target, deflate.compress(chunk))
    _write_all(target, deflate.flush() + struct.pack("<II", checksum, length & 0xFFFFFFFF))
    os.fsync(target)


def compressed_identity(header: bytes) -> tuple[int, int] | None:
    """(inode, mtime in ns) of the original from the first bytes of a file `compress` made; None for another's."""
    if len(header) < _GZIP.size:
        return None
    magic, _, _, _, _, tag, _, inode, mtime = _GZIP.unpack_from(header)
    return (inode, mtime) if magic == _MAGIC and tag == b"WL" else None


IDENTITY_BYTES = _GZIP.size


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
