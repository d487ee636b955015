"""A server in a thread of its own, and raw clients: what goes over the wire is in the tests' hands."""

import asyncio
import contextlib
import functools
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator

import trustme

from wherry.http.connection import Limits
from wherry.http.hijack import RAW_STREAM, HttpHijack
from wherry.http.message import Request, Response
from wherry.http.server import Server
from wherry.http.websocket import WebSocketHijack

TIMEOUT_S = 60


class Running:
    """A server that runs until the `with` block ends; `address` is what `connect` wants."""

    def __init__(self, kind: str, application, limits: Limits | None = None, **options) -> None:
        self.kind = kind
        self._application = application
        self._limits = limits
        self._options = options
        self._ready = threading.Event()
        self._directory = tempfile.TemporaryDirectory(prefix="wherry-http-")
        self.loop: asyncio.AbstractEventLoop
        self.server: Server

    def __enter__(self) -> "Running":
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(TIMEOUT_S)
        return self

    def __exit__(self, *exc: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT_S)
        self._directory.cleanup()
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.server = Server(self._application, limits=self._limits, **self._options)
        if self.kind == "unix":
            sock = socket.socket(socket.AF_UNIX)
            self.address = os.path.join(self._directory.name, "s")
            sock.bind(self.address)
        else:
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
            self.address = sock.getsockname()
        await self.server.listen(sock, tls=server_tls() if self.kind == "tls" else None)
        self._ready.set()
        await self._stop.wait()
        await self.server.close(0.1)

    def connect(self) -> "Client":
        sock = socket.socket(socket.AF_UNIX if self.kind == "unix" else socket.AF_INET)
        sock.settimeout(TIMEOUT_S)
        sock.connect(self.address)
        return TlsClient(sock) if self.kind == "tls" else Client(sock)

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(TIMEOUT_S)

    def call(self, function, *args):
        async def inside():
            return function(*args)

        return self.run(inside())


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def end(self) -> None:
        """Half-close: we send no more, and still listen."""
        self.sock.shutdown(socket.SHUT_WR)

    def recv(self) -> bytes:
        return self.sock.recv(65536)

    def read_until(self, mark: bytes) -> bytes:
        data = b""
        while mark not in data:
            more = self.recv()
            if not more:
                raise AssertionError(f"end of stream before {mark!r}; got {data!r}")
            data += more
        return data

    def read_all(self) -> bytes:
        data = b""
        while more := self.recv():
            data += more
        return data

    def read_reply(self) -> tuple[int, dict[str, str], bytes]:
        """One reply with its body, by Content-Length or chunks; leaves what follows unread."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._exactly(1)
        status_line, *lines = head[:-4].decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(status_line.split()[1])
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, b"".join(self.chunks())
        return status, headers, self._exactly(int(headers.get("content-length", "0")))

    def chunks(self) -> Iterator[bytes]:
        while size := int(self._line(), 16):
            yield self._exactly(size)
            self._exactly(2)
        self._exactly(2)

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            line += self._exactly(1)
        return line

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._recv(count - len(data))
            if not more:
                raise AssertionError(f"end of stream after {data!r}")
            data += more
        return data

    def _recv(self, count: int) -> bytes:
        return self.sock.recv(count)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class TlsClient(Client):
    """TLS with a client certificate; `end` sends close_notify and goes on reading."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None = None) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = (context or client_tls()).wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._rest = b""
        self._step(self._tls.do_handshake)

    def _step(self, action):
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.sock.recv(65536)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.sock.sendall(self._outgoing.read())

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def end(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    def recv(self) -> bytes:
        return self._recv(65536)

    def _recv(self, count: int) -> bytes:
        try:
            return self._step(lambda: self._tls.read(count))
        except ssl.SSLZeroReturnError:
            return b""


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


def _pem(*blobs: trustme.Blob) -> str:
    with tempfile.NamedTemporaryFile(delete=False, suffix=".pem") as file:
        for blob in blobs:
            file.write(blob.bytes())
    return file.name


@functools.cache
def server_tls() -> ssl.SSLContext:
    from wherry.http.tls import server_context

    certificate = authority().issue_cert("localhost", "127.0.0.1")
    files = [
        _pem(*certificate.cert_chain_pems),
        _pem(certificate.private_key_pem),
        _pem(authority().cert_pem),
    ]
    try:
        return server_context(*files)
    finally:
        for file in files:
            os.unlink(file)


def client_tls(issuer: trustme.CA | None = None, *, certificate: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    if certificate:
        (issuer or authority()).issue_cert("client@example.org").configure_cert(context)
    return context


async def talk(request: Request) -> Response | None:
    """The application most tests talk to."""
    route: dict[str, Callable[[Request], Awaitable[Response | None]]] = {
        "/echo": _echo,
        "/hijack": _hijack,
        "/ws": _websocket,
    }
    handler = route.get(request.path)
    return await handler(request) if handler else Response(200, b"OK", content_type="text/plain")


async def _echo(request: Request) -> Response:
    return Response(200, await request.body.read(1 << 24))


async def _hijack(request: Request) -> None:
    hijack = HttpHijack(request)
    await hijack.accept(RAW_STREAM)
    await converse(hijack)


async def _websocket(request: Request) -> None:
    hijack = WebSocketHijack(request)
    await hijack.accept("")
    await converse(hijack)


async def converse(hijack) -> None:
    """Hand the conversation to a thread, as the daemon hands it to a monitor, and forget it."""
    sock, early = await hijack.hand_over()
    threading.Thread(target=_upper_case_after_eof, args=(sock, early), daemon=True).start()
    hijack.release()


def _upper_case_after_eof(sock: socket.socket, early: bytes) -> None:
    """A "container": says hello, reads stdin to its end, and only then answers."""
    sock.settimeout(TIMEOUT_S)
    with sock, contextlib.suppress(OSError):
        sock.sendall(b"hello\n")
        data = early
        while more := sock.recv(65536):
            data += more
        sock.sendall(data.upper())
        sock.shutdown(socket.SHUT_RDWR)
