"""TLS for a listener, over `ssl.MemoryBIO`.

asyncio's own TLS transport takes the peer's close_notify for the end of both directions and drops all output that is
still to come; a `docker run -i` that has sent all its stdin would lose the container's output without an error. TLS
allows a half-close (RFC 8446 section 6.1), so this layer keeps the two directions apart.
"""

import asyncio
import contextlib
import logging
import ssl
from typing import Any

log = logging.getLogger(__name__)

_RECORDS = 256 * 1024
_NOT_TLS = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
_TLS_HANDSHAKE = 0x16  # content type of the first record, RFC 8446 section 5.1


def server_context(certificate: str, key: str, client_ca: str | None = None) -> ssl.SSLContext:
    """The context of a listener from PEM files. With `client_ca`, only clients with a certificate of that authority are
    let in: that file alone counts, never the system's authorities (CVE-2018-12608). Raises OSError or ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    if client_ca is not None:
        context.load_verify_locations(cafile=client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsProtocol(asyncio.Protocol):
    """Decrypts for `inner`, an `asyncio.Protocol` that sees a `TlsTransport`."""

    def __init__(self, context: ssl.SSLContext, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._early_output = bytearray()
        self._established = False
        self._first = True
        self._eof = False
        self._finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._inner.connection_made(TlsTransport(self))

    def data_received(self, data: bytes) -> None:
        if self._first and data[0] != _TLS_HANDSHAKE:
            self.transport.write(_NOT_TLS)
            self.transport.close()
            return
        self._first = False
        self._incoming.write(data)
        try:
            self._advance()
        except ssl.SSLError as error:
            log.info("TLS with %s failed: %s", self.transport.get_extra_info("peername"), error)
            self._send_records()  # the alert that says what was wrong
            self.transport.close()

    def _advance(self) -> None:
        if not self._established and not self._handshake():
            return
        self._read_records()
        self._send_records()  # answers to key updates

    def _handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send_records()
            return False
        self._established = True
        early = bytes(self._early_output)
        self._early_output.clear()
        if early:
            self._tls.write(early)
        self._send_records()
        return True

    def _read_records(self) -> None:
        while not self._eof:
            try:
                data = self._tls.read(_RECORDS)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                self._inner.data_received(data)
            else:
                self._eof = True
                self._inner.eof_received()

    def eof_received(self) -> bool:
        """The TCP stream ended: fine after close_notify, otherwise the peer died or was cut off."""
        if not self._eof:
            self.transport.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    # -- used by the transport

    def write(self, data: bytes) -> None:
        if self._finished or self.transport.is_closing():
            return
        if not self._established:
            self._early_output += data
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError:
            self.transport.abort()
            return
        self._send_records()

    def write_eof(self) -> None:
        """Send close_notify: our direction ends, theirs goes on."""
        if not self._established or self._finished:
            return
        self._finished = True
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()  # raises WantRead: the peer's own close_notify may come much later
        self._send_records()

    def close(self) -> None:
        self.write_eof()
        self.transport.close()

    def _send_records(self) -> None:
        if self._outgoing.pending and not self.transport.is_closing():
            self.transport.write(self._outgoing.read())

    @property
    def client_certificate(self) -> dict[str, Any] | None:
        return self._tls.getpeercert()


class TlsTransport(asyncio.Transport):
    """What the inner protocol writes to; flow control is the TCP transport's own."""

    def __init__(self, protocol: TlsProtocol) -> None:
        super().__init__()
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peercert":
            return self._protocol.client_certificate
        return self._protocol.transport.get_extra_info(name, default)

    def write(self, data: Any) -> None:
        self._protocol.write(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._protocol.write_eof()

    def close(self) -> None:
        self._protocol.close()

    def abort(self) -> None:
        self._protocol.transport.abort()

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def pause_reading(self) -> None:
        if not self.is_closing():
            self._protocol.transport.pause_reading()

    def resume_reading(self) -> None:
        self._protocol.transport.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._protocol.transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._protocol.transport.get_write_buffer_size()
