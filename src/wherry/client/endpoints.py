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
_BARE = {"unix://": "", "tcp://": "tcp://localhost:2375"}


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
    if scheme == "unix":
        return scheme, address, ""
    if scheme == "ssh":
        return _parse_ssh(url, address)
    if scheme != "tcp":
        raise ConfigError(f"invalid bind address format: {url}")
    address, slash, base_path = address.partition("/")
    host, colon, port = address.rpartition(":")
    if not colon or "]" in port:
        host, port = address, ""
    if port and not (port.isdigit() and port.isascii()):
        raise ConfigError(f'parse "{url}": invalid port ":{port}" after host')
    return scheme, f"{host}:{port or 2375}", (slash + base_path).rstrip("/")


def _parse_ssh(url: str, address: str) -> tuple[str, str, str]:
    """The path is that of the engine's socket on the other machine, "" for the usual one."""
    address, _, query = address.partition("?")
    address, slash, path = address.partition("/")
    user, _, host = address.rpartition("@")
    reason = ""
    if ":" in user:
        reason = "plain-text password is not supported"
    elif not host.partition(":")[0]:
        reason = "hostname is empty"
    elif query:
        reason = f'query parameters are not allowed: "{query}"'
    if reason:
        raise ConfigError(f"ssh host connection is not valid: invalid SSH URL: {reason}")
    return "ssh", address, (slash + path).rstrip("/")


def normalise_host(text: str) -> str:
    """What -H accepts beyond full URLs: bare paths are unix sockets, bare host:port is tcp."""
    text = text.strip()
    if text in _BARE:
        return _BARE[text] or DEFAULT_HOST
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
    name = name or current_context(config, flags)
    if name == "default":
        return _default(config, flags, host or os.environ.get("DOCKER_HOST") or "")
    return _from_context(config, name)


def current_context(config: ClientConfig, flags: dict[str, Any]) -> str:
    """The name of the context in use; none such need be stored."""
    if flags.get("context"):
        return str(flags["context"])
    if flags.get("host") or os.environ.get("DOCKER_HOST"):
        return "default"
    return os.environ.get("DOCKER_CONTEXT") or config.text("currentContext") or "default"


def _default(config: ClientConfig, flags: dict[str, Any], host: str) -> Endpoint:
    url = normalise_host(host) if host else DEFAULT_HOST
    endpoint = Endpoint(url, tls=_tls_files(config, flags))
    endpoint.is_default = not host
    return endpoint


def _tls_files(config: ClientConfig, flags: dict[str, Any]) -> TLSFiles | None:
    """The files that the TLS flags and variables name; what nobody named may be missing, but for the authority's."""
    verify = bool(flags["tlsverify"] if "tlsverify" in flags else os.environ.get("DOCKER_TLS_VERIFY"))
    wanted = flags["tls"] if "tls" in flags else os.environ.get("DOCKER_TLS")
    if not (verify or wanted or "tlsverify" in flags):
        return None
    directory = os.environ.get("DOCKER_CERT_PATH") or config.directory

    def file(flag: str, name: str) -> str:
        path = str(flags.get(flag) or os.path.join(directory, name))
        if not os.path.exists(path):
            if not flags.get(flag) and name != "ca.pem":
                return ""
            raise ConfigError(f"open {path}: no such file or directory")
        return path

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
        return _default(config, {}, "")
    return Endpoint(host, context=name, tls=tls)
