"""HTTP requests to registries: connections that are kept and shared among threads, redirects, bounded replies."""

import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from wherry import goquote
from wherry.registry import proxies
from wherry.registry.cancel import Cancellation
from wherry.registry.certs import Contexts, Tls
from wherry.registry.config import RegistryConfig
from wherry.registry.connections import Connection, Pool
from wherry.registry.dial import DialError, Target, dial, proxy_authorization, shut, tls_failure
from wherry.registry.errors import RegistryError, Unconnected, Unreachable

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_REDIRECTS_MAX = 10
_URL_MAX = 8192
_DRAIN = 64 * 1024
_PIECE = 256 * 1024
_SLICE = 64 * 1024
_GATHER_S = 0.05
_PUBLIC = ("accept", "range", "content-type", "content-range")


class Host(msgspec.Struct, frozen=True):
    """One origin and how to connect to it. `addresses`: see `dial.Target`."""

    scheme: str
    host: str
    port: int
    tls: Tls = Tls()
    addresses: tuple[str, ...] = ()

    @property
    def authority(self) -> str:
        """`host[:port]`, without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port


def split_url(url: str) -> SplitResult:
    """Split an absolute http(s) URL that a registry gave. Raises `RegistryError` for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise RegistryError(f"invalid URL {url[:200]!r}") from None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0 or not url.isascii() or not url.isprintable():
        raise RegistryError(f"invalid URL {url[:200]!r}")
    return parts


def join_url(base: str, where: str) -> str:
    """The URL that a registry means by `where` in its reply to `base`. Raises `RegistryError` when that is none."""
    if len(where) > _URL_MAX:
        raise RegistryError(f"{base}: the registry gives a URL that is too long")
    try:
        return split_url(urljoin(base, where)).geturl()
    except ValueError:
        raise RegistryError(f"invalid URL {where[:200]!r}") from None


def host_of(parts: SplitResult, tls: Tls = Tls()) -> Host:  # noqa: B008 — frozen
    """The host of a URL that `split_url` passed."""
    assert parts.hostname
    return Host(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], tls)


def named_by(origin: Host, parts: SplitResult) -> Host:
    """The host of a URL that `origin` gave: it does not see the client's certificate. Under the name of `origin` it is
    at the same addresses, whatever that name resolves to by now."""
    other = host_of(parts, origin.tls.for_others())
    return msgspec.structs.replace(other, addresses=origin.addresses) if other.host == origin.host else other


class Body(Protocol):
    """What a request carries. `write` may be called anew, for another connection."""

    @property
    def size(self) -> int: ...

    def write(self, sock: socket.socket) -> None: ...


