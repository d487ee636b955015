"""Byte streams to an engine: unix sockets, TCP, TLS, and the standard streams of an ssh command.

All four offer the same few methods (`recv sendall shutdown_write fileno close`). The C module `_socket` is used for
the plain ones: `socket` itself costs 4 ms of imports, a tenth of what `wherry ps` may take.
"""

from __future__ import annotations

import os

from wherry.client.errors import ConfigError, ConnectionFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from typing import Any

    from wherry.client.endpoints import Endpoint
else:
    import _socket


class Stream:
    """A connected stream over a plain socket."""

    def __init__(self, sock: _socket.socket) -> None:
        self._sock = sock

    def recv(self, size: int) -> bytes:
        return self._sock.recv(size)

    def sendall(self, data: bytes) -> None:
        self._sock.sendall(data)

    def send_some(self, data: bytes) -> int:
        """Send what the kernel takes without waiting; how many bytes that was."""
        try:
            return self._sock.send(data, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def shutdown_write(self) -> None:
        """Half-close: the peer sees the end of our data, its own still flows."""
        try:
            self._sock.shutdown(_socket.SHUT_WR)
        except OSError:
            pass  # the peer has gone already

    def pending(self) -> bool:
        """Whether recv() has bytes that select() would not show."""
        return False

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()


class TLSStream(Stream):
    """TLS by hand over a plain socket, because the ssl module's own socket cannot half-close."""

    def __init__(self, sock: _socket.socket, context: Any, server_name: str) -> None:
        import ssl

        super().__init__(sock)
        self._want_read = ssl.SSLWantReadError
        self._ended = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._backlog = b""
        self._step(self._tls.do_handshake)

    def _step(self, operation: Any) -> Any:
        """Run one TLS operation, moving ciphertext both ways until it is through."""
        while True:
            try:
                return operation()
            except self._want_read:
                self._flush()
                data = self._sock.recv(65536)
                self._incoming.write(data) if data else self._incoming.write_eof()
            finally:
                self._flush()

    def _flush(self) -> None:
        if data := self._backlog + self._outgoing.read():
            self._backlog = b""
            self._sock.sendall(data)

    def send_some(self, data: bytes) -> int:
        taken = 0
        if not self._backlog:
            taken = self._step_without_flush(data)
            self._backlog = self._outgoing.read()
        if self._backlog:
            self._backlog = self._backlog[super().send_some(self._backlog) :]
        return taken

    def _step_without_flush(self, data: bytes) -> int:
        try:
            written: int = self._tls.write(data)
        except self._want_read:
            return 0
        return written

    def recv(self, size: int) -> bytes:
        try:
            data: bytes = self._step(lambda: self._tls.read(size))
        except self._ended:
            return b""
        return data

    def sendall(self, data: bytes) -> None:
        from functools import partial

        rest = data
        while rest:
            sent: int = self._step(partial(self._tls.write, rest))
            rest = rest[sent:]

    def shutdown_write(self) -> None:
        try:
            self._tls.unwrap()  # queues our close_notify; the peer's own is not awaited
        except (self._want_read, *self._ended):
            pass
        self._flush()

    def pending(self) -> bool:
        return bool(self._tls.pending() or self._incoming.pending)


def connect(endpoint: Endpoint) -> Stream:
    """Open a stream to the engine that `endpoint` names; raises ConnectionFailed or ConfigError."""
    opener = {"unix": _connect_unix, "tcp": _connect_tcp, "ssh": _connect_ssh}[endpoint.scheme]
    try:
        return opener(endpoint)
    except PermissionError as error:
        raise ConnectionFailed(
            f"permission denied while trying to connect to the wherry daemon socket at {endpoint.url}: {error.strerror}"
        ) from error
    except OSError as error:
        raise ConnectionFailed(_unreachable(endpoint, error)) from error


def _unreachable(endpoint: Endpoint, error: OSError) -> str:
    reason = "" if isinstance(error, (FileNotFoundError, ConnectionRefusedError)) else f" ({error})"
    return f"Cannot connect to the Wherry daemon at {endpoint.url}. Is the wherry daemon running?{reason}"


def _connect_unix(endpoint: Endpoint) -> Stream:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(endpoint.address)
    except BaseException:
        sock.close()
        raise
    return Stream(sock)


def _connect_tcp(endpoint: Endpoint) -> Stream:
    host, _, port = endpoint.address.rpartition(":")
    host = host.strip("[]") or "localhost"
    failure: OSError | None = None
    for family, kind, protocol, _, address in _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM):
        sock = _socket.socket(family, kind, protocol)
        try:
            sock.connect(address)
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            return TLSStream(sock, _tls_context(endpoint), host) if endpoint.tls else Stream(sock)
        except OSError as error:
            failure = error
            sock.close()
    raise failure or OSError(f"no address for {host}")


def _tls_context(endpoint: Endpoint) -> Any:
    import ssl

    tls = endpoint.tls
    assert tls is not None
    context = ssl.create_default_context(cafile=tls.ca if tls.verify and tls.ca else None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key or None)
    except OSError as error:
        raise ConfigError(f"could not load the TLS client certificate {tls.cert}: {error}") from error
    return context


def _connect_ssh(endpoint: Endpoint) -> Stream:
    """Talk to the engine on the other machine through the user's own ssh and `system dial-stdio` there."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    user, _, rest = endpoint.address.rpartition("@")
    host, _, port = rest.partition(":")
    arguments = ["ssh", *(["-l", user] if user else []), *(["-p", port] if port else []), "-o", "ConnectTimeout=30"]
    arguments += ["-T", "--", host, *_remote_command(endpoint.base_path)]
    actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (os.POSIX_SPAWN_DUP2, theirs.fileno(), 1)]
    try:
        os.posix_spawnp("ssh", arguments, os.environ, file_actions=actions)
    except FileNotFoundError:
        raise ConfigError("ssh:// hosts need the ssh command, which is not in PATH") from None
    finally:
        theirs.close()
    return Stream(ours)


def _remote_command(socket_path: str) -> list[str]:
    """What runs over there: wherry, or docker where there is no wherry."""
    if given := os.environ.get("WHERRY_SSH_COMMAND"):
        return given.split()
    from shlex import quote

    options = f"--host {quote(f'unix://{socket_path}')} " if socket_path else ""
    command = "system dial-stdio"
    script = f"if command -v wherry >/dev/null; then exec wherry {options}{command}; fi; exec docker {options}{command}"
    return ["sh", "-c", quote(script)]
