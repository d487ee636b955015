"""A server with the whole API in front of a fake engine."""

import json
from types import SimpleNamespace

import pytest

from tests.api.fake import FakeEngine
from tests.http.harness import Running


@pytest.fixture
def engine(tmp_path):
    return FakeEngine(tmp_path)


@pytest.fixture
def server(engine):
    from wherry.api.router import build_app

    with Running("unix", build_app(engine)) as running:
        yield running


@pytest.fixture
def call(server):
    """`call(method, path, body=None, **headers)` → status, headers, body, and `json` where it is JSON."""

    def send(method, path, body=None, **headers):
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content_Type", "application/json")
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        with server.connect() as client:
            client.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
            if method == "HEAD":
                client.end()
                head = client.read_all()
                status, headers, data = int(head.split()[1]), _headers(head), b""
            else:
                status, headers, data = client.read_reply()
        is_json = headers.get("content-type") == "application/json" and data.count(b"\n") == 1
        decoded = json.loads(data) if is_json else None
        return SimpleNamespace(status=status, headers=headers, body=data, json=decoded)

    return send


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}
