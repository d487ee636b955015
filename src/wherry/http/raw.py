"""A connection that has left HTTP: what arrives belongs to whoever took it over."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wherry.http.connection import Connection


class RawReader:
    """The receiving side of a connection that has left HTTP."""

    FULL = 64 * 1024

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._eof = False
        self.lost = False
        self._arrival = asyncio.Event()
        self.owner_gone: Callable[[], None] | None = None
        """Called when the handler has returned: whoever took the connection over ends or keeps it."""
        self.survives_loss = False
        """The conversation goes on elsewhere: losing this connection must not cancel the handler."""

    def feed(self, data: bytes) -> None:
        self._buffer += data
        self._arrival.set()
        if self.full:
            self._connection.transport.pause_reading()

    def feed_eof(self) -> None:
        self._eof = True
        self._arrival.set()

    def feed_lost(self) -> None:
        self.lost = True
        self.feed_eof()
        if self._connection.task is not None and not self.survives_loss:
            self._connection.task.cancel()

    def handler_ended(self) -> None:
        if self.owner_gone is not None:
            self.owner_gone()

    @property
    def full(self) -> bool:
        return len(self._buffer) >= self.FULL

    def take(self) -> bytes:
        """What has arrived and was not read."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def read(self) -> bytes:
        """What has arrived, at least one byte; b"" when the peer sends no more (`lost` tells whether it is gone)."""
        while not self._buffer and not self._eof:
            self._arrival.clear()
            await self._arrival.wait()
        data = self.take()
        if not self._eof:
            self._connection.transport.resume_reading()
        return data
