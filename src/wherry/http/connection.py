"""One connection of the server: `asyncio.Protocol` in, an application's replies out.

A connection serves one request at a time:

    head ──► task: application(request) ──► head of the reply ──► body ──► drain what was not read ──► next head
                     │
                     └─ hijack: the connection leaves HTTP for good (see `hijack`)

The peer's end of sending is not its end of listening. When it half-closes, the reply still goes out. Whether it is
gone for good shows on a unix socket (POLLHUP); on TCP it does not show, so a *stream* to a peer that sends no more is
given up after `Limits.half_close_s`, where Go's server gives up at once.
"""

import asyncio
import email.utils
import http
import json
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from wherry.errors import InvalidArgument
from wherry.http import guard
from wherry.http.body import FramingError
from wherry.http.h1 import H1, Event, Head, HeaderList, ProtocolError
from wherry.http.message import Body, Last, Peer, Request, Response
from wherry.http.raw import RawReader
from wherry.http.sink import LoopSink, Sink, SocketSink
from wherry.http.source import Hangup, SocketSource

if TYPE_CHECKING:
    from wherry.http.server import Server

log = logging.getLogger(__name__)

_REASONS = {status.value: status.phrase for status in http.HTTPStatus}
_PEERCRED = struct.Struct("3i")


class Limits(NamedTuple):
    """What one client may cost. Times in seconds."""

    head_bytes: int = 256 * 1024
    connections: int = 4096
    head_s: float = 30.0
    """From the first byte of a request (or the connect) to the end of its head, a TLS handshake included."""
    idle_s: float = 900.0
    """Between two requests. Long, because clients keep a pool and do not retry a POST on a connection gone stale."""
    body_s: float | None = None
    """Without any progress of a body that is being read; None: a slow pipe into `load` may take for ever."""
    drain_bytes: int = 256 * 1024
    """Of a body that nobody wants, read to keep the connection."""
    half_close_s: float = 5.0
    close_s: float = 2.0
    """How long a peer we cut short may go on sending, so that it reads our reply before it meets a reset."""


