"""The body of a reply, written by a worker thread straight into the client's socket.

Large files go by sendfile(2), so that their bytes never come into this process; small writes are gathered. Nothing is
kept beyond one gathered block: a client that does not read holds the thread, one that is gone raises in it. Over TLS
the bytes have to be encrypted: there the event loop writes them.
"""

import asyncio
import os
import select
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

_GATHER = 256 << 10
_SEND_MAX = 1 << 30
_COPY = 256 << 10


class Sink(Protocol):
    """What a producer of a reply's body writes to, in any one thread at a time."""

    def write(self, data: bytes, /) -> object:
        """The next bytes. Raises ConnectionError when the client is gone."""
        ...

    def send_file(self, fd: int, count: int, /) -> int:
        """Up to `count` bytes of the file `fd` from its position; how many there were."""
        ...


class SocketSink:
    """Writes to a duplicate of a plain connection's socket, while the connection itself writes nothing."""

    def __init__(self, sock: socket.socket, *, chunked: bool) -> None:
        """`sock` is closed by `close`."""
        self._socket = sock
        self._chunked = chunked
        self._gathered: list[bytes] = []
        self._size = 0
        self._owed = b""  # the end of a chunk whose last bytes came from a file

    def write(self, data: bytes, /) -> None:
        self._gathered.append(data)
        self._size += len(data)
        if self._size >= _GATHER:
            self._flush()

    def send_file(self, fd: int, count: int, /) -> int:
        """A chunk that was announced is filled with zeros when the file ends before; they count as sent."""
        sent = 0
        while sent < count:
            piece = min(count - sent, _SEND_MAX)
            self._flush(followed_by=piece)
            self._file(fd, piece)
            sent += piece
        return sent

    def finish(self) -> None:
        """All is written: end the body."""
        self._flush()
        if self._chunked:
            self._send([self._owed + b"0\r\n\r\n"])

    def abort(self) -> None:
        """Wake the thread that writes, with an error; from any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()

    def _flush(self, followed_by: int = 0) -> None:
        """Send what was gathered, as the beginning of a chunk that goes on with `followed_by` bytes."""
        parts, self._gathered = self._gathered, []
        size, self._size = self._size + followed_by, 0
        if not size:
            return
        if self._chunked:
            parts.insert(0, self._owed + b"%x\r\n" % size)
            self._owed = b"\r\n" if followed_by else b""
            parts += () if followed_by else (b"\r\n",)
        self._send(parts)

    def _send(self, parts: list[bytes]) -> None:
        view = memoryview(b"".join(parts))
        while view:
            try:
                view = view[self._socket.send(view, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                self._wait()

    def _file(self, fd: int, count: int) -> None:
        out = self._socket.fileno()
        while count:
            try:
                sent = os.sendfile(out, fd, None, count)
            except BlockingIOError:
                self._wait()
                continue
            if not sent:
                break
            count -= sent
        while count:
            zeros = bytes(min(count, _COPY))
            self._send([zeros])
            count -= len(zeros)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        if poll.poll()[0][1] & (select.POLLHUP | select.POLLERR):
            raise ConnectionResetError("the client went away")


class LoopSink:
    """Writes through the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, write: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        """`write` sends bytes of the body and waits until they are on their way."""
        self._loop = loop
        self._write = write
        self._gathered: list[bytes] = []
        self._size = 0

    def write(self, data: bytes, /) -> None:
        self._gathered.append(data)
        self._size += len(data)
        if self._size >= _GATHER:
            self.finish()

    def send_file(self, fd: int, count: int, /) -> int:
        left = count
        while left and (data := os.read(fd, min(left, _COPY))):
            self.write(data)
            left -= len(data)
        return count - left

    def finish(self) -> None:
        """Hand on what was gathered."""
        data, self._gathered, self._size = b"".join(self._gathered), [], 0
        if data:
            asyncio.run_coroutine_threadsafe(self._write(data), self._loop).result()
