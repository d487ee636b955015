"""A scripted engine on a unix socket: it records every request and answers from a table.

Both the expectations (recorded once from the docker CLI by `record.py`) and the tests of our own CLI talk to it, so
that a comparison sees the same engine on both sides.
"""

import json
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

CONTAINER_ID = "4f1a6e0c9b7d2e8f3a5c6b7d8e9f0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b"


class Request(NamedTuple):
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    status: int = 200
    body: bytes | Callable[[], bytes] = b""  # a function is called when the head has been sent
    content_type: str = "application/json"
    hijack: Callable[[socket.socket, bytes], None] | None = None


def as_json(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode())


class FakeEngine:
    """Serves `routes` ({"GET /path": Reply or callable(Request) -> Reply}; paths without the version prefix)."""

    def __init__(self, socket_path: str, routes: dict[str, Any] | None = None) -> None:
        self.socket_path = socket_path
        self.host = f"unix://{socket_path}"
        self.requests: list[Request] = []
        self.routes: dict[str, Any] = {
            "HEAD /_ping": Reply(200, b"", "text/plain; charset=utf-8"),
            "GET /_ping": Reply(200, b"OK", "text/plain; charset=utf-8"),
            "POST /containers/create": as_json({"Id": CONTAINER_ID, "Warnings": []}, 201),
            **(routes or {}),
        }
        self._listener = socket.socket(socket.AF_UNIX)
        if os.path.exists(socket_path):
            os.unlink(socket_path)
        self._listener.bind(socket_path)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> "FakeEngine":
        return self

    def __exit__(self, *args: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)
        os.unlink(self.socket_path)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            buffer = b""
            try:
                while (read := _read_request(connection, buffer)) is not None:
                    request, buffer = read
                    self.requests.append(request)
                    reply = self._answer(request)
                    if reply.hijack:
                        connection.sendall(
                            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: "
                            + reply.content_type.encode()
                            + b"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
                        )
                        reply.hijack(connection, buffer)
                        return
                    _send_reply(connection, request, reply)
            except (ConnectionError, BrokenPipeError):
                return

    def _answer(self, request: Request) -> Reply:
        found = self.routes.get(f"{request.method} {request.path}")
        if found is None:
            return as_json({"message": "page not found"}, 404)
        return found(request) if callable(found) else found

    def bodies(self, route: str) -> list[Any]:
        """The decoded JSON bodies of the requests to one route, e.g. "POST /containers/create"."""
        return [json.loads(r.body) for r in self.requests if f"{r.method} {r.path}" == route and r.body]


def _read_request(connection: socket.socket, buffer: bytes) -> tuple[Request, bytes] | None:
    while b"\r\n\r\n" not in buffer:
        if not (chunk := connection.recv(65536)):
            return None
        buffer += chunk
    head, _, rest = buffer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    method, target, _ = lines[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    body, rest = _read_body(connection, headers, rest)
    path, _, query = target.partition("?")
    if path.startswith("/v1."):
        path = "/" + path.split("/", 2)[2]
    return Request(method, path, query, headers, body), rest


def _read_body(connection: socket.socket, headers: dict[str, str], rest: bytes) -> tuple[bytes, bytes]:
    def more() -> bytes:
        if not (chunk := connection.recv(65536)):
            raise ConnectionError("the client went away")
        return chunk

    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            while b"\r\n" not in rest:
                rest += more()
            size_line, _, rest = rest.partition(b"\r\n")
            size = int(size_line, 16)
            while len(rest) < size + 2:
                rest += more()
            body, rest = body + rest[:size], rest[size + 2 :]
            if size == 0:
                return body, rest
    length = int(headers.get("content-length", "0"))
    while len(rest) < length:
        rest += more()
    return rest[:length], rest[length:]


def _send_reply(connection: socket.socket, request: Request, reply: Reply) -> None:
    head = (
        f"HTTP/1.1 {reply.status} Status\r\nApi-Version: 1.51\r\nOstype: linux\r\nServer: Docker/28.5.2 (linux)\r\n"
        f"Docker-Experimental: false\r\nBuilder-Version: 2\r\n"
    )
    if callable(reply.body):
        connection.sendall(f"{head}Content-Type: {reply.content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        body = reply.body()
        connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        return
    if reply.status not in (204, 304):
        head += f"Content-Type: {reply.content_type}\r\nContent-Length: {len(reply.body)}\r\n"
    connection.sendall(head.encode() + b"\r\n" + (b"" if request.method == "HEAD" else reply.body))
