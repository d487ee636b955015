"""The monitor's control socket: whoever may connect asks, and is told what happens.

A daemon that does not read is never waited for: what it does not take waits in a bounded queue, and beyond that the
connection is closed; it can connect again and ask for the status.
"""

import _socket
import os
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from wherry.linux import fdpass
from wherry.runtime.failure import StartError
from wherry.runtime.monitor import protocol
from wherry.runtime.monitor.poller import POLLIN, POLLOUT, Poller

_BACKLOG = 16
_QUEUE = 1024  # messages
_ACK_S = 1.0
_NEVER = float("inf")


class Later:
    """A request's result that is not known yet: a handler returns it, and settles it from the loop."""

    def __init__(self) -> None:
        self.tell: Callable[[dict[str, Any]], None] = lambda _: None

    def settle(self, result: Any) -> None:
        """The request has succeeded."""
        self.tell({"ok": result})

    def fail(self, error: StartError) -> None:
        """The request has failed."""
        self.tell({"error": {"kind": error.kind, "message": error.message}})


# (message, descriptors) → result; takes what it keeps out of the list, the rest is closed; a `Later` for later
Handler = Callable[[dict[str, Any], list[int]], Any]


def listen(path: str) -> _socket.socket:
    """A listening SOCK_SEQPACKET socket at `path`, mode 0600, in place of a stale one. `path` may be longer than the
    108 bytes an address holds: the working directory changes for a moment. Raises OSError."""
    directory, name = os.path.split(path)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    try:
        os.chdir(directory)
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass
        mask = os.umask(0o177)
        try:
            sock.bind(name)
        finally:
            os.umask(mask)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        os.chdir("/")
    return sock


class Control:
    """The listening socket and its connections; `handler` serves requests."""

    def __init__(self, poller: Poller, handler: Handler) -> None:
        self._poller = poller
        self._handler = handler
        self._listener: _socket.socket | None = None
        self._path = ""
        self._connections: list[_Connection] = []
        self._serving: _Connection | None = None
        self._announced = 0
        self._unanswered: dict[int, _Unanswered] = {}

    @property
    def connected(self) -> bool:
        return bool(self._connections)

    def listen(self, path: str, listener: _socket.socket) -> None:
        """Accept connections on `listener`, which is bound to `path`."""
        self._listener, self._path = listener, path
        self._poller.watch(listener.fileno(), POLLIN, self._accept)

    def stop_listening(self) -> None:
        """Nobody else may come; the name is free for a successor."""
        if self._listener:
            self._poller.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
            try:
                os.unlink(self._path)
            except OSError:
                pass  # the daemon may have removed the directory

    def close(self) -> None:
        """End all connections, and leave the socket's name alone."""
        for connection in tuple(self._connections):
            connection.close()
        if self._listener:
            self._listener.close()

    def adopt(self, sock: _socket.socket) -> None:
        """Serve a connection that exists already."""
        self._connections.append(_Connection(self, self._poller, sock))

    def announce(self, event: dict[str, Any], then: Callable[[bool], None] | None = None) -> None:
        """Tell all connections; call `then` when all have acknowledged, are gone, or took too long: with whether
        anybody has."""
        self._announced += 1
        number = self._announced
        payload = protocol.encode({**event, "number": number})
        if then is not None:
            timer = self._poller.after(_ACK_S, lambda: self._settle(number))
            self._unanswered[number] = _Unanswered(set(self._connections), timer, then)
        for connection in tuple(self._connections):
            connection.send(payload)
        self._settle_if_answered(number)

    def serve(self, connection: "_Connection", record: bytes, fds: list[int]) -> None:
        """One request: whatever is in it, the monitor goes on."""
        self._serving = connection
        try:
            message = protocol.decode(record, fds)
            operation = message["op"]
        except (ValueError, KeyError, TypeError, RecursionError):
            connection.close()
            return
        if operation == "ack":
            self._acknowledged(connection, message.get("number"))
            return
        reply: dict[str, Any] = {"re": message.get("seq")}
        try:
            if time.monotonic() > message.get("until", _NEVER):
                raise StartError("Unavailable", "nobody waits for this any more")
            result = self._handler(message, fds)
            if isinstance(result, Later):
                result.tell = lambda outcome: connection.send(protocol.encode({**reply, **outcome}))
                return
            reply["ok"] = result
        except StartError as error:
            reply["error"] = {"kind": error.kind, "message": error.message}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            sys.excepthook(*sys.exc_info())
            reply["error"] = {"kind": "InvalidArgument", "message": f"bad request to the monitor: {error!r}"}
        except (OSError, RuntimeError) as error:
            reply["error"] = {"kind": "Internal", "message": str(error)}
        if operation != "forget":
            connection.send(protocol.encode(reply))

    def when_gone(self, undo: Callable[[], None]) -> None:
        """Call `undo` when whoever asks for what is being served goes away."""
        if self._serving is not None:
            self._serving.undo = undo

    def lost(self, connection: "_Connection") -> None:
        self._connections.remove(connection)
        if connection.undo is not None:
            connection.undo()
        for number in tuple(self._unanswered):
            self._unanswered[number].by.discard(connection)
            self._settle_if_answered(number)

    def _accept(self, _: int) -> None:
        assert self._listener
        try:
            fd, _address = self._listener._accept()  # type: ignore[attr-defined]  # absent from typeshed's stub
        except OSError:
            return
        sock = _socket.socket(fileno=fd)
        if peer_uid(sock) in (0, os.geteuid()):
            self.adopt(sock)
        else:
            sock.close()

    def _acknowledged(self, connection: "_Connection", number: object) -> None:
        if isinstance(number, int) and number in self._unanswered:
            self._unanswered[number].heard = True
            self._unanswered[number].by.discard(connection)
            self._settle_if_answered(number)

    def _settle_if_answered(self, number: int) -> None:
        if number in self._unanswered and not self._unanswered[number].by:
            self._settle(number)

    def _settle(self, number: int) -> None:
        waiting = self._unanswered.pop(number, None)
        if waiting:
            self._poller.cancel(waiting.timer)
            waiting.then(waiting.heard)


