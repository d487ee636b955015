"""GET of a URL whose body is read as it comes, and may be broken off. Loads much of the standard library: import it
where it is needed."""

import http.client
import socket
from collections.abc import Callable
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from wherry.errors import Forbidden, Internal, InvalidArgument, NotFound, Unauthorized, WherryError
from wherry.registry.cancel import Cancellation
from wherry.registry.dial import shut

_TIMEOUT_S = 60
_BODY_SHOWN = 4096
_KINDS: dict[int, type[WherryError]] = {404: NotFound, 400: InvalidArgument, 401: Unauthorized, 403: Forbidden}
_BROKEN = "net/http: HTTP/1.x transport connection broken"

Connected = Callable[[socket.socket], None]


class Body:
    """The body of a reply. Close it."""

    def __init__(self, url: str, cancellation: Cancellation) -> None:
        """Ask for `url`. Raises with Docker's words, `Cancelled`."""
        self._cancellation = cancellation
        self._sockets: list[socket.socket] = []
        with cancellation.breaking(self._break):
            self._reply = _open(url, self._connected)
        try:
            self.total = _length(url, self._reply)
        except BaseException:
            self.close()
            raise
        self.current = 0

    def read(self, limit: int) -> bytes:
        """Up to `limit` bytes, as they come; b"" at the end. Raises `Internal` where it breaks off, `Cancelled`."""
        if self.total is not None:
            limit = min(limit, self.total - self.current)
        if not limit:
            return b""
        try:
            with self._cancellation.breaking(self._break):
                data: bytes = self._reply.read1(limit)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Internal(f"unexpected EOF: {error}") from error
        self._cancellation.check()
        self.current += len(data)
        if not data and self.total is not None:
            raise Internal("unexpected EOF")
        return data

    def _connected(self, sock: socket.socket) -> None:
        self._sockets.append(sock)
        self._cancellation.check()

    def _break(self) -> None:
        for sock in self._sockets:
            shut(sock)

    def close(self) -> None:
        """Hang up."""
        self._reply.close()

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _length(url: str, reply: Any) -> int | None:
    """The length of a body that tells it."""
    value = reply.headers.get("Content-Length")
    if value is None or reply.chunked:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise Internal(f'Get "{url}": {_BROKEN}: bad Content-Length "{value[:40]}"')
    return int(value)


def _open(url: str, connected: Connected) -> Any:
    """The reply to a GET; `connected` gets the sockets it is asked through."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise Internal(f'Get "{url}": unsupported protocol scheme "{parts.scheme}"')
    if not parts.hostname:
        raise Internal(f'Get "{parts.scheme}:": http: no Host in request URL')
    try:
        return _opener(connected).open(url, timeout=_TIMEOUT_S)
    except HTTPError as error:
        raise _refused(url, error) from None
    except http.client.HTTPException as error:
        raise Internal(f'Get "{url}": {_BROKEN}: {error or type(error).__name__}') from None
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ConnectionRefusedError):
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            reason = f"dial tcp {parts.hostname}:{port}: connect: connection refused"
        raise Internal(f'Get "{url}": {reason}') from None


def _refused(url: str, error: HTTPError) -> WherryError:
    try:
        with error:
            body = error.read(_BODY_SHOWN).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        body = ""
    kind = _KINDS.get(error.code, Internal)
    return kind(f"failed to GET {url} with status {error.code} {error.reason}: {body}")


def _opener(connected: Connected) -> request.OpenerDirector:
    """HTTP and HTTPS, through the environment's proxies, with redirects to no other kind of place."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        _Http(connected),
        _Https(connected),
        request.HTTPRedirectHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


class _Connection(http.client.HTTPConnection):
    connected: Connected

    def connect(self) -> None:
        super().connect()
        self.connected(self.sock)


class _TlsConnection(http.client.HTTPSConnection):
    connected: Connected

    def connect(self) -> None:
        super().connect()
        self.connected(self.sock)


class _Http(request.HTTPHandler):
    def __init__(self, connected: Connected) -> None:
        super().__init__()
        self._connected = connected

    def http_open(self, req: request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **options: Any) -> http.client.HTTPConnection:
        connection = _Connection(host, **options)
        connection.connected = self._connected
        return connection


class _Https(request.HTTPSHandler):
    def __init__(self, connected: Connected) -> None:
        super().__init__()
        self._connected = connected

    def https_open(self, req: request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **options: Any) -> http.client.HTTPConnection:
        connection = _TlsConnection(host, **options)
        connection.connected = self._connected
        return connection
