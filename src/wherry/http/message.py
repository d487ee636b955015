"""What an application sees of an HTTP exchange: `Request` in, `Response` out."""

import asyncio
import io
import re
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from wherry.errors import InvalidArgument
from wherry.http.h1 import Head, HeaderList
from wherry.http.sink import Sink
from wherry.http.source import SocketSource

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
    that is cancelled must not return before its thread has ended. A stream that is a `watch` tells what happens for as
    long as the peer likes: a server that closes does not wait for its end.
    """

    __slots__ = ("body", "headers", "produce", "status", "stream", "watch")

    def __init__(
        self,
        status: int = 200,
        body: bytes = b"",
        *,
        content_type: str | None = None,
        headers: HeaderList | None = None,
        stream: AsyncIterator[bytes] | None = None,
        produce: Callable[[Sink], Awaitable[None]] | None = None,
        watch: bool = False,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers or []
        self.stream = stream
        self.produce = produce
        self.watch = watch
        if content_type is not None:
            self.headers.append(("Content-Type", content_type))


class Last(bytes):
    """The last piece of a streamed body: it goes out together with the end."""


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
        self._connection.take_back_body()
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

    async def lend(self) -> SocketSource | None:
        """What a thread reads the body from, or None when it has to come through here."""
        if self._complete or self._error is not None:
            return None
        source = self._connection.lend_body(bytes(self._chunks))
        if source is not None:
            self._chunks.clear()
        return source

    def as_file(self) -> BinaryIO:
        """A blocking, read-only binary file for one worker thread; never read it on the event loop's thread. The thread
        must be done with it when the reply has been sent."""
        return cast(BinaryIO, _BodyFile(self, asyncio.get_running_loop()))


class _BodyFile(io.BufferedIOBase):
    """The thread's end of a `Body`: it reads from the client's socket; where that cannot be, every read that finds
    nothing left crosses to the event loop once."""

    def __init__(self, body: Body, loop: asyncio.AbstractEventLoop) -> None:
        self._body = body
        self._loop = loop
        self._source: SocketSource | None = None
        self._asked = False
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read1(self, size: int | None = -1, /) -> bytes:
        data = self._rest or self._next()
        if size is None or size < 0 or size >= len(data):
            self._rest = b""
            return data
        self._rest = data[size:]
        return data[:size]

    def read(self, size: int | None = -1, /) -> bytes:
        parts: list[bytes] = []
        left = -1 if size is None else size
        while left and (data := self.read1(left)):
            parts.append(data)
            left -= len(data) if left > 0 else 0
        return b"".join(parts)

    def _next(self) -> bytes:
        if not self._asked:
            self._asked = True
            self._source = asyncio.run_coroutine_threadsafe(self._body.lend(), self._loop).result()
        if self._source is not None:
            return self._source.read()
        return asyncio.run_coroutine_threadsafe(self._body.read_some(), self._loop).result()


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
