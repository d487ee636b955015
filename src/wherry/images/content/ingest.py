"""A blob on its way in: appended to a file by one thread, hashed, and readable by others while it grows.

That makes one pass of everything: while a layer still arrives, another thread inflates, hashes and unpacks it from
the page cache, at its own pace, and nothing is held in memory.
"""

import hashlib
import os
import threading
from pathlib import Path

from wherry import failpoint
from wherry.errors import Internal

_PIECE = 1 << 20


class Ingest:
    """One blob being written below `ingest/`. The writer calls `append`…, then `finish`, or `fail`; readers get a
    `Tail`. Whoever is last calls `close`; the file stays for the content store to rename."""

    def __init__(self, path: Path, *, partial: bool = False) -> None:
        """Make the file `path`, which must not exist; with `partial` it may, and `take_up` then reads what it holds."""
        self.path = path
        self.size = 0
        self.digest = ""  # "sha256:…" once finished
        exclusive = 0 if partial else os.O_EXCL
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | exclusive | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self._grown = threading.Condition()
        self._error: BaseException | None = None

    def take_up(self, limit: int) -> int:
        """Hash what an interrupted run left in the file, as if it had just been appended; what is beyond `limit` bytes
        is cut off. Returns how much there is. Before the first `append`."""
        while data := os.pread(self._fd, min(_PIECE, limit - self.size), self.size):
            self._hash.update(data)
            self._grow(len(data))
        os.ftruncate(self._fd, self.size)
        os.lseek(self._fd, self.size, os.SEEK_SET)
        return self.size

    def append(self, data: bytes | memoryview) -> None:
        """Write and hash the next bytes. Raises OSError (ENOSPC, …)."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._hash.update(data)
        self._grow(len(data))

    def _grow(self, length: int) -> None:
        with self._grown:
            self.size += length
            self._grown.notify_all()

    def finish(self) -> str:
        """No more bytes will come: return the digest."""
        failpoint.hit("ingest-finish")
        with self._grown:
            self.digest = f"sha256:{self._hash.hexdigest()}"
            self._grown.notify_all()
        return self.digest

    def fail(self, error: BaseException) -> None:
        """Wake the readers up: the rest will never come."""
        with self._grown:
            self._error = self._error or error
            self._grown.notify_all()

    def close(self) -> None:
        """Give the descriptor back; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def discard(self) -> None:
        """Close and delete the file, if it is still there."""
        self.close()
        self.path.unlink(missing_ok=True)

    def read_at(self, offset: int, limit: int) -> bytes:
        """Up to `limit` bytes from `offset`, waiting for them to arrive; b"" at the end of a finished blob."""
        limit = min(limit, self.wait_for(offset + 1) - offset)
        return os.pread(self._fd, limit, offset) if limit > 0 else b""

    def wait_for(self, size: int) -> int:
        """Wait until there are `size` bytes, or all there will be; returns how many there are."""
        with self._grown:
            while size > self.size and not self.digest and self._error is None:
                self._grown.wait()
            if self._error is not None:
                raise Internal(f"the data stopped: {self._error}") from self._error
            return self.size


class Tail:
    """A reader of an `Ingest` from its beginning, waiting at the growing end. A `Source` of the tar reader."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._offset = 0

    def read(self, limit: int, /) -> bytes:
        """The next 1 to `limit` bytes; b"" at the end."""
        data = self._ingest.read_at(self._offset, limit)
        self._offset += len(data)
        return data

    def skip(self, length: int, /) -> int:
        """Pass over `length` bytes, or as many as there are; waits for them."""
        length = max(0, min(length, self._ingest.wait_for(self._offset + length) - self._offset))
        self._offset += length
        return length
