"""Which engine a command talks to: flags, DOCKER_HOST, contexts, and otherwise the default socket.

Precedence is Docker's: --context; --host or DOCKER_HOST; DOCKER_CONTEXT; config.json's currentContext; the default.
"""

from __future__ import annotations

import os

from wherry.client.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.client.config import ClientConfig

DEFAULT_HOST = "unix:///run/wherry.sock"


class TLSFiles:
    """Paths of PEM files ("" = none) and whether the server's certificate is checked."""

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, ca: str, cert: str, key: str, verify: bool) -> None:
        self.ca, self.cert, self.key, self.verify = ca, cert, key, verify


class Endpoint:
    """`url` as named by the user; `address` is a path, host:port or [user@]host[:port], by `scheme` unix, tcp or ssh.

    `is_default` says that nobody named an engine, so that the command may start one. `context` is the context's name.
    """

    __slots__ = ("address", "base_path", "context", "is_default", "scheme", "tls", "url")

    def __init__(self, url: str, *, context: str = "default", tls: TLSFiles | None = None) -> None:
        self.url = url
        self.context = context
        self.tls = tls
        self.is_default = False
        self.scheme, self.address, self.base_path = parse_host(url)


def parse_host(url: str) -> tuple[str, str, str]:
    """Split a host into (scheme, address, base path); raises ConfigError with Docker's words."""
    scheme, separator, address = url.partition("://")
    if not separator:
        raise ConfigError(f"unable to parse docker host `{url}`")
    if scheme in ("http", "https"):
        scheme = "tcp"
    if scheme not in ("unix", "tcp", "ssh"):
        raise ConfigError(f"invalid bind address format: {url}")
    base_path = ""
    if scheme == "tcp":
        address, slash, base_path = address.partition("/")
        base_path = (slash + base_path).rstrip("/")
        if ":" not in address.rpartition("]")[2]:
            address += ":2375"
    if scheme == "ssh":
        address = address.partition("/")[0]
    return scheme, address, base_path


def normalise_host(text: str) -> str:
    """What -H accepts beyond full URLs: bare paths are unix sockets, bare host:port is tcp."""
    text = text.strip()
    if "://" in text:
        return text
    if text.startswith("/"):
        return f"unix://{text}"
    return f"tcp://{text}"


def choose(config: ClientConfig, flags: dict[str, Any]) -> Endpoint:
    """The engine to talk to. `flags` holds the global flags: host, context, tls, tlsverify, tlscacert/-cert/-key."""
    host, name = flags.get("host") or "", flags.get("context") or ""
    if host and name:
        raise ConfigError("conflicting options: cannot specify both --host and --context")
    name = name or _context_name(config, host)
    if name == "default":
        return _default(flags, host or os.environ.get("DOCKER_HOST") or "")
    return _from_context(config, name)


def _context_name(config: ClientConfig, host: str) -> str:
    if host or os.environ.get("DOCKER_HOST"):
        return "default"
    return os.environ.get("DOCKER_CONTEXT") or config.text("currentContext") or "default"


def _default(flags: dict[str, Any], host: str) -> Endpoint:
    url = normalise_host(host) if host else DEFAULT_HOST
    endpoint = Endpoint(url, tls=_tls_files(flags) if url.startswith(("tcp:", "https:")) else None)
    endpoint.is_default = not host
    return endpoint


def _tls_files(flags: dict[str, Any]) -> TLSFiles | None:
    verify = bool(flags.get("tlsverify")) or bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if not (verify or flags.get("tls") or os.environ.get("DOCKER_TLS")):
        return None
    directory = os.environ.get("DOCKER_CERT_PATH") or os.path.join(os.environ.get("HOME", "/root"), ".docker")

    def file(flag: str, name: str) -> str:
        named = flags.get(flag)
        path = named or os.path.join(directory, name)
        return path if named or os.path.exists(path) else ""

    return TLSFiles(file("tlscacert", "ca.pem"), file("tlscert", "cert.pem"), file("tlskey", "key.pem"), verify)


def _from_context(config: ClientConfig, name: str) -> Endpoint:
    stored = config.context(name)
    docker = stored.get("Endpoints", {}).get("docker") or {}
    host = docker.get("Host") or ""
    directory = config.context_tls(name)
    tls = None
    if directory:
        paths = [os.path.join(directory, each) for each in ("ca.pem", "cert.pem", "key.pem")]
        present = [path if os.path.exists(path) else "" for path in paths]
        tls = TLSFiles(present[0], present[1], present[2], not docker.get("SkipTLSVerify"))
    if not host:
        return _default({}, "")
    return Endpoint(host, context=name, tls=tls)
