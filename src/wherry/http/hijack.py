"""Taking the connection over: attach and exec leave HTTP and become a raw conversation (Docker Engine API, "attach").

The engine gets a `Hijack`. On a plain connection the monitor that owns the container's stdio gets the client's socket
itself, so that nothing in the daemon is on the path of the data and the conversation outlives the daemon. Where the
bytes on the wire are not the bytes of the conversation (TLS, WebSocket), it gets one end of a socket pair and a relay
here translates, keeping the two directions apart: the client's end of sending is the end of stdin, nothing more.
"""

import asyncio
import contextlib
import os
import socket
from typing import Protocol

from wherry.http.connection import Connection
from wherry.http.message import Request
from wherry.http.raw import RawReader

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

_RELAY_BYTES = 64 * 1024
_EARLY_BODY = 64 * 1024


class Hijack(Protocol):
    """The conversation as the engine sees it: `accept`, any `write`s, then either `hand_over` and `release`, or
    `close`."""

    upgraded: bool
    """The client asked for an upgrade and gets 101; otherwise 200, as the oldest clients expect."""

    async def accept(self, content_type: str) -> None:
        """Answer 101 UPGRADED (or 200), and flush it; errors can no longer be told by a status."""

    async def write(self, data: bytes) -> None:
        """Send bytes of the daemon's own: a replayed log, an error in band."""

    async def hand_over(self) -> tuple[socket.socket, bytes]:
        """Stop reading, flush, and return a socket for the rest of the conversation, with the bytes of stdin that were
        already read. The caller owns the socket (non-blocking)."""

    def release(self) -> None:
        """Whoever got the socket owns the conversation now: let go of our copy without a shutdown."""

    async def close(self) -> None:
        """End the conversation ourselves."""


class Codec(Protocol):
    """How bytes of the conversation are written on the wire, and back."""

    def encode(self, data: bytes) -> bytes: ...

    def decode(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """Wire bytes → (bytes of the conversation, bytes to answer at once, the peer has closed for good)."""

    def farewell(self) -> bytes:
        """What to send at the end of our direction, before the transport's own end."""


class HttpHijack:
    """The takeover of an HTTP request's connection, plain or TLS."""

    def __init__(self, request: Request) -> None:
        self.upgraded = request.wants_upgrade
        self._request = request
        self._connection: Connection = request.connection
        self._raw: RawReader | None = None
        self._owned = True
        self._relay: Relay | None = None

    @property
    def accepted(self) -> bool:
        """The reply's head is out: from here on errors go in band."""
        return self._raw is not None

    async def accept(self, content_type: str) -> None:
        await self._request.body.discard(_EARLY_BODY)
        head = "HTTP/1.1 101 UPGRADED" if self.upgraded else "HTTP/1.1 200 OK"
        lines = [head, f"Content-Type: {content_type}"]
        if self.upgraded:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        await self._take_over(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def refuse(self, status_line: str, message: str) -> None:
        """Answer an error of a request that asked for a takeover the way Docker does: by hand, as plain text."""
        head = f"HTTP/1.1 {status_line}\r\nContent-Type: {RAW_STREAM}\r\n\r\n"
        await self._take_over((head + message + "\r\n").encode())

    async def _take_over(self, head: bytes) -> None:
        self._raw = self._connection.take_over()
        self._raw.owner_gone = self._handler_ended
        self._connection.transport.write(head)
        await self._connection.flush()

    async def write(self, data: bytes) -> None:
        self._connection.transport.write(data)
        await self._connection.drain()

    async def hand_over(self) -> tuple[socket.socket, bytes]:
        assert self._raw is not None, "accept comes first"
        if self._connection.encrypted:
            self._relay = Relay(self._connection, self._raw, None)
            return self._relay.start(), b""
        self._connection.transport.pause_reading()
        await self._connection.flush()
        self._raw.survives_loss = True
        return _duplicate(self._connection), self._raw.take()

    def release(self) -> None:
        self._owned = False
        if self._relay is not None:
            self._relay.release()
        else:
            self._connection.transport.abort()  # closes our descriptor; the monitor's copy lives on

    async def close(self) -> None:
        self._owned = False
        if self._relay is not None:
            await self._relay.finish()
        elif self._raw is not None:
            self._connection.close_politely()

    def _handler_ended(self) -> None:
        if self._owned:
            if self._relay is not None:
                self._relay.release()
            self._connection.close_politely()


def _duplicate(connection: Connection) -> socket.socket:
    fd = os.dup(connection.transport.get_extra_info("socket").fileno())
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


class Relay:
    """Carries a conversation between a connection and one end of a socket pair, each direction ending by itself."""

    def __init__(self, connection: Connection, raw: RawReader, codec: Codec | None) -> None:
        self._connection = connection
        self._raw = raw
        self._codec = codec
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        self._held = self._far.dup()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> socket.socket:
        """Run until both ends are done; returns the far end, which the caller owns."""
        self._raw.survives_loss = True
        self._task = asyncio.get_running_loop().create_task(self._run())
        _RELAYS.add(self._task)
        self._task.add_done_callback(_RELAYS.discard)
        return self._far

    def release(self) -> None:
        """Until now a far end closed by its owner did not end the conversation: there might be an error to tell."""
        self._held.close()

    async def finish(self) -> None:
        """End the conversation from our side, output first."""
        self.release()
        with contextlib.suppress(OSError):
            self._near.shutdown(socket.SHUT_RD)
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        inward = asyncio.get_running_loop().create_task(self._inward())
        try:
            with contextlib.suppress(OSError):
                await self._outward()
                self._connection.transport.write_eof()
                # A client that is still sending must read the last output before it meets a reset.
                await asyncio.wait({inward}, timeout=1.0)
        finally:
            inward.cancel()
            self._near.close()
            self._held.close()
            self._connection.transport.close()

    async def _inward(self) -> None:
        """From the client to the container: stdin."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await self._raw.read():
                payload, gone = await self._decode(data)
                if payload:
                    await loop.sock_sendall(self._near, payload)
                if gone:
                    break
            # A client that is gone for good takes its output with it; one that only ended stdin still listens.
            self._near.shutdown(socket.SHUT_RDWR if self._raw.lost or self._codec is not None else socket.SHUT_WR)

    async def _decode(self, data: bytes) -> tuple[bytes, bool]:
        if self._codec is None:
            return data, False
        payload, answer, gone = self._codec.decode(data)
        if answer:
            self._connection.transport.write(answer)
            await self._connection.drain()
        return payload, gone

    async def _outward(self) -> None:
        """From the container to the client: output, and its end."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._near, _RELAY_BYTES):
            self._connection.transport.write(data if self._codec is None else self._codec.encode(data))
            await self._connection.drain()
        if self._codec is not None:
            self._connection.transport.write(self._codec.farewell())


_RELAYS: set[asyncio.Task[None]] = set()
"""asyncio keeps only weak references to tasks."""
