"""The HTTP server: listens on unix, TCP and TLS sockets and feeds requests to one application."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from wherry.http.connection import Connection, Limits
from wherry.http.message import Request, Response

if TYPE_CHECKING:
    import ssl

Application = Callable[[Request], Awaitable[Response | None]]
"""Answers a request; None when it took the connection over."""


class Server:
    """Listens, and feeds requests to one application."""

    def __init__(
        self, application: Application, *, limits: Limits | None = None, allowed_hosts: frozenset[str] = frozenset()
    ) -> None:
        self.application = application
        self.limits = limits or Limits()
        self.allowed_hosts = allowed_hosts
        self.connections: set[Connection] = set()
        self._listeners: list[asyncio.Server] = []

    async def listen(self, sock: socket.socket, tls: "ssl.SSLContext | None" = None) -> None:
        """Serve the bound socket `sock` (AF_UNIX, AF_INET or AF_INET6), which the server then owns."""
        browser_reachable = sock.family != socket.AF_UNIX
        loop = asyncio.get_running_loop()

        def plain() -> asyncio.Protocol:
            return Connection(self, browser_reachable=browser_reachable, encrypted=tls is not None)

        factory = plain
        if tls is not None:
            from wherry.http.tls import TlsProtocol  # loaded by those who listen with it

            def factory() -> asyncio.Protocol:
                return TlsProtocol(tls, plain())

        # Not create_unix_server: since Python 3.13 it removes the socket's file at the end, which may be systemd's.
        self._listeners.append(await loop.create_server(factory, sock=sock, backlog=1024))

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop listening, let running requests end for `grace_s` seconds, then cut them. Connections that were handed
        over go on: their sockets are no longer ours."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for connection in list(self.connections):
            connection.close_when_idle()
        tasks = [connection.task for connection in self.connections if connection.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        for connection in list(self.connections):
            connection.abort()
