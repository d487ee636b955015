"""The body of a request, read by a worker thread straight from the client's socket.

While a thread reads, the event loop does not: a client that sends faster than the thread takes is held up by the
kernel, and one that is gone shows at the next read. Over TLS the bytes have to be decrypted: there they come through
the event loop.
"""

import select
import socket
from collections.abc import Callable

from wherry.http.body import BodyFraming, FramingError
from wherry.http.h1 import ProtocolError

_BUFFER = 1 << 20


class Hangup(ConnectionError):
    """The peer went away before it had sent the whole body."""


class SocketSource:
    """Reads from a duplicate of a plain connection's socket, while the connection itself reads nothing."""

    def __init__(
        self,
        sock: socket.socket,
        framing: BodyFraming,
        early: bytes,
        timeout_s: float | None,
        returned: Callable[[FramingError | None], None],
    ) -> None:
        """`sock` is ours to close; `early` is what has come of the body. `returned` is called, in the thread, when the
        body is at its end or makes no sense: nothing is read from the socket after it."""
        self._socket = sock
        self._framing = framing
        self._early = early
        self._timeout_ms = None if timeout_s is None else timeout_s * 1000
        self._returned = returned
        self._buffer = bytearray(_BUFFER)
        self._over = False

    def read(self) -> bytes:
        """The next bytes of the body; b"" at its end. Raises `Hangup` or the framing's error."""
        if self._early:
            early, self._early = self._early, b""
            return early
        while not self._over:
            pieces = self._receive()
            if self._framing.complete:
                self._end(None)
            if pieces:
                return b"".join(pieces)
        if not self._framing.complete:
            raise Hangup("the body is not read any more")
        return b""

    def revoke(self) -> None:
        """The connection wants its socket back; the thread does not read, or will not any more."""
        self._over = True
        self._socket.close()

    def abort(self) -> None:
        """Wake the thread that reads, with an error; from any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _receive(self) -> list[memoryview]:
        count = self._fill()
        if not count:
            self.revoke()
            raise Hangup("the client went away")
        try:
            return self._framing.feed(self._buffer, count)
        except FramingError as error:
            self._end(error)
            raise ProtocolError(str(error)) from error

    def _fill(self) -> int:
        while True:
            try:
                return self._socket.recv_into(self._buffer)
            except BlockingIOError:
                self._wait()
            except OSError as error:
                raise Hangup("the client went away") from error

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(self._timeout_ms):
            raise ProtocolError("timed out waiting for the request body", 408)

    def _end(self, bad: FramingError | None) -> None:
        self._over = True
        self._returned(bad)