class _Unanswered:
    """An event that connections have yet to acknowledge: by whom, and what follows."""

    def __init__(self, by: "set[_Connection]", timer: int, then: Callable[[bool], None]) -> None:
        self.by = by
        self.timer = timer
        self.then = then
        self.heard = False


class _Connection:
    def __init__(self, control: Control, poller: Poller, sock: _socket.socket) -> None:
        self._control = control
        self._poller = poller
        self._sock = sock
        self._fd = sock.fileno()
        self._queue: list[bytes] = []
        self._closed = False
        self.undo: Callable[[], None] | None = None
        poller.watch(self._fd, POLLIN, self._ready)

    def send(self, payload: bytes) -> None:
        if self._closed:
            return
        if len(self._queue) >= _QUEUE:
            self.close()
            return
        self._queue.append(payload)
        self._flush()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._poller.forget(self._fd)
            self._sock.close()
            self._control.lost(self)

    def _flush(self) -> None:
        while self._queue:
            try:
                protocol.send(self._sock, self._queue[0], wait=False)
            except BlockingIOError:
                self._poller.change(self._fd, POLLIN | POLLOUT)
                return
            except OSError:
                self.close()
                return
            self._queue.pop(0)
        self._poller.change(self._fd, POLLIN)

    def _ready(self, mask: int) -> None:
        if mask & POLLOUT:
            self._flush()
        if not self._closed:
            self._receive()

    def _receive(self) -> None:
        try:
            received = protocol.receive(self._sock, wait=False)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self.close()
            return
        record, fds = received
        try:
            self._control.serve(self, record, fds)
        finally:
            fdpass.close_all(fds)


def peer_uid(sock: _socket.socket) -> int:
    """Who is at the other end: SO_PEERCRED, unix(7)."""
    _pid, uid, _gid = struct.unpack("iII", sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
    return int(uid)
