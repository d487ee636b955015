"""The talk between a container's init and the process that forked it.

A pair of SOCK_SEQPACKET sockets, one message a record; the first byte says what it is. Both ends are close-on-exec:
the end of file is how the parent learns that execve(2) has succeeded.

    child → parent                          parent → child
    U        user namespace made            u    its maps are written
    T        time namespace made            t    its offsets are written
    P<json>  the child that is to become the program forked, by a helper: its pid, for an exec {pid, warnings}
                                            c    it is in its cgroup
    H        mounts done, hooks please      h    hooks have run
    R<json>  ready, waits at the gate       s    start
    E<json>  failed: {kind, message}
"""

import json
import os
from _socket import MSG_DONTWAIT, socket
from typing import Any

from wherry.linux import fdpass
from wherry.runtime.failure import StartError, words

_LIMIT = 1 << 16
_PART = 1 << 11  # of a message that is too long, from either end
USER_NAMESPACE, MAPPED = b"U", b"u"
TIME_NAMESPACE, SHIFTED = b"T", b"t"
FORKED = b"P"
CGROUP_MADE = b"c"
HOOKS, HOOKS_RAN = b"H", b"h"
READY, START = b"R", b"s"
FAILED = b"E"


class Wire:
    """One end."""

    def __init__(self, end: socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def send(self, kind: bytes, body: object = None, fds: list[int] | None = None) -> None:
        """Send a message; `body` goes as JSON, `fds` are passed along."""
        data = kind if body is None else kind + json.dumps(body).encode()[: _LIMIT - 1]
        fdpass.send(self._socket, data, fds or ())

    def fail(self, error: StartError) -> None:
        """Tell the parent why we end."""
        try:
            message = error.message
            if len(message) > 2 * _PART:
                message = f"{message[:_PART]}…{message[-_PART:]}"
            self.send(FAILED, {"kind": error.kind, "message": message})
        except OSError:
            pass  # nobody waits for us any more

    def receive(self, *, wait: bool = True, of: int | None = None) -> tuple[bytes, Any, list[int]]:
        """Parent's side: (kind, decoded body or None, descriptors); kind is b"" at the end of file. Raises StartError
        when the other side failed, or when process `of` must have sent the message and another has; BlockingIOError
        when nothing waits and `wait` is false."""
        data, fds, sender = fdpass.receive_named(self._socket, _LIMIT, wait=wait)
        try:
            return data[:1], _body_of(data, of is None or sender == of), fds
        except BaseException:
            fdpass.close_all(fds)
            raise

    def failure(self) -> StartError | None:
        """Why the child ended, when it has told: the true reason of whatever failed here because it is gone."""
        try:
            data = self._socket.recv(_LIMIT, MSG_DONTWAIT)
            if data[:1] == FAILED:
                body = json.loads(data[1:])
                return StartError(body["kind"], body["message"])
        except OSError:
            pass
        return None

    def expect(self, kind: bytes) -> None:
        """Child's side: wait for one message of the parent; end silently when the parent is gone."""
        if self._socket.recv(1) != kind:
            os._exit(1)


def _body_of(data: bytes, believed: bool) -> Any:
    """The decoded body of a message, None without one; what is not `believed` can only be a failure."""
    kind = data[:1]
    body: Any = json.loads(data[1:]) if len(data) > 1 else None
    if kind == FAILED:
        raise StartError(body["kind"], body["message"])
    if kind and not believed:
        raise StartError("Internal", "another process spoke in the name of the one that was to make it")
    return body


def pair() -> tuple[Wire, Wire]:
    """(parent's end, which tells who sent what, child's end)."""
    ours, theirs = fdpass.pair()
    fdpass.name_senders(ours)
    return Wire(ours), Wire(theirs)


def open_gate(connection: Wire) -> None:
    """Tell a waiting init to start; the outcome is the end of file when execve(2) was reached. Raises StartError."""
    try:
        connection.send(START)
    except OSError as error:
        raise StartError("Internal", f"the container's init is gone: {words(error)}") from None