class BytesBody:
    """A body in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def write(self, sock: socket.socket) -> None:
        sock.sendall(self._data)


class Request(msgspec.Struct, frozen=True):
    """`target` is path and query, from the slash on. `private`: the body is for this origin alone."""

    method: str
    host: Host
    target: str
    headers: Mapping[str, str] = {}
    body: Body | None = None
    private: bool = False

    @property
    def url(self) -> str:
        return self.host.url + self.target


class Response:
    """A reply whose body is read on demand. Close it: one that was read to its end keeps its connection for others."""

    def __init__(
        self, request: Request, raw: http.client.HTTPResponse, connection: Connection, pool: "Transport",
        cancel: Cancellation,
    ) -> None:  # fmt: skip
        self.request = request
        self.status = raw.status
        self.reason = "".join(char for char in raw.reason[:80] if char.isprintable())
        self.length = _length(raw)
        self._raw = raw
        self._connection = connection
        self._transport = pool
        self._cancel = cancel
        self._left = 0 if request.method == "HEAD" or self.status in (204, 304) else self.length
        self._ended = self._left == 0

    def header(self, name: str) -> str:
        """The value of a header, "" when it is not there."""
        return str(self._raw.headers.get(name, ""))

    def headers(self, name: str) -> list[str]:
        return [str(value) for value in self._raw.headers.get_all(name, [])]

    @property
    def content_type(self) -> str:
        return self.header("Content-Type").partition(";")[0].strip().lower()

    @property
    def ended(self) -> bool:
        """Whether the whole body was read."""
        return self._ended

    def read_some(self, limit: int = _PIECE) -> bytes:
        """Up to `limit` bytes of the body: what came within a moment, waiting for at least one; b"" at the end.
        Raises `Unreachable` when the body breaks off or stalls."""
        if self._ended:
            return b""
        if self._left is not None:
            limit = min(limit, self._left)
        with self._transport.talking(self.request, self._connection, self._cancel):
            data = self._raw.read1(limit) if self._connection.target.context is None else self._gather(limit)
        self._count(len(data))
        return data

    def _gather(self, limit: int) -> bytes:
        """TLS comes in records of 16 KiB: gather some, so that whoever writes them is not called for each."""
        data, size, deadline = memoryview(bytearray(limit)), 0, time.monotonic() + _GATHER_S
        while size < limit:
            count = self._raw.readinto(data[size : size + _SLICE])
            size += count
            if not count or time.monotonic() > deadline:
                break
        return bytes(data[:size])

    def _count(self, count: int) -> None:
        if self._left is not None:
            self._left -= count
            self._ended = self._left == 0
            if not count:
                raise Unreachable(self.request.method, self.request.url, "unexpected EOF")
        elif not count:
            self._ended = True

    def read_all(self, limit: int) -> bytes:
        """The whole body. Raises `RegistryError` when it is larger than `limit` bytes."""
        pieces, size = [], 0
        while data := self.read_some():
            size += len(data)
            if size > limit:
                raise RegistryError(f"{self.request.url}: the reply is larger than {limit} bytes")
            pieces.append(data)
        return b"".join(pieces)

    def read_start(self, limit: int = _DRAIN) -> bytes:
        """The first `limit` bytes of the body, for errors: what is wrong with the rest does not matter."""
        pieces, size = [], 0
        try:
            while size < limit and (data := self.read_some(limit - size)):
                size += len(data)
                pieces.append(data)
        except RegistryError:
            self._cancel.check()
        return b"".join(pieces)

    def abandon(self) -> None:
        """Close it without a look at the rest of the body."""
        self._raw.close()
        self._transport.give_back(self._connection, False)

    def close(self) -> None:
        try:
            if not self._ended and self._left is not None and self._left <= _DRAIN:
                self.read_start()
        finally:
            reusable = self._ended and not self._raw.will_close and not self._connection.spoilt
            self._raw.close()
            self._transport.give_back(self._connection, reusable)

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _length(raw: http.client.HTTPResponse) -> int | None:
    """The length that a reply announces, to HEAD too; None when it does not."""
    value = raw.headers.get("Content-Length", "")
    return int(value) if is_number(value) and len(value) < 20 and not raw.chunked else None


def is_number(value: str) -> bool:
    """Whether a header's value is a number as HTTP has them: `isdigit` takes superscripts."""
    return value.isascii() and value.isdecimal()


