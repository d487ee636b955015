"""HTTP/1.1, as much of it as a client of one engine needs: keep-alive, chunks both ways, upgrade to a raw stream."""

from __future__ import annotations

from wherry.client.errors import BrokenReply, ConnectionFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wherry.client.transport import Stream

_CHUNK = 65536
_BODY = 1 << 18
_MAX_HEAD = 1 << 20


class Connection:
    """One stream and the bytes read from it but not yet taken."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.buffer = bytearray()

    def fileno(self) -> int:
        return self.stream.fileno()

    def pending(self) -> bool:
        """Whether read_some() would return at once although select() says nothing."""
        return bool(self.buffer) or self.stream.pending()

    def read_some(self, limit: int = _CHUNK) -> bytes:
        """What is there, at most `limit` bytes, waiting for at least one; b"" at the end."""
        if self.buffer:
            data = bytes(self.buffer[:limit])
            del self.buffer[:limit]
            return data
        try:
            return self.stream.recv(limit)
        except ConnectionResetError:
            return b""

    def _fill(self) -> None:
        try:
            data = self.stream.recv(_CHUNK)
        except ConnectionResetError:
            data = b""
        if not data:
            raise BrokenReply("unexpected EOF")
        self.buffer += data

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to and without `mark`, which is taken too."""
        while (at := self.buffer.find(mark)) < 0:
            if len(self.buffer) > _MAX_HEAD:
                raise BrokenReply("the reply has no end of header")
            self._fill()
        data = bytes(self.buffer[:at])
        del self.buffer[: at + len(mark)]
        return data

    def send_request(
        self, method: str, target: str, headers: dict[str, str], body: bytes | Iterable[bytes] | None
    ) -> None:
        """Send a whole request; an iterable body goes in chunks. A peer that hangs up early may have replied."""
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if body is None or isinstance(body, bytes):
            payload = body or b""
            if body is not None or method in ("POST", "PUT"):
                lines.append(f"Content-Length: {len(payload)}")
            self._send("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
            return
        lines.append("Transfer-Encoding: chunked")
        self._send("\r\n".join(lines).encode() + b"\r\n\r\n")
        try:
            for piece in body:
                if piece:
                    self.stream.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.stream.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the engine refused the body; its reply says why

    def _send(self, data: bytes) -> None:
        try:
            self.stream.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ConnectionFailed(f"the engine closed the connection: {error.strerror}") from error

    def read_response(self, method: str) -> Response:
        """Read the head of the next final response."""
        while True:
            lines = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            version, _, rest = lines[0].partition(" ")
            status = rest[:3]
            if not version.startswith("HTTP/1.") or not status.isdigit():
                raise BrokenReply(f"malformed HTTP response {lines[0][:80]!r}")
            if status == "100":
                continue
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            return Response(self, method, int(status), rest[4:], headers)

    def close(self) -> None:
        self.stream.close()


class Response:
    """A response whose body is read on demand; `headers` have lower-case names."""

    def __init__(self, connection: Connection, method: str, status: int, reason: str, headers: dict[str, str]) -> None:
        self.connection = connection
        self.status = status
        self.reason = reason
        self.headers = headers
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        self._left: int | None = int(length) if length and length.isdigit() and not self._chunked else None
        if method == "HEAD" or status in (204, 304) or status < 200:
            self._left, self._chunked = 0, False
        self._ended = self._left == 0

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request after this response."""
        return self._ended and self.headers.get("connection", "").lower() != "close"

    def read_some(self) -> bytes:
        """The next piece of the body; b"" at its end. Raises BrokenReply when it is cut off."""
        if self._ended:
            return b""
        if self._chunked:
            return self._read_chunk()
        data = self.connection.read_some(_BODY if self._left is None else min(self._left, _BODY))
        if self._left is not None:
            if not data:
                raise BrokenReply("unexpected EOF")
            self._left -= len(data)
        self._ended = self._left == 0 or not data
        return data

    def _read_chunk(self) -> bytes:
        if self._left is None:
            size = self.connection.read_until(b"\r\n").split(b";")[0]
            try:
                self._left = int(size, 16)
            except ValueError:
                raise BrokenReply("malformed chunked encoding") from None
        if self._left == 0:
            while self.connection.read_until(b"\r\n"):
                pass  # trailers
            self._ended = True
            return b""
        data = self.connection.read_some(self._left)
        if not data:
            raise BrokenReply("unexpected EOF")
        self._left -= len(data)
        if self._left == 0:
            self.connection.read_until(b"\r\n")
            self._left = None
        return data

    def fileno(self) -> int:
        return self.connection.fileno()

    def pending(self) -> bool:
        """Whether read_some() has something (or the end) without waiting for the peer."""
        return self._ended or self.connection.pending()

    def pieces(self) -> Iterator[bytes]:
        """The body, piece by piece as it arrives."""
        while data := self.read_some():
            yield data

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces())
