"""Registries for tests: Debian's docker-registry, and one in Python that does what a test tells it, good or evil.

All listen on addresses of a network namespace of the test, or of the one that `netns` names: nothing leaves the
machine.
"""

import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from wherry.linux import netns as namespaces
from wherry.linux.syscalls import NR, syscall

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CLONE_NEWNET = 0x40000000


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


# -- images


@dataclass
class Image:
    """A small image as a registry holds it."""

    manifest: bytes
    config: bytes
    layers: list[bytes]
    media_type: str = MANIFEST

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def blobs(self) -> dict[str, bytes]:
        return {digest_of(blob): blob for blob in (self.config, *self.layers)}


def make_layer(files: dict[str, bytes]) -> bytes:
    """A gzip layer with `files`."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), 1, mtime=0)


def make_image(layers: list[bytes], config: dict[str, Any] | None = None, architecture: str = "amd64") -> Image:
    """An image of gzip layers; `config`: Cmd, Env, …"""
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(gzip.decompress(layer)) for layer in layers]},
        "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
    }
    raw = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(raw), "size": len(raw)},
        "layers": [{"mediaType": LAYER, "digest": digest_of(layer), "size": len(layer)} for layer in layers],
    }
    return Image(json.dumps(manifest).encode(), raw, layers)


# -- sockets


def in_netns(name: str | None, function: Callable[[], Any]) -> Any:
    """Call `function` in the network namespace of `ip netns add NAME`; in the current one for None."""
    if name is None:
        return function()

    def enter() -> Any:
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscall(NR.setns, fd, _CLONE_NEWNET)
        finally:
            os.close(fd)
        return function()

    return namespaces.on_own_thread(enter)


def listen(address: str = "127.0.0.1", port: int = 0, netns: str | None = None) -> socket.socket:
    """A listening TCP socket in a network namespace; port 0 is any that is free."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = in_netns(netns, lambda: socket.socket(family, socket.SOCK_STREAM))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen(64)
    return sock


def free_port(netns: str | None = None) -> int:
    """A port that nothing listens on."""
    with listen(netns=netns) as sock:
        return sock.getsockname()[1]


