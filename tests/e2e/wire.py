"""Conversations with an engine over its raw socket, written down so that those of two engines can be compared.

What differs from run to run (ids, times, addresses, process numbers) is replaced by a name; everything else, every
header and every field with its type, is kept.
"""

import json
import re
import socket
from typing import Any, NamedTuple
from urllib.parse import quote

TIMEOUT_S = 30
# Held by tests of their own, or up to the server: a long reply has chunks in Go, its length here.
_DROPPED = ("date", "server", "api-version", "docker-experimental", "ostype", "content-length", "transfer-encoding")
_PATTERNS = (
    ("id", r"\b[0-9a-f]{64}\b"),
    ("mac", r"\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b"),
    ("short", r"\b[0-9a-f]{12}\b"),
    ("time", r"\b(?!0001)[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(?:\.[0-9]+)?(?:Z|[+-][0-9:]{5})"),
    ("a while", r"(?<=^Up )[^(]+?(?=$| \()|(?<=\) )(?:[0-9]|About|Less)[\w ]+(?= ago$)"),
    ("ip", r"\b(?:172|10|192)\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\b"),
)
_VOLATILE = re.compile(
    "Pid|Created|time|timeNano|SizeRootFs|Size|VirtualSize|execDuration|Since|Source|Mountpoint|PublicPort|HostPort"
    "|UpperDir|LowerDir|MergedDir|WorkDir|SandboxKey|ResolvConfPath|HostnamePath|HostsPath|LogPath|MaskedPaths"
    "|KernelVersion"
)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One conversation. `call` is written down in `log`; `quietly` is not."""

    def __init__(self, address: str) -> None:
        self._path = address.removeprefix("unix://")
        self._names: dict[str, str] = {}
        self.log: list[Any] = []

    def quietly(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Reply:
        return self._exchange(request(method, path, body, headers or {}), method)

    def call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Reply:
        reply = self.quietly(method, path, body, headers)
        self.note(f"{method} {path}{_shown(body)}{_shown(headers)}", reply)
        return reply

    def raw(self, data: bytes, method: str = "GET", *, half_close: bool = False) -> Reply:
        """Send bytes as they are; of the reply only the status is written down."""
        reply = self._exchange(data, method, half_close)
        self.log.append([_shown(data).strip(), reply.status, {}, None])
        return reply

    def note(self, said: str, reply: Reply) -> None:
        headers = {name: value for name, value in reply.headers.items() if name not in _DROPPED}
        self.log.append([self.plain(said), reply.status, headers, self.normal(decoded(reply))])

    def clean_up(self) -> None:
        """Remove the containers of conversations, also of one that broke off."""
        for entry in self.quietly("GET", "/containers/json?all=1").json():
            if entry["Names"][0].startswith("/wire"):
                self.quietly("DELETE", f"/containers/{entry['Id']}?force=1&v=1")

    def remember(self, value: str, name: str) -> None:
        """Write `name` for `value` from now on."""
        self._names[value] = name

    # normal forms

    def normal(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {self.plain(k): self.normal(v, k) for k, v in value.items()}
        if isinstance(value, list):
            items = [self.normal(item, key) for item in value]
            return sorted(items, key=str) if key in ("Ports", "Mounts") else items  # Go's maps have no order
        if _VOLATILE.fullmatch(key) and value and not isinstance(value, bool):
            return f"<{type(value).__name__}>" if not str(value).startswith("0001-01-01") else value
        return self.plain(value) if isinstance(value, str) else value

    def plain(self, text: str) -> str:
        for value, name in self._names.items():
            text = text.replace(value, name)
        for kind, pattern in _PATTERNS:
            text = re.sub(pattern, f"<{kind}>", text)
        return text

    # the socket

    def _exchange(self, data: bytes, method: str, half_close: bool = False) -> Reply:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIMEOUT_S)
            sock.connect(self._path)
            try:
                sock.sendall(data)
            except BrokenPipeError:
                pass  # it was refused before it was whole
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            return read_reply(sock, method)


def request(method: str, path: str, body: object, headers: dict[str, str]) -> bytes:
    """One request as bytes, the last of its connection. `body` is sent as it is (bytes) or as JSON."""
    lines = {"Host": "docker", "Connection": "close"} | headers
    payload = b""
    if body is not None:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"Content-Type": "application/json"} | lines | {"Content-Length": str(len(payload))}
    elif method in ("POST", "PUT"):
        lines["Content-Length"] = "0"
    head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items() if value is not None)]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + payload


def read_reply(sock: socket.socket, method: str = "GET") -> Reply:
    """Read up to the end of the connection."""
    data = b""
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    except TimeoutError:
        return parse_reply(data + b" (and the connection stays open)", method)
    return parse_reply(data, method)


def parse_reply(data: bytes, method: str = "GET") -> Reply:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/"):
        return Reply(0, {}, data)
    headers: dict[str, str] = {}
    for name, _, value in (line.partition(": ") for line in lines):
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    if headers.get("transfer-encoding") == "chunked":
        body = unchunked(body)
    return Reply(int(first.split()[1]), headers, body)


def unchunked(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0] or b"0", 16)
        except ValueError:
            return out + size + data
        out, data = out + data[:length], data[length + 2 :]
    return out


def decoded(reply: Reply) -> Any:
    """JSON where it is some, a list where there are lines of it, else text."""
    try:
        return json.loads(reply.body)
    except ValueError:
        pass
    lines = reply.body.splitlines()
    try:
        return [json.loads(line) for line in lines] if len(lines) > 1 else reply.body.decode("utf-8", "replace")
    except ValueError:
        return reply.body.decode("utf-8", "replace")


def _shown(what: object) -> str:
    if what is None:
        return ""
    text = what.decode("latin-1") if isinstance(what, bytes) else json.dumps(what)
    return f" {text}" if len(text) < 300 else f" {text[:40]}… {len(text)}"


def filters(**wanted: str | list[str]) -> str:
    """The value of a `filters` parameter."""
    return quote(json.dumps({key.replace("__", "-"): [v] if isinstance(v, str) else v for key, v in wanted.items()}))
