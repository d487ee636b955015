"""Connections that are kept for the next request."""

import select
import socket
import threading
import time

from wherry.registry.dial import Target

_IDLE_MAX = 16
_IDLE_S = 20.0


class Connection:
    """A connection to `target`. `fresh`: it has carried no request yet. `absolute`: its requests name the whole URL,
    for a proxy. `spoilt`: no other request may follow."""

    def __init__(self, target: Target, sock: socket.socket) -> None:
        self.target = target
        self.sock = sock
        self.absolute = target.proxy is not None and target.context is None
        self.fresh = True
        self.spoilt = False
        self.idle_since = 0.0

    def alive(self) -> bool:
        """Whether the peer has neither closed it nor sent what nobody asked for."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self.sock.close()


class Pool:
    """Idle connections, for all who have the pool open; when nobody has, there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._users = 0

    def open(self) -> None:
        with self._lock:
            self._users += 1

    def close(self) -> None:
        with self._lock:
            self._users -= 1
            idle: list[Connection] = []
            if not self._users:
                idle, self._idle = self._idle, idle
        for connection in idle:
            connection.close()

    def take(self, target: Target) -> Connection | None:
        """A connection to `target` that is alive, the one used last; None when there is none."""
        while (connection := self._take(target)) is not None:
            if time.monotonic() - connection.idle_since < _IDLE_S and connection.alive():
                connection.fresh = False
                return connection
            connection.close()
        return None

    def _take(self, target: Target) -> Connection | None:
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index].target == target:
                    return self._idle.pop(index)
        return None

    def give(self, connection: Connection) -> None:
        """Keep `connection` for others."""
        connection.idle_since = time.monotonic()
        with self._lock:
            if self._users:
                self._idle.append(connection)
                extra = self._idle[:-_IDLE_MAX]
                del self._idle[:-_IDLE_MAX]
            else:
                extra = [connection]
        for one in extra:
            one.close()