class Transport:
    """Sends requests. Safe for several threads; each has a connection of its own while it talks."""

    def __init__(self, config: RegistryConfig, contexts: Contexts, pool: Pool, cancel: Cancellation) -> None:
        self._config = config
        self._contexts = contexts
        self._pool = pool
        self.cancel = cancel
        self._closed = False
        pool.open()

    def close(self) -> None:
        """Nothing is sent any more. What is in use is closed by whoever uses it."""
        if not self._closed:
            self._closed = True
            self._pool.close()

    def send(self, request: Request, *, redirects: bool = True) -> Response:
        """The reply to `request`, after redirects. Raises `Unreachable`, `RegistryError`, `Cancelled`."""
        first = request
        for _ in range(_REDIRECTS_MAX):
            response = self._send_once(request)
            where = response.header("Location")
            if not redirects or response.status not in _REDIRECTS or not where:
                return response
            with response:
                request = _redirected(request, response.status, where)
        raise Unreachable(first.method, first.url, f"stopped after {_REDIRECTS_MAX} redirects", passing=False)

    def _send_once(self, request: Request) -> Response:
        """One exchange. A kept connection that turns out to be closed is replaced, once, unless the registry may have
        got a part of a blob over it."""
        connection = self._take(request)
        while True:
            try:
                return self._exchange(request, connection)
            except (http.client.RemoteDisconnected, ConnectionError) as error:
                connection.close()
                if connection.fresh or not isinstance(request.body, BytesBody | None):
                    raise _broken(request, error) from None
            except BaseException:
                connection.close()
                raise
            connection = self._connect(request)

    def _exchange(self, request: Request, connection: Connection) -> Response:
        with self.talking(request, connection, self.cancel, passed=(http.client.RemoteDisconnected, ConnectionError)):
            self._write(request, connection)
            raw = http.client.HTTPResponse(connection.sock, method=request.method)
            try:
                raw.begin()
            except BaseException:
                raw.close()  # it has the socket open, too
                raise
        return Response(request, raw, connection, self, self.cancel)

    def _write(self, request: Request, connection: Connection) -> None:
        target = request.url if connection.absolute else request.target
        lines = [f"{request.method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self._headers(request, connection).items()]
        if not all(line.isprintable() for line in lines):
            raise RegistryError(f"{request.url}: a header of the request has characters that no header may have")
        connection.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        if request.body is None:
            return
        try:
            request.body.write(connection.sock)
        except (BrokenPipeError, ConnectionResetError):
            self.cancel.check()
            connection.spoilt = True
            connection.sock.settimeout(1.0)  # a registry that refuses a body says why, then hangs up

    def _headers(self, request: Request, connection: Connection) -> dict[str, str]:
        headers = {"Host": request.host.authority, "User-Agent": self._config.user_agent, "Accept-Encoding": "identity"}
        if request.body is not None or request.method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(request.body.size if request.body else 0)
        if connection.absolute and (proxy := connection.target.proxy) and (value := proxy_authorization(proxy)):
            headers["Proxy-Authorization"] = value
        return headers | dict(request.headers)

    @contextmanager
    def talking(
        self, request: Request, connection: Connection, cancel: Cancellation, passed: tuple[type[Exception], ...] = ()
    ) -> Iterator[None]:
        """While the body talks over `connection`, cancelling breaks it off; what breaks is told as `Unreachable`, save
        the kinds of errors in `passed`."""
        sock = connection.sock
        try:
            with cancel.breaking(lambda: shut(sock)):
                yield
        except passed:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken(request, error) from None

    # -- connections

    def _take(self, request: Request) -> Connection:
        connection = self._pool.take(self._target(request))
        if connection is None:
            return self._connect(request)
        connection.sock.settimeout(self._config.stall_timeout)
        return connection

    def give_back(self, connection: Connection, reusable: bool) -> None:
        if reusable and not self.cancel.cancelled:
            self._pool.give(connection)
        else:
            connection.close()

    def _target(self, request: Request) -> Target:
        host = request.host
        through = not host.addresses  # a proxy would look the name up itself
        proxy = proxies.proxy_for(self._config.proxy, host.scheme, host.host, host.port) if through else None
        context = self._contexts.get(host.tls) if host.scheme == "https" else None
        return Target(host.host, host.port, context, proxy, host.addresses)

    def _connect(self, request: Request) -> Connection:
        target = self._target(request)
        try:
            sock = dial(target, self._config.connect_timeout, self.cancel)
        except DialError as error:
            raise Unconnected(request.method, request.url, str(error), passing=error.passing) from None
        sock.settimeout(self._config.stall_timeout)
        return Connection(target, sock)


def _redirected(request: Request, status: int, where: str) -> Request:
    """The request that a redirect asks for. Secrets go to no other origin, nothing from TLS to plain text."""
    parts = split_url(join_url(request.url, where))
    host = named_by(request.host, parts)
    if request.host.scheme == "https" and host.scheme != "https":
        reason = f"refusing to follow a redirect from https to {parts.scheme}://{parts.netloc}"
        raise Unreachable(request.method, request.url, reason, passing=False)
    headers = dict(request.headers)
    if host.origin == request.host.origin:
        host = request.host
    else:
        headers = {name: value for name, value in headers.items() if name.lower() in _PUBLIC}
    method, body = request.method, request.body
    if status in (301, 302, 303) and method not in ("GET", "HEAD"):
        raise Unreachable(method, request.url, f"unexpected redirect ({status}) to {parts.netloc}", passing=False)
    if request.private and host.origin != request.host.origin:
        raise Unreachable(method, request.url, f"refusing to follow a redirect to {parts.netloc}", passing=False)
    return Request(method, host, target_of(parts), headers, body, request.private)


def target_of(parts: SplitResult) -> str:
    """Path and query of a URL, as they are asked for."""
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _broken(request: Request, error: Exception) -> RegistryError:
    if isinstance(error, ssl.SSLError):
        failure = tls_failure(error)  # TLS 1.3 tells of refused certificates of clients after the handshake
        return Unreachable(request.method, request.url, str(failure), passing=failure.passing)
    return Unreachable(request.method, request.url, _reason(error), passing=not isinstance(error, ValueError))


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.RemoteDisconnected):
        return "EOF"
    if isinstance(error, http.client.IncompleteRead):
        return "unexpected EOF"
    if isinstance(error, http.client.BadStatusLine):
        line = str(error).removesuffix("\r\n")[:80]
        return f"net/http: HTTP/1.x transport connection broken: malformed HTTP response {goquote.quote(line)}"
    if isinstance(error, http.client.HTTPException):
        return f"malformed HTTP response: {str(error)[:200]}"
    if isinstance(error, TimeoutError):
        return "net/http: timeout awaiting the registry's reply"
    if isinstance(error, ConnectionError):
        return "read: connection reset by peer"
    return ((error.strerror if isinstance(error, OSError) else None) or str(error)).lower()
