"""One attached client: its socket, what it gets, what it types.

Output goes straight into the socket; what the socket does not take waits here and, as long as it does, nobody reads
the process's output any more: the process blocks as if it wrote to the client itself. That bounds what waits to one
read of each stream.
"""

import _socket
from typing import TYPE_CHECKING, Any

from wherry.runtime.monitor.detach import DetachKeys
from wherry.runtime.monitor.poller import POLLERR, POLLHUP, POLLIN, POLLOUT, Poller
from wherry.runtime.monitor.protocol import unpack_bytes

if TYPE_CHECKING:
    from wherry.runtime.monitor.job import Job

_Parts = list[memoryview | bytes]

_READ = 65536
_SEND = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
_STUCK_S = 60.0  # a client that takes nothing for so long after the end is given up
_LINGER_S = 2.0  # for the client to close its side after us


class Client:
    """An attachment to `job`. `fd` is a socket and ours from now on."""

    def __init__(self, poller: Poller, job: "Job", fd: int, wishes: dict[str, Any]) -> None:
        self.id = str(wishes.get("id", ""))
        keys = unpack_bytes(wishes.get("detach_keys") or "")
        self._early = unpack_bytes(wishes.get("early") or "")
        self._wants = (bool(wishes.get("stdin")), bool(wishes.get("stdout")), bool(wishes.get("stderr")))
        self._mux = bool(wishes.get("mux"))
        self._sock = _socket.socket(fileno=fd)
        self._fd = fd
        self._poller = poller
        self._job = job
        self._keys = DetachKeys(keys)
        self._typing = self._wants[0]  # stdin is still open on the client's side
        self._output = self._wants[1] or self._wants[2]
        self._waiting: _Parts = []
        self._ending = False
        self._timer = 0
        self._closed = False
        poller.watch(fd, None, self._ready)

    @property
    def blocked(self) -> bool:
        """Whether output waits for the client to take it."""
        return bool(self._waiting)

    @property
    def typing(self) -> bool:
        """Whether input can still come from this client."""
        return self._typing

    @property
    def closed(self) -> bool:
        return self._closed

    def begin(self) -> None:
        """Take part: the job knows us now."""
        early, self._early = self._early, b""
        if early and self._typing:
            self._typed(early)
        self.update()

    def push(self, stream: int, data: bytes) -> None:
        """Send output of stream 1 or 2, framed when the client asked for it."""
        if not self._output or self._ending or not self._wants[stream]:
            return
        parts: _Parts = [bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big"), data] if self._mux else [data]
        if self._waiting:
            self._waiting.extend(parts)
            return
        self._waiting = self._send(parts)
        if self._waiting:
            self.update()

    def update(self) -> None:
        """Watch for what matters now."""
        if self._closed:
            return
        mask = POLLOUT if self._waiting else 0
        if self._ending:
            mask |= 0 if self._waiting else POLLIN
        elif self._typing:
            if self._job.stdin_full:
                # A hang-up would be reported again and again, and what was typed before it must not be lost.
                self._poller.change(self._fd, mask or None)
                return
            mask |= POLLIN
        self._poller.change(self._fd, mask)

    def end(self) -> None:
        """No more output comes: let the client have what waits, then end the conversation from our side."""
        if self._closed or self._ending:
            return
        self._ending = True
        self._typing = False
        if self._waiting:
            self._restart_timer(_STUCK_S)
            self.update()
        else:
            self._shut()

    def close(self) -> None:
        """Drop the client at once."""
        if self._closed:
            return
        self._closed = True
        self._poller.cancel(self._timer)
        self._poller.forget(self._fd)
        self._waiting = []
        self._sock.close()
        self._job.client_gone(self)

    def _ready(self, mask: int) -> None:
        if mask & POLLOUT:
            self._flush()
        if self._closed:
            return
        if mask & POLLIN:
            self._read()
        elif mask & (POLLHUP | POLLERR):
            self.close()

    def _send(self, parts: _Parts) -> _Parts:
        """Send what the socket takes; return the rest."""
        try:
            sent = self._sock.sendmsg(parts, [], _SEND)
        except BlockingIOError:
            return parts
        except OSError:
            self._hung_up()
            return []
        for number, part in enumerate(parts):
            if sent < len(part):
                return [memoryview(part)[sent:], *parts[number + 1 :]]
            sent -= len(part)
        return []

    def _flush(self) -> None:
        before = sum(map(len, self._waiting))
        self._waiting = self._send(self._waiting[:64]) + self._waiting[64:]
        if self._closed:
            return
        if self._ending and sum(map(len, self._waiting)) < before:
            self._restart_timer(_STUCK_S)
        if self._waiting:
            return
        if self._ending:
            self._shut()
        else:
            self.update()
            self._job.client_drained()

    def _hung_up(self) -> None:
        """The client takes no more output; it may have typed something before it went."""
        self._output = False
        self._waiting = []
        if not self._typing:
            self.close()
        else:
            self._job.client_drained()

    def _shut(self) -> None:
        """Say that no more comes and wait shortly for the client's own end: closing with unread input would reset the
        connection and cost the client the last output."""
        try:
            self._sock.shutdown(_socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._restart_timer(_LINGER_S)
        self.update()

    def _restart_timer(self, delay_s: float) -> None:
        self._poller.cancel(self._timer)
        self._timer = self._poller.after(delay_s, self.close)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if self._ending:
            if not data:
                self.close()
        elif data:
            self._typed(data)
        else:
            self._end_of_input()

    def _typed(self, data: bytes) -> None:
        data, detached = self._keys.feed(data)
        if data:
            self._job.type(data)
        if detached:
            self._job.client_detached(self)
            self.end()
        else:
            self.update()

    def _end_of_input(self) -> None:
        """As Docker: the process's stdin ends with the client's where it lives but once; otherwise the attachment
        ends, and the process does not notice."""
        self._typing = False
        if held := self._keys.end():
            self._job.type(held)
        if self._job.input_ended():
            if self._output:
                self.update()
            else:
                self.close()
        else:
            self.end()
