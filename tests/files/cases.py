"""What clients do to the files of containers, as one script of named steps: run against Docker it records what is
expected (`record.py`), run against ours it is the test (`test_as_docker.py`)."""

import base64
import http.client
import io
import json
import socket
import tarfile
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

IMAGE = "wherry-files"


class Client:
    """The raw API of an engine behind a unix socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def call(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", chunked: bool = False
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(self.path)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if data is not None else {}
        payload = iter([data]) if chunked else data
        connection.request(method, f"/v1.51{path}", payload, headers, encode_chunked=chunked)
        reply = connection.getresponse()
        answer = reply.status, dict(reply.getheaders()), reply.read()
        connection.close()
        return answer

    def json(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        status, _, data = self.call(method, path, body)
        return status, json.loads(data) if data.strip() else None


def tar(*members: dict[str, Any]) -> bytes:
    """An archive of `{"name", "data" | "type", "link", "mode", "uid", "gid", "mtime", "pax"}` members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(member["name"])
            data = member.get("data", b"")
            info.size, info.mode = len(data), member.get("mode", 0o644)
            info.type = member.get("type", tarfile.REGTYPE)
            info.linkname = member.get("link", "")
            info.uid, info.gid, info.mtime = (
                member.get("uid", 0),
                member.get("gid", 0),
                member.get("mtime", 1_600_000_000),
            )
            info.devmajor, info.devminor = member.get("device", (0, 0))
            info.pax_headers = member.get("pax", {})
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def listing(data: bytes) -> list[list[Any]]:
    """The members of an archive: name, type, permissions, owner, size, link, content of what is short."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            file = archive.extractfile(info) if info.isreg() else None
            content = file.read(100).decode("latin-1") if file else ""
            kind = info.type.decode()
            pax = {k: v for k, v in info.pax_headers.items() if "xattr" in k}
            found.append(
                [info.name, kind, oct(info.mode & 0o7777), info.uid, info.gid, info.size, info.linkname, content, pax]
            )
    return found


class Lab:
    """One engine, its containers by nickname, and what was answered."""

    def __init__(self, path: str) -> None:
        self.client = Client(path)
        self.ids: dict[str, str] = {}

    def shown(self, text: str) -> str:
        for name, container_id in self.ids.items():
            text = text.replace(container_id, f"<{name}>").replace(container_id[:12], f"<{name}>")
        return text

    def create(self, name: str, body: dict[str, Any] | None = None, *, start: bool = False) -> None:
        asked = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}, **(body or {})}
        status, answer = self.client.json("POST", "/containers/create", asked)
        assert status == 201, answer
        self.ids[name] = answer["Id"]
        if start:
            self.post(name, "start")

    def post(self, name: str, verb: str) -> None:
        status, _, data = self.client.call("POST", f"/containers/{self.ids[name]}/{verb}")
        assert status in (200, 204), (verb, status, data)

    def sh(self, name: str, script: str) -> str:
        """Run a script in a container; its output."""
        body = {"Cmd": ["sh", "-c", script], "AttachStdout": True, "AttachStderr": True, "Tty": True}
        status, answer = self.client.json("POST", f"/containers/{self.ids[name]}/exec", body)
        assert status == 201, answer
        _, _, data = self.client.call("POST", f"/exec/{answer['Id']}/start", {"Tty": True})
        while self.client.json("GET", f"/exec/{answer['Id']}/json")[1]["Running"]:
            time.sleep(0.02)
        return data.decode().replace("\r\n", "\n")

    def close(self) -> None:
        for container_id in self.ids.values():
            self.client.call("DELETE", f"/containers/{container_id}?force=1&v=1")

    # archive

    def head(self, name: str, path: str | None) -> list[Any]:
        status, headers, _ = self.client.call("HEAD", self._archive(name, path))
        return [status, _stat(headers)]

    def get(self, name: str, path: str | None) -> list[Any]:
        status, headers, data = self.client.call("GET", self._archive(name, path))
        if status != 200:
            return [status, self.shown(data.decode())]
        return [status, headers.get("Content-Type"), _stat(headers), sorted(listing(data))]

    def put(self, name: str, path: str | None, data: bytes, query: str = "", *, chunked: bool = False) -> list[Any]:
        target = self._archive(name, path) + query
        status, _, answer = self.client.call("PUT", target, data, content_type="application/x-tar", chunked=chunked)
        return [status, self.shown(answer.decode())]

    def _archive(self, name: str, path: str | None) -> str:
        query = "" if path is None else f"path={urllib.parse.quote(path)}"
        return f"/containers/{self.ids.get(name, name)}/archive?{query}"


def _stat(headers: dict[str, str]) -> dict[str, Any] | None:
    text = headers.get("X-Docker-Container-Path-Stat")
    if text is None:
        return None
    stat = json.loads(base64.b64decode(text, validate=True))
    assert isinstance(stat.pop("mtime"), str)
    return stat


Step = Callable[[Lab], Any]
