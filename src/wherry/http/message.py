"""What an application sees of an HTTP exchange: `Request` in, `Response` out."""

import asyncio
import io
import re
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from wherry.errors import InvalidArgument
from wherry.http.h1 import Head, HeaderList
from wherry.http.sink import Sink

if TYPE_CHECKING:
    from wherry.http.connection import Connection

_PAUSE_AT = 1024 * 1024


class Peer(NamedTuple):
    """The process at the other end of a unix socket, as of its connect (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int
    gid: int


class Response:
    """A reply: whole (`body`), streamed from `stream`, whose head goes out before the first item is awaited, or written
    by `produce`, which is given a `Sink` after the head went out and returns when a thread has written everything.

    A stream or producer that raises cuts the connection, so that the peer knows it did not get everything. A producer
    that is cancelled must not return before its thread has ended.
    """

    __slots__ = ("body", "headers", "produce", "status", "stream")

    def __init__(
        self,
        status: int = 200,
        body: bytes = b"",
        *,
        content_type: str | None = None,
        headers: HeaderList | None = None,
        stream: AsyncIterator[bytes] | None = None,
        produce: Callable[[Sink], Awaitable[None]] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers or []
        self.stream = stream
        self.produce = produce
        if content_type is not None:
            self.headers.append(("Content-Type", content_type))


class Last(bytes):
    """The last piece of a streamed body: it goes out together with the end."""


class Hangup(ConnectionError):
    """The peer went away before it had sent the whole body."""


class Body:
    """The body of a request, as it arrives. Reading asks the peer for it (`100 Continue`), leaving it unread is fine:
    the server drains what is short and closes the connection on what is long."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._chunks = bytearray()
        self._complete = False
        self._error: Exception | None = None
        self._arrival = asyncio.Event()

    # -- the server's side

    def feed(self, data: bytes) -> None:
        self._chunks += data
        self._arrival.set()
        if len(self._chunks) > _PAUSE_AT:
            self._connection.pause_body()

    def feed_end(self) -> None:
        self._complete = True
        self._arrival.set()

    def fail(self, error: Exception) -> None:
        if not self._complete:
            self._error = error
            self._arrival.set()

    @property
    def complete(self) -> bool:
        """True when all of it has arrived, read or not."""
        return self._complete

    # -- the application's side

    async def read_some(self) -> bytes:
        """What has arrived, at least one byte; b"" at the end. Raises `Hangup` or the framing's error."""
        if not self._chunks and not self._complete:
            self._connection.want_body()
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._complete:
                return b""
            self._arrival.clear()
            await self._arrival.wait()
        data = bytes(self._chunks)
        self._chunks.clear()
        self._connection.resume_body()
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read_some():
            yield data

    async def read(self, limit: int) -> bytes:
        """All of it. Raises InvalidArgument when it is longer than `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        async for data in self:
            parts.append(data)
            size += len(data)
            if size > limit:
                raise InvalidArgument("http: request body too large")
        return b"".join(parts)

    async def discard(self, limit: int) -> bool:
        """Read and forget up to `limit` bytes; True when that was all of it."""
        while limit >= 0 and (data := await self.read_some()):
            limit -= len(data)
        return limit >= 0 and self._complete

    def as_file(self) -> io.BufferedReader:
        """A blocking, read-only binary file for a worker thread; never read it on the event loop's thread."""
        return io.BufferedReader(_BodyFile(self, asyncio.get_running_loop()), 1024 * 1024)


class _BodyFile(io.RawIOBase):
    """The thread's end of a `Body`: every read that finds nothing left crosses to the event loop once."""

    def __init__(self, body: Body, loop: asyncio.AbstractEventLoop) -> None:
        self._body = body
        self._loop = loop
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(asyncio.run_coroutine_threadsafe(self._body.read_some(), self._loop).result())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class Request:
    """One request. `path` is decoded; header names are lower-case."""

    __slots__ = ("_query", "body", "connection", "headers", "http_version", "method", "path", "target")

    def __init__(self, head: Head, body: Body, connection: "Connection") -> None:
        self.method = head.method
        self.target = head.target
        self.headers = head.headers
        self.http_version = head.http_version
        self.body = body
        self.connection = connection
        self.path = path_of(head.target)
        self._query: dict[str, list[str]] | None = None

    @property
    def query(self) -> dict[str, list[str]]:
        """The parameters: a name's values in order. Raises InvalidArgument, for those who ask, when they are no
        form."""
        if self._query is None:
            self._query = query_of(self.target)
        return self._query

    @property
    def peer(self) -> Peer | None:
        """Who is at the other end; None unless it is a unix socket."""
        return self.connection.peer

    @property
    def wants_upgrade(self) -> bool:
        return "upgrade" in self.headers

    @property
    def body_length(self) -> int | None:
        """What is announced, in bytes; None when only its end will tell (chunks)."""
        return None if "transfer-encoding" in self.headers else int(self.headers.get("content-length") or 0)

    @property
    def has_body(self) -> bool:
        """A body is announced (a length of 0 announces none)."""
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0").strip("0") != ""


_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")


def path_of(target: str) -> str:
    """The decoded path of a request target (origin form, or absolute form as proxies send it); bytes that are no
    UTF-8 become U+FFFD.

    Raises InvalidArgument when an escape is none or the path holds a NUL.
    """
    raw = target.partition("?")[0]
    if not raw.startswith("/") and "://" in raw:
        raw = "/" + raw.partition("://")[2].partition("/")[2]
    if "%" not in raw:
        return raw
    path = urllib.parse.unquote(raw, errors="replace")
    if _BAD_ESCAPE.search(raw) or "\x00" in path:
        raise InvalidArgument("malformed request target")
    return path


def query_of(target: str) -> dict[str, list[str]]:
    """The parameters of a request target. Raises InvalidArgument, in the words of Go's `url.ParseQuery`."""
    raw = target.partition("?")[2]
    if not raw:
        return {}
    if ";" in raw:
        raise InvalidArgument("invalid semicolon separator in query")
    broken = _BAD_ESCAPE.search(raw) if "%" in raw else None
    if broken:
        raise InvalidArgument(f'invalid URL escape "{broken[0]}"')
    return urllib.parse.parse_qs(raw, keep_blank_values=True, errors="replace")