class Connection(asyncio.Protocol):
    """One client. `peer` is set on unix sockets; `task` while a request is being answered."""

    def __init__(self, server: "Server", *, browser_reachable: bool, encrypted: bool) -> None:
        self._server = server
        self._limits = server.limits
        self._http = H1(server.limits.head_bytes)
        self._browser_reachable = browser_reachable
        self.encrypted = encrypted
        self.peer: Peer | None = None
        self.task: asyncio.Task[None] | None = None
        self._body: Body | None = None
        self._streaming = False
        self._watched = False  # the stream ends with the peer alone
        self._closing = False  # no further request after this one
        self._deaf = False  # what still arrives is thrown away
        self._eof = False
        self._lost = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._timer: asyncio.TimerHandle | None = None
        self._raw: RawReader | None = None
        self._sink: SocketSink | None = None
        self._source: SocketSource | None = None

    # -- events of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if len(self._server.connections) >= self._limits.connections:
            self._refuse()
            return
        self._server.connections.add(self)
        if not self._browser_reachable:
            self.peer = _peer_of(transport)
        self._expect_head(self._limits.head_s)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._raw is not None:
            self._raw.feed(data)
        else:
            fresh = self.task is None and not self._http.started
            self._http.feed(data)
            if fresh:
                self._expect_head(self._limits.head_s)
            self._pump()

    def eof_received(self) -> bool:
        self._eof = True
        if self._raw is not None:
            self._raw.feed_eof()
            if self._deaf:
                self.transport.close()
            return True
        self._http.feed_eof()
        if self.task is None:
            if self._http.started and not self._deaf:
                self._fail(ProtocolError("unexpected end of the request"))
            else:
                self.transport.close()
        elif self._body is not None and not self._body.complete:
            self._pump()
            self._body.fail(Hangup("the client went away"))
        self._watch_half_closed(time.monotonic())
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._server.connections.discard(self)
        self._cancel_timer()
        self._writable.set()
        if self._body is not None:
            self._body.fail(Hangup("the client went away"))
        if self._raw is not None:
            self._raw.feed_lost()
        elif self.task is not None:
            self._wake_threads()
            self.task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- requests

    def _pump(self) -> None:
        """Hand everything received to whom it is for."""
        try:
            while True:
                event = self._http.next_event()
                if isinstance(event, Head):
                    self._begin(event)
                elif isinstance(event, bytes):
                    self._feed_body(event)
                elif event is Event.END:
                    if self._body is not None:
                        self._body.feed_end()
                    self._cancel_timer()
                else:
                    if event is Event.PAUSED:
                        self.transport.pause_reading()  # a pipelined request waits its turn in the kernel
                    return
        except ProtocolError as error:
            self._fail(error)

    def _begin(self, head: Head) -> None:
        self._cancel_timer()
        self._body = Body(self)
        self.task = asyncio.get_running_loop().create_task(self._serve(head, self._body))

    def _feed_body(self, data: bytes) -> None:
        if self._body is not None:
            self._body.feed(data)
        if self._timer is not None:
            self._expect_body()

    async def _serve(self, head: Head, body: Body) -> None:
        try:
            response = await self._answer(head, body)
            if response is not None and self._raw is None:
                await self._reply(head, response, body)
        except asyncio.CancelledError:
            self.abort()
        except ConnectionError:
            self.abort()
        except Exception:
            log.exception("the connection of %s %s failed", head.method, head.target.partition("?")[0])
            self.abort()
        finally:
            self.task = None
        if self._raw is not None:
            self._raw.handler_ended()
        elif not self._lost:
            self._pump()

    async def _answer(self, head: Head, body: Body) -> Response | None:
        refusal = guard.refuse(head, self._server.allowed_hosts, self.encrypted) if self._browser_reachable else None
        if refusal is not None:
            return _error(403, refusal)
        try:
            return await self._server.application(Request(head, body, self))
        except InvalidArgument as error:
            if self._raw is not None:
                raise
            return _error(400, error.message)

    # -- replies

    async def _reply(self, head: Head, response: Response, body: Body) -> None:
        if response.stream is None and response.produce is None:
            await self._drain_body(body)
            self._write_whole(head, response, body)
        else:
            self._streaming = True
            self._watched = response.watch
            if self._watched and self._closing:
                self.abort()
            if response.produce is not None:
                await self._produce(response, response.produce)
            else:
                await self._write_stream(response)
            await self._drain_body(body)
            self._streaming = False
        await self.drain()
        if self._closing or self._http.must_close:
            self.close_politely()
            return
        self._http.next_cycle()
        self._body = None
        if self._eof and not self._http.started:
            self.transport.close()
            return
        self.transport.resume_reading()
        self._expect_head(self._limits.head_s if self._http.started else self._limits.idle_s)

    async def _drain_body(self, body: Body) -> None:
        """Take in a short rest of the request, so that the connection can go on; a long one ends it."""
        if body.complete or self._http.wants_continue:
            return
        try:
            async with asyncio.timeout(self._limits.close_s):
                await body.discard(self._limits.drain_bytes)
        except (TimeoutError, ProtocolError, Hangup):
            self._closing = True

    def _write_whole(self, head: Head, response: Response, body: Body) -> None:
        headers = self._headers(response)
        if response.status not in (204, 304):
            headers.append(("Content-Length", str(len(response.body))))
        close = self._closing or not body.complete
        data = self._http.send_head(response.status, _reason(response.status), headers, close=close)
        if response.body and head.method != "HEAD":
            data += self._http.send_data(response.body)
        self.transport.write(data + self._http.send_end())

    async def _write_stream(self, response: Response) -> None:
        stream = response.stream
        assert stream is not None
        if self._http.wants_continue:
            self.transport.write(self._http.send_continue())  # the reply comes first, the body is wanted none the less
        headers, reason = self._headers(response), _reason(response.status)
        self.transport.write(self._http.send_head(response.status, reason, headers, close=self._closing))
        ended = False
        try:
            async for data in stream:
                if data:
                    ended = isinstance(data, Last)
                    end = self._http.send_end() if ended else b""
                    self.transport.write(self._http.send_data(data) + end)
                    await self.drain()
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
        if not ended:
            self.transport.write(self._http.send_end())

    async def _produce(self, response: Response, produce: Callable[[Sink], Awaitable[None]]) -> None:
        """Let somebody's thread write the body: into the socket itself where nothing has to be encrypted."""
        headers, reason = self._headers(response), _reason(response.status)
        self.transport.write(self._http.send_head(response.status, reason, headers, close=self._closing))
        loop = asyncio.get_running_loop()
        if self.encrypted:
            loop_sink = LoopSink(loop, self._write_body)
            await produce(loop_sink)
            await loop.run_in_executor(None, loop_sink.finish)
            self.transport.write(self._http.send_end())
            return
        await self.flush()
        sink = self._sink = SocketSink(_duplicate(self.transport), chunked=bool(self._http.send_end()))
        try:
            await produce(sink)
            await loop.run_in_executor(None, sink.finish)
        finally:
            self._sink = None
            sink.close()

    async def _write_body(self, data: bytes) -> None:
        self.transport.write(self._http.send_data(data))
        await self.drain()

    def _headers(self, response: Response) -> HeaderList:
        return [*response.headers, ("Date", _http_date(int(time.time())))]

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was written. Raises ConnectionResetError when it is gone."""
        if not self._writable.is_set():
            await self._writable.wait()
        if self._lost:
            raise ConnectionResetError("the client went away")

    async def flush(self) -> None:
        """Wait until the kernel has taken everything that was written."""
        self.transport.set_write_buffer_limits(0)
        await self.drain()

    # -- the body

    def want_body(self) -> None:
        if self._http.wants_continue and not self._lost:
            self.transport.write(self._http.send_continue())
        self._expect_body()

    def pause_body(self) -> None:
        self._cancel_timer()
        if not self._lost:
            self.transport.pause_reading()

    def resume_body(self) -> None:
        if not self._lost and self._raw is None and not self._http.request_complete:
            self.transport.resume_reading()

    def lend_body(self, early: bytes) -> SocketSource | None:
        """What a thread reads the rest of the body from, in our place; `early` comes before it. None where the bytes
        have to come through the event loop."""
        if self.encrypted or self._lost or self._eof or self._source is not None:
            return None
        self.want_body()
        self._cancel_timer()
        self.transport.pause_reading()
        loop = asyncio.get_running_loop()

        def returned(bad: FramingError | None) -> None:
            loop.call_soon_threadsafe(self._body_returned, source, bad)

        framing = self._http.lend_body()
        source = SocketSource(_duplicate(self.transport), framing, early, self._limits.body_s, returned)
        self._source = source
        return source

    def take_back_body(self) -> None:
        """Read it ourselves again, where the thread left it."""
        if self._source is not None:
            self._body_returned(self._source, None)

    def _body_returned(self, source: SocketSource, bad: FramingError | None) -> None:
        if self._source is not source:
            return
        self._source = None
        source.revoke()
        self._http.take_back_body(bad)
        if not self._lost and self._raw is None:
            self.transport.resume_reading()
            self._pump()

    def _expect_body(self) -> None:
        self._cancel_timer()
        if self._limits.body_s is not None and not self._lost:
            self._timer = asyncio.get_running_loop().call_later(self._limits.body_s, self._body_stalled)

    def _body_stalled(self) -> None:
        self._closing = True
        if self._body is not None:
            self._body.fail(ProtocolError("timed out waiting for the request body", 408))

    # -- leaving HTTP

    def take_over(self) -> "RawReader":
        """Leave HTTP: from now on the bytes are the caller's, those that came with the request first."""
        self._raw = RawReader(self)
        self._cancel_timer()
        early = self._http.take_rest()
        if early:
            self._raw.feed(early)
        if self._eof:
            self._raw.feed_eof()
        elif not self._raw.full:
            self.transport.resume_reading()
        return self._raw

    # -- ending

    def _fail(self, error: ProtocolError) -> None:
        """The request cannot be understood: say so if nobody else is answering, and close."""
        self._closing = True
        if self._body is not None and self.task is not None:
            self._body.fail(error)
            return
        self._write_bare(error.status, error.message)
        self.close_politely()

    def _refuse(self) -> None:
        self._write_bare(503, "too many connections")
        self.close_politely()

    def _write_bare(self, status: int, message: str) -> None:
        """A reply outside any cycle of the framing."""
        body = b'{"message":"%b"}\n' % message.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        self.transport.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (status, _REASONS[status].encode(), len(body), body)
        )

    def close_politely(self) -> None:
        """Close without a reset that would destroy the reply on its way: end our side, discard theirs for a while."""
        self._closing = self._deaf = True
        self._cancel_timer()
        if self._lost:
            return
        if self._eof or (self._http.request_complete and self._raw is None):
            self.transport.close()
            return
        if self._raw is not None:
            self._raw.survives_loss = True  # the handler has done its part
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(self._limits.close_s, self.abort)

    def close_when_idle(self) -> None:
        """Close now if no request is being answered, or one whose answer has no end, else after it."""
        self._closing = True
        if self.task is None and self._raw is None:
            self.transport.close()
        elif self._streaming and self._watched:
            self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        self._cancel_timer()
        self._wake_threads()
        self.transport.abort()

    def _wake_threads(self) -> None:
        """Let those who read or write in our place find out that it is over."""
        for end in (self._sink, self._source):
            if end is not None:
                end.abort()

    # -- time

    def _expect_head(self, timeout_s: float) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._head_overdue)

    def _head_overdue(self) -> None:
        if self._http.started:
            self._fail(ProtocolError("timed out waiting for the request", 408))
        else:
            self.transport.close()

    def _watch_half_closed(self, since: float) -> None:
        """The peer sends no more: find out whether it still listens."""
        if self._lost or self._raw is not None or self.task is None:
            return
        gone = _hung_up(self.transport) if not self._browser_reachable else False
        overdue = self._browser_reachable and self._streaming and time.monotonic() - since > self._limits.half_close_s
        if gone or overdue:
            self.abort()
            return
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(0.5, self._watch_half_closed, since)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _error(status: int, message: str) -> Response:
    body = json.dumps({"message": message}, separators=(",", ":")).encode() + b"\n"
    return Response(status, body, content_type="application/json")


def _peer_of(transport: asyncio.Transport) -> Peer | None:
    sock = transport.get_extra_info("socket")
    try:
        return Peer(*_PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)))
    except OSError:
        return None


def _hung_up(transport: asyncio.Transport) -> bool:
    """Whether the other end of a unix socket is closed for both directions."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poller = select.poll()
    poller.register(sock.fileno(), 0)
    return any(event & select.POLLHUP for _, event in poller.poll(0))


def _duplicate(transport: asyncio.Transport) -> socket.socket:
    return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))


def _reason(status: int) -> str:
    return _REASONS.get(status, "Unknown")


@lru_cache(maxsize=2)
def _http_date(second: int) -> str:
    return email.utils.formatdate(second, usegmt=True)
