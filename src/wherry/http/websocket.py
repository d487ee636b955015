"""WebSocket (RFC 6455) on a taken-over connection, framed by wsproto: `attach/ws`.

Output goes out as binary messages, never multiplexed; text and binary messages both are stdin. A WebSocket cannot be
half-closed: the client's Close ends the whole conversation.
"""

import socket

from wsproto.connection import Connection, ConnectionType
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.events import Request as Upgrade
from wsproto.handshake import H11Handshake
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from wherry.errors import InvalidArgument
from wherry.http.hijack import Relay
from wherry.http.message import Request
from wherry.http.raw import RawReader


class NotWebSocket(InvalidArgument):
    """The request is no WebSocket handshake."""


class WebSocketCodec:
    """Messages on the wire, the bytes of the conversation inside."""

    def __init__(self) -> None:
        self._connection = Connection(ConnectionType.SERVER)
        self._closed = False

    def encode(self, data: bytes) -> bytes:
        return b"" if self._closed else self._connection.send(BytesMessage(data=data))

    def decode(self, data: bytes) -> tuple[bytes, bytes, bool]:
        payload = bytearray()
        answer = bytearray()
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                if isinstance(event, BytesMessage):
                    payload += event.data
                elif isinstance(event, TextMessage):
                    payload += event.data.encode()
                elif isinstance(event, Ping):
                    answer += self._connection.send(event.response())
                elif isinstance(event, CloseConnection):
                    answer += self._end(event.response())
        except RemoteProtocolError as error:
            answer += self._end(error.event_hint or CloseConnection(code=1002))
        return bytes(payload), bytes(answer), self._closed

    def farewell(self) -> bytes:
        return self._end(CloseConnection(code=1000))

    def _end(self, event: Event) -> bytes:
        if self._closed:
            return b""
        self._closed = True
        try:
            return self._connection.send(event)
        except LocalProtocolError:
            return b""


class WebSocketHijack:
    """A `Hijack` (see `wherry.http.hijack`) whose conversation travels in WebSocket messages."""

    upgraded = True

    def __init__(self, request: Request) -> None:
        self._request = request
        self._connection = request.connection
        self._codec = WebSocketCodec()
        self._raw: RawReader | None = None
        self._relay: Relay | None = None
        self._owned = True

    @property
    def accepted(self) -> bool:
        return self._raw is not None

    async def accept(self, content_type: str) -> None:
        """Shake hands; a WebSocket has no content type. Raises NotWebSocket when the request is not one."""
        answer = _handshake(self._request)
        await self._request.body.discard(0)
        self._raw = self._connection.take_over()
        self._raw.owner_gone = self._handler_ended
        self._connection.transport.write(answer)
        await self._connection.flush()

    async def write(self, data: bytes) -> None:
        self._connection.transport.write(self._codec.encode(data))
        await self._connection.drain()

    async def hand_over(self) -> tuple[socket.socket, bytes]:
        assert self._raw is not None, "accept comes first"
        self._relay = Relay(self._connection, self._raw, self._codec)
        return self._relay.start(), b""

    def release(self) -> None:
        self._owned = False
        if self._relay is not None:
            self._relay.release()

    async def close(self) -> None:
        self._owned = False
        if self._relay is not None:
            await self._relay.finish()
        elif self._raw is not None:
            self._connection.transport.write(self._codec.farewell())
            self._connection.close_politely()

    def _handler_ended(self) -> None:
        if self._owned:
            if self._relay is not None:
                self._relay.release()
            self._connection.close_politely()


def _handshake(request: Request) -> bytes:
    """The 101 reply to `request`."""
    handshake = H11Handshake(ConnectionType.SERVER)
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()]
    try:
        handshake.initiate_upgrade_connection(headers, request.target)
        upgrade = next(event for event in handshake.events() if isinstance(event, Upgrade))
        return handshake.send(AcceptConnection(subprotocol=next(iter(upgrade.subprotocols), None)))
    except (RemoteProtocolError, LocalProtocolError, StopIteration) as error:
        raise NotWebSocket(f"not a WebSocket handshake: {error}") from error
