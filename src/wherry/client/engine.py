"""The client: requests to one engine, version negotiation, errors, hijacked streams."""

from __future__ import annotations

from wherry.client.errors import APIError, BrokenReply, ClientError, ConnectionFailed
from wherry.client.http import Connection, Response
from wherry.client.transport import connect
from wherry.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from wherry.client.endpoints import Endpoint

    Query = dict[str, str] | list[tuple[str, str]] | None

MAX_VERSION = "1.51"
MAX_PARALLEL = 50
"""How many requests of one command are under way at once, as with Docker's CLI."""
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")


def quote(text: str, safe: str = "") -> str:
    """Percent-encode for a path segment or a query value."""
    keep = _SAFE.union(safe.encode()) if safe else _SAFE
    data = text.encode("utf-8", "surrogateescape")
    if all(byte in keep for byte in data):
        return text
    return "".join(chr(byte) if byte in keep else f"%{byte:02X}" for byte in data)


def version_key(version: str) -> tuple[int, ...]:
    """ "1.44" as numbers, to compare."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


class Engine:
    """A client of the engine at `endpoint`. `version` pins the API version; `headers` go with every request.

    Otherwise requests are made with the newest version we know, and the first reply, whose header names the engine's
    own, settles which one it is from then on: no request is spent on asking. An engine that is older refuses the first
    one (400, nothing done), which is then repeated.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        version: str = "",
        user_agent: str = "wherry",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.pinned = version
        self._version = version
        self._always = {**(headers or {}), "User-Agent": user_agent}
        self._idle: list[Connection] = []
        self._open: list[Connection] = []

    @property
    def version(self) -> str:
        """The API version in use, without "v"."""
        if not self._version:
            self.ping()
        return self._version

    def ping(self) -> dict[str, str]:
        """HEAD /_ping; returns the headers and settles the version as Docker's client does."""
        response = self._roundtrip("HEAD", "/_ping", None, None)
        if response.status == 404 or response.status >= 500:
            response = self._roundtrip("GET", "/_ping", None, None)
            response.read()
        self._release(response)
        if response.status >= 400:
            self._raise(response, b"")
        self._settle(response.headers.get("api-version") or "1.24")
        return response.headers

    def is_wherry(self) -> bool:
        """Whether the engine is one of ours, which can do more than Docker's; asks it."""
        platform: dict[str, str] = self.json("GET", "/version").get("Platform") or {}
        return platform.get("Name") == "wherry"

    def reach(self) -> None:
        """Connect, for the next request to use; raises ConnectionFailed."""
        if not self._idle:
            self._idle.append(self._connect())

    def _settle(self, theirs: str | None) -> None:
        if theirs and not self._version:
            self._version = min(theirs, MAX_VERSION, key=version_key)

    def _versioned(self, ask: Callable[[str], Response]) -> Response:
        """`ask(prefix)` with the prefix of the version in use; twice where the first reply teaches us another one."""
        assumed = self._version or MAX_VERSION
        response = ask(f"/v{assumed}")
        if self._version:
            return response
        self._settle(response.headers.get("api-version"))
        if response.status != 400 or self.version == assumed:
            return response
        response.connection.close()
        return ask(f"/v{self.version}")

    def request(
        self,
        method: str,
        path: str,
        query: Query = None,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        accept: tuple[int, ...] = (),
        meanwhile: Callable[[], None] | None = None,
    ) -> Response:
        """Send a request and return the response, body unread. Statuses of 400 and above raise APIError.

        `body` is a JSON value, or bytes or an iterable of bytes to be sent as they are. `accept` names error statuses
        that are results here. `meanwhile` is called between sending and reading.
        """
        extra = dict(headers or {})
        payload: bytes | Iterable[bytes] | None = body
        if body is not None and (isinstance(body, (dict, list, str)) or not hasattr(body, "__iter__")):
            payload = _encoded(body)
            extra["Content-Type"] = "application/json"
        if not (payload is None or isinstance(payload, bytes)):
            _ = self.version  # a stream cannot be sent twice
        response = self._versioned(
            lambda prefix: self._roundtrip(method, prefix + path, query, payload, extra, meanwhile)
        )
        if response.status >= 400 and response.status not in accept:
            data = response.read()
            self._release(response)
            self._raise(response, data)
        if response.status in (301, 307, 308):  # for a path with an empty name; what is there is no object
            response.read()
            self._release(response)
            raise APIError(404, "page not found" if method == "GET" else "unexpected redirect in response")
        return response

    def json(
        self,
        method: str,
        path: str,
        query: Query = None,
        body: Any = None,
        meanwhile: Callable[[], None] | None = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """A request whose reply is JSON, decoded (None when empty)."""
        response = self.request(method, path, query, body, headers=headers, meanwhile=meanwhile)
        data = response.read()
        self._release(response)
        return loads(data) if data else None

    def call(
        self, method: str, path: str, query: Query = None, body: Any = None, *, accept: tuple[int, ...] = ()
    ) -> int:
        """A request whose reply does not matter beyond its status, which is returned; `accept` as for `request`."""
        response = self.request(method, path, query, body, accept=accept)
        response.read()
        self._release(response)
        return response.status

    def request_all(
        self, requests: Iterable[tuple[str, str, dict[str, str] | None]]
    ) -> Iterator[Callable[[], Response]]:
        """Send (method, path, query) requests without bodies side by side, MAX_PARALLEL of them at most.

        Yields a function per request, to be called before the next is asked for: it waits for the response and
        returns it, body unread, or raises APIError.
        """
        listed = list(requests)
        if len(listed) == 1:
            method, path, query = listed[0]
            yield lambda: self.request(method, path, query)
            return
        prefix = f"/v{self.version}"
        waiting: list[Callable[[], Response]] = []
        for method, path, query in listed:
            waiting.append(self._begin(method, prefix + path, query))
            if len(waiting) == MAX_PARALLEL:
                yield waiting.pop(0)
        yield from waiting

    def _begin(self, method: str, path: str, query: Query) -> Callable[[], Response]:
        """Send a request on a connection of its own; the function returned collects the response."""
        connection = self._idle.pop() if self._idle else self._connect()
        connection.send_request(method, self._target(path, query), self._headers(None), None)

        def collect() -> Response:
            response = connection.read_response(method)
            if response.status >= 400:
                self._raise(response, response.read())
            return response

        return collect

    def hijack(
        self, path: str, query: Query = None, body: Any = None, meanwhile: Callable[[], None] | None = None
    ) -> Response:
        """POST with an upgrade; the reply's `connection` is the raw stream from then on. Raises APIError.

        `meanwhile` is called between sending and reading: what we do there, we do while the engine works.
        """
        headers = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Type": "application/json"}
        payload = _encoded(body) if body is not None else None
        connection = self._connect()
        connection.send_request("POST", self._target(f"/v{self.version}{path}", query), self._headers(headers), payload)
        if meanwhile:
            meanwhile()
        response = connection.read_response("POST")
        if response.status not in (101, 200):
            self._raise(response, response.read())
        return response

    def done(self, response: Response) -> None:
        """Give back the connection of a response that was read to its end, for the next request."""
        self._release(response)

    def close(self) -> None:
        """Close every connection this client made; responses and hijacked streams end too."""
        for connection in self._open:
            connection.close()
        self._idle, self._open = [], []

    def _connect(self) -> Connection:
        connection = Connection(connect(self.endpoint))
        self._open.append(connection)
        return connection

    def _target(self, path: str, query: Query) -> str:
        listed = query.items() if isinstance(query, dict) else query or ()
        pairs = "&".join(f"{key}={quote(value, ' ').replace(' ', '+')}" for key, value in listed)
        base = self.endpoint.base_path if self.endpoint.scheme == "tcp" else ""
        return f"{base}{path}" + (f"?{pairs}" if pairs else "")

    def _headers(self, extra: dict[str, str] | None) -> dict[str, str]:
        host = "api.moby.localhost" if self.endpoint.scheme != "tcp" else self.endpoint.address
        return {"Host": host, **self._always, **(extra or {})}

    def _roundtrip(
        self,
        method: str,
        path: str,
        query: Query,
        body: Any,
        headers: dict[str, str] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Response:
        target = self._target(path, query)
        reused = bool(self._idle)
        connection = self._idle.pop() if reused else self._connect()
        try:
            connection.send_request(method, target, self._headers(headers), body)
            if meanwhile:
                meanwhile()
            return connection.read_response(method)
        except (BrokenReply, ConnectionFailed) as error:
            connection.close()
            if not reused or not (body is None or isinstance(body, bytes)):
                raise ConnectionFailed(f"error during connect: {error}") from error
        # An idle connection may have been closed by the engine in between: once more, on a fresh one.
        connection = self._connect()
        connection.send_request(method, target, self._headers(headers), body)
        return connection.read_response(method)

    def _release(self, response: Response) -> None:
        if response.reusable and not response.connection.buffer:
            self._idle.append(response.connection)
        else:
            response.connection.close()

    def _raise(self, response: Response, data: bytes) -> None:
        raise APIError(response.status, _error_text(self, response, data))


def _error_text(engine: Engine, response: Response, data: bytes) -> str:
    if response.headers.get("content-type", "").startswith("application/json"):
        try:
            value = loads(data)
        except ValueError:
            value = None
        if isinstance(value, dict) and isinstance(value.get("message"), str):
            return str(value["message"]).strip()
    text = data.decode("utf-8", "replace").strip()
    if not text:
        text = f"request returned {response.status} {response.reason} for API route and version {engine.endpoint.url}"
    return text


__all__ = ["APIError", "ClientError", "Engine", "quote", "version_key"]


def _encoded(body: Any) -> bytes:
    """JSON in UTF-8. What arguments have of bytes that are none (as Python keeps them, PEP 383) is replaced one by one,
    as the docker CLI does."""
    text = dumps(body)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text).encode()