def server_tls(certificate: Any, *, client_ca: Any = None) -> ssl.SSLContext:
    """TLS of a server by trustme's `certificate`; `client_ca`: only clients of that authority are let in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if client_ca is not None:
        client_ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


# -- the real registry


class DockerRegistry:
    """Debian's docker-registry. A context manager; `address` is `host:port`."""

    def __init__(
        self, *, address: str = "127.0.0.1", port: int = 0, netns: str | None = None, **configuration: Any
    ) -> None:
        """`configuration`: sections of its YAML besides storage and http.addr (`auth=…`, `http={"tls": …}`)."""
        self.netns = netns
        self.host = address
        self.port = port or free_port(netns)
        self.root = Path(tempfile.mkdtemp(prefix="wherry-registry-", dir="/tmp"))
        self._configuration = configuration
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def log(self) -> str:
        return (self.root / "log").read_text(errors="replace")[-8000:]

    def start(self) -> "DockerRegistry":
        configuration: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self.root / "data")}, "delete": {"enabled": True}},
            **self._configuration,
        }
        configuration["http"] = {"addr": self.address, "secret": "same", **configuration.get("http", {})}
        (self.root / "config.yml").write_text(yaml.safe_dump(configuration))
        prefix = ["setpriv", "--pdeathsig", "KILL"]  # a test that is killed leaves nothing behind
        prefix += ["nsenter", f"--net=/run/netns/{self.netns}"] if self.netns else []
        command = [
            *prefix,
            shutil.which("docker-registry") or "docker-registry",
            "serve",
            str(self.root / "config.yml"),
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        with open(self.root / "log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        self._await()
        return self

    def _await(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, self.log()
            with contextlib.suppress(OSError), in_netns(self.netns, self._connect):
                return
            time.sleep(0.02)
        raise AssertionError(f"docker-registry does not listen\n{self.log()}")

    def _connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=5)

    def stop(self) -> None:
        """End it; what it holds stays, `start` brings it back."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> "DockerRegistry":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


# -- a registry that obeys


@dataclass
class Seen:
    """One request that came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes = b""

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class Exchange:
    """A request and the means to answer it, rightly or wrongly."""

    def __init__(self, handler: BaseHTTPRequestHandler, seen: Seen) -> None:
        self._handler = handler
        self.seen = seen

    def reply(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, length: int | None = None,
        reason: str | None = None,
    ) -> None:  # fmt: skip
        """Answer. `length`: the Content-Length to claim."""
        handler = self._handler
        handler.send_response(status, reason)
        headers = headers or {}
        for name, value in headers.items():
            handler.send_header(name, value)
        if "Transfer-Encoding" not in headers and "Content-Length" not in headers:
            handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        if self.seen.method != "HEAD":
            handler.wfile.write(body)

    def json(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        self.reply(status, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.json(status, {"errors": [{"code": code, "message": message, "detail": {}}]}, headers)

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def hang_up(self, *, reset: bool = False) -> None:
        """Close the connection; `reset`: as a host that died."""
        connection = self._handler.connection
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._handler.close_connection = True
        if reset:
            connection.detach() if isinstance(connection, ssl.SSLSocket) else None
            connection.close()
        else:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def pass_on(self, host: str, port: int, count: int) -> None:
        """Have another server answer, and close the connection. When it gets but `count` bytes of a longer body, its
        answer is kept. For servers with `reads_bodies` False."""
        seen, handler = self.seen, self._handler
        head = "".join(f"{name}: {value}\r\n" for name, value in seen.headers.items() if name != "connection")
        with socket.create_connection((host, port)) as server:
            start = f"{seen.method} {handler.path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n"
            server.sendall(start.encode() + self.read_body(count))
            whole = count == int(seen.headers.get("content-length", 0))
            if not whole:
                server.shutdown(socket.SHUT_WR)
            while data := server.recv(65536):
                handler.wfile.write(data if whole else b"")
        handler.close_connection = True

    def read_body(self, count: int) -> bytes:
        """The first `count` bytes of the body. For servers with `reads_bodies` False."""
        return self._handler.rfile.read(count)

    def wait_for_hang_up(self) -> None:
        """Say nothing until the client goes away."""
        with contextlib.suppress(OSError):
            self._handler.connection.recv(1)
        self._handler.close_connection = True


Rule = Callable[[Exchange], bool | None]


@dataclass
class Store:
    """What a registry holds: blobs, and manifests as (media type, data) by `repository:tag` and `repository@digest`."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def put(self, repository: str, tag: str, image: Image) -> Image:
        self.blobs.update(image.blobs)
        self.put_manifest(repository, tag, image.manifest, image.media_type)
        return image

    def put_manifest(self, repository: str, tag: str, data: bytes, media_type: str) -> str:
        self.manifests[f"{repository}:{tag}"] = self.manifests[f"{repository}@{digest_of(data)}"] = (media_type, data)
        return digest_of(data)

    def manifest(self, repository: str, reference: str) -> tuple[str, bytes] | None:
        return self.manifests.get(f"{repository}{'@' if ':' in reference else ':'}{reference}")


class Server:
    """An HTTP server in threads, that records what it is asked: `requests`. `rules` are tried first, in order: one that
    returns False leaves the request to those after it. A context manager."""

    def __init__(
        self, *, address: str = "127.0.0.1", port: int = 0, netns: str | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[Seen] = []
        self.rules: list[Rule] = []
        self.connections = 0
        self.reads_bodies = True
        self._lock = threading.Lock()
        self._server = _Threads(self, listen(address, port, netns), tls)
        self.host = address
        self.port: int = self._server.socket.getsockname()[1]
        self.scheme = "https" if tls else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    def rule(self, pattern: str, times: int = -1) -> Callable[[Rule], Rule]:
        """Decorator: the function answers what matches `METHOD path`, so often."""
        left = [times]

        def decorate(function: Rule) -> Rule:
            def answer(exchange: Exchange) -> bool | None:
                if not re.fullmatch(pattern, exchange.seen.line):
                    return False
                with self._lock:
                    if not left[0]:
                        return False
                    left[0] -= 1
                return function(exchange)

            self.rules.append(answer)
            return function

        return decorate

    def asked(self, pattern: str) -> list[Seen]:
        """The requests so far whose `METHOD path` matches."""
        return [seen for seen in list(self.requests) if re.fullmatch(pattern, seen.line)]

    def answer(self, exchange: Exchange) -> None:
        """What no rule answers."""
        exchange.reply(404)

    def handle(self, exchange: Exchange) -> None:
        for rule in list(self.rules):
            if rule(exchange) is not False:
                return
        self.answer(exchange)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, owner: Server, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        super().__init__(sock.getsockname(), _handler(owner), bind_and_activate=False)
        self.socket.close()
        self.socket = sock
        self._tls = tls
        self._owner = owner

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._owner.connections += 1
        if self._tls is None:
            self.RequestHandlerClass(request, client_address, self)
            return
        with self._tls.wrap_socket(request, server_side=True) as secured:
            self.RequestHandlerClass(secured, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up here, and that is what is tested."""


def _handler(owner: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            owner.handle(Exchange(self, self._seen()))
            with contextlib.suppress(ValueError):
                self.wfile.flush()

        def _seen(self) -> Seen:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen = Seen(self.command, parts.path, parse_qs(parts.query), headers)
            owner.requests.append(seen)
            if owner.reads_bodies and (length := int(headers.get("content-length", 0))):
                seen.body = self.rfile.read(length)
            return seen

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


_REPOSITORY = r"/v2/(?P<name>[a-z0-9./_-]+)"


class PythonRegistry(Server):
    """A registry that holds `store`; its `rules` make it evil. `challenge`: the WWW-Authenticate of who comes without
    an `Authorization` that `accepts`."""

    def __init__(self, store: Store | None = None, *, challenge: str = "", **options: Any) -> None:
        self.store = store or Store()
        self.challenge = challenge
        self.accepts: Callable[[str, Seen], bool] = lambda authorization, seen: bool(authorization)
        self.ranges = True
        super().__init__(**options)

    def answer(self, exchange: Exchange) -> None:
        seen = exchange.seen
        if self.challenge and not self.accepts(seen.headers.get("authorization", ""), seen):
            headers = {"WWW-Authenticate": self.challenge}
            exchange.error(401, "UNAUTHORIZED", "authentication required", headers)
        elif seen.path == "/v2/":
            exchange.json(200, {}, {"Docker-Distribution-Api-Version": "registry/2.0"})
        elif match := re.fullmatch(_REPOSITORY + r"/manifests/(?P<reference>[^/]+)", seen.path):
            self._manifest(exchange, match["name"], match["reference"])
        elif match := re.fullmatch(_REPOSITORY + r"/blobs/(?P<digest>[^/]+)", seen.path):
            self._blob(exchange, match["digest"])
        else:
            exchange.error(404, "NAME_UNKNOWN", "repository name not known to registry")

    def _manifest(self, exchange: Exchange, name: str, reference: str) -> None:
        found = self.store.manifest(name, reference)
        if found is None:
            exchange.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            return
        media_type, data = found
        exchange.reply(200, data, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(data)})

    def _blob(self, exchange: Exchange, digest: str) -> None:
        data = self.store.blobs.get(digest)
        if data is None:
            exchange.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
            return
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        match = re.fullmatch(r"bytes=(\d+)-", exchange.seen.headers.get("range", ""))
        if not match or not self.ranges:
            exchange.reply(200, data, headers)
            return
        first = int(match[1])
        headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        exchange.reply(206, data[first:], headers)


class Uploads:
    """Makes a registry take uploads, by the rules. `open` are those that are not finished. `chunk_min`: the least size
    of a chunk; `base`: what Locations begin with."""

    def __init__(self, registry: PythonRegistry, *, chunk_min: int = 0, base: str = "") -> None:
        self.open: dict[str, bytes] = {}
        self._registry = registry
        self._chunk_min = chunk_min
        self._base = base
        self._number = 0
        path = _REPOSITORY.replace("?P<name>", "") + "/blobs/uploads/"
        registry.rule(f"POST {path}")(self._start)
        registry.rule(f"(PATCH|PUT|GET|DELETE) {path}.+")(self._go_on)

    def _start(self, exchange: Exchange) -> None:
        self._number += 1
        key = f"{exchange.seen.path}{self._number}"
        self.open[key] = b""
        headers = {"OCI-Chunk-Min-Length": str(self._chunk_min)} if self._chunk_min else {}
        self._tell(exchange, 202, key, headers)

    def _tell(self, exchange: Exchange, status: int, key: str, headers: dict[str, str] | None = None) -> None:
        have = len(self.open[key])
        where = {"Location": f"{self._base}{key}?state={have}", "Range": f"0-{max(0, have - 1)}"}
        exchange.reply(status, b"", {**where, **(headers or {})})

    def _go_on(self, exchange: Exchange) -> None:
        seen, key = exchange.seen, exchange.seen.path
        if key not in self.open:
            exchange.error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        elif seen.method != "GET" and seen.query["state"] != [str(len(self.open[key]))]:
            exchange.reply(400, b"the state is another")
        elif seen.method == "GET":
            self._tell(exchange, 204, key)
        elif seen.method == "DELETE":
            del self.open[key]
            exchange.reply(204)
        elif seen.method == "PATCH":
            self._append(exchange, key)
        else:
            self._finish(exchange, key)

    def _append(self, exchange: Exchange, key: str) -> None:
        first, _, last = exchange.seen.headers["content-range"].partition("-")
        have, body = len(self.open[key]), exchange.seen.body
        if int(first) != have or int(last) != have + len(body) - 1:
            self._tell(exchange, 416, key)
            return
        self.open[key] += body
        self._tell(exchange, 202, key)

    def _finish(self, exchange: Exchange, key: str) -> None:
        blob, (digest,) = self.open.pop(key) + exchange.seen.body, exchange.seen.query["digest"]
        if digest_of(blob) != digest:
            exchange.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            return
        self._registry.store.blobs[digest] = blob
        exchange.reply(201, b"", {"Docker-Content-Digest": digest, "Location": f"/v2/x/blobs/{digest}"})

    def take(self, exchange: Exchange, count: int) -> None:
        """Keep the first bytes of a body that is not answered."""
        self.open[exchange.seen.path] += exchange.read_body(count)


# -- tokens


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer(Server):
    """Gives tokens that docker-registry believes, where `configuration` is its `auth` section. `users` are names and
    passwords; `grant(user, scope)` says what actions somebody has ("" is anonymous). An identity token is the user's
    name after `identity-`."""

    SERVICE = "test registry"

    def __init__(self, directory: Path, users: dict[str, str], **options: Any) -> None:
        super().__init__(**options)
        self.users = users
        self.grant: Callable[[str, str], list[str]] = lambda user, name: ["pull", "push"] if user else []
        self.life = 300
        authority = trustme.CA(key_type=trustme.KeyType.RSA)
        certificate = authority.issue_cert("tokens", key_type=trustme.KeyType.RSA)
        self._chain = x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes())
        self._key: Any = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
        self._bundle = directory / "tokens.pem"
        authority.cert_pem.write_to_path(self._bundle)

    @property
    def configuration(self) -> dict[str, Any]:
        settings = {"realm": f"{self.url}/token", "service": self.SERVICE, "issuer": "tests"}
        return {"token": {**settings, "rootcertbundle": str(self._bundle)}}

    def answer(self, exchange: Exchange) -> None:
        seen = exchange.seen
        form = parse_qs(seen.body.decode()) if seen.method == "POST" else seen.query
        user = self._user(seen, form)
        if user is None:
            exchange.json(401, {"details": "incorrect username or password"})
            return
        scopes = [scope for text in form.get("scope", []) for scope in text.split()]
        reply = {"token": self.issue(user, scopes), "expires_in": self.life}
        if "offline_token" in form:
            reply["refresh_token"] = f"identity-{user}"
        exchange.json(200, reply)

    def _user(self, seen: Seen, form: dict[str, list[str]]) -> str | None:
        if seen.method == "POST":
            user = form["refresh_token"][0].removeprefix("identity-")
            return user if user in self.users else None
        if not (value := seen.headers.get("authorization")):
            return ""
        user, _, password = base64.b64decode(value.removeprefix("Basic ")).decode().partition(":")
        return user if self.users.get(user) == password else None

    def issue(self, user: str, scopes: list[str]) -> str:
        """A signed token for what `user` may do of `scopes`."""
        now = int(time.time())
        access = []
        for kind, name, actions in (scope.split(":") for scope in scopes):
            granted = [action for action in actions.split(",") if action in self.grant(user, name)]
            access.append({"type": kind, "name": name, "actions": granted})
        claims = {
            "iss": "tests", "sub": user, "aud": self.SERVICE, "jti": "1", "access": access,
            "iat": now, "nbf": now - 10, "exp": now + 300,
        }  # fmt: skip
        der = self._chain.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        signed = f"{_base64url(json.dumps(header).encode())}.{_base64url(json.dumps(claims).encode())}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64url(signature)}"


# -- a proxy


class ProxyServer:
    """An HTTP proxy: CONNECT and requests with whole URLs. `heads` are the heads that came; `login`: `user:password`
    that it wants; `map`: other addresses to connect to, by `host:port`. A context manager."""

    def __init__(self, login: str = "", **options: Any) -> None:
        self.heads: list[str] = []
        self.login = login
        self.map: dict[str, tuple[str, int]] = {}
        self._socket = listen(**options)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{login + '@' if login else ''}127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and (data := client.recv(65536)):
                head += data
            head, _, rest = head.partition(b"\r\n\r\n")
            self.heads.append(head.decode())
            if self.login and f"Basic {base64.b64encode(self.login.encode()).decode()}" not in head.decode():
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            else:
                self._forward(client, head, rest)

    def _forward(self, client: socket.socket, head: bytes, rest: bytes) -> None:
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        parts = urlsplit(target if "://" in target else f"//{target}")
        where = self.map.get(parts.netloc, (parts.hostname or "", parts.port or 80))
        with socket.create_connection(where) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = f"{parts.path}?{parts.query}" if parts.query else parts.path
                lines = [line for line in head.split(b"\r\n")[1:] if not line.lower().startswith(b"proxy-")]
                start = f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode()
                server.sendall(start + b"\r\n".join(lines) + b"\r\n\r\n")
            server.sendall(rest)
            last = b"" if method == "CONNECT" else b"\r\nConnection: close\r\n"
            back = threading.Thread(target=_pump, args=(server, client, last), daemon=True)
            back.start()
            _pump(client, server)
            back.join()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def __enter__(self) -> "ProxyServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pump(source: socket.socket, sink: socket.socket, header: bytes = b"") -> None:
    """Copy all; `header` goes after the first line."""
    with contextlib.suppress(OSError):
        if header:
            sink.sendall(source.recv(65536).replace(b"\r\n", header, 1))
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


# -- places


def other_address(address: str = "10.250.0.1") -> str:
    """An address of this network namespace that is not loopback's: registries there have to prove themselves."""
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    return address
