"""Netlink: attributes, requests with acknowledgement, dumps, and the kernel's own words for errors (netlink(7)).

A message is a 16 byte header (length, type, flags, sequence, port) and a body: a fixed struct of the protocol, then
attributes (length, type, payload, padded to 4). A socket belongs for life to the network namespace of the thread that
opened it: that is how one thread configures several namespaces.
"""

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

REQUEST, MULTI, ACK, DUMP_INTERRUPTED = 0x1, 0x2, 0x4, 0x10
ROOT, MATCH = 0x100, 0x200
DUMP = ROOT | MATCH
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800

_ERROR, _DONE = 2, 3
_CAPPED, _ACK_TLVS = 0x100, 0x200
_ERRATTR_MESSAGE = 1

_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK = 10, 11
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

_TIMEOUT = struct.pack("@ll", 30, 0)

_NESTED = 0x8000
_TYPE_MASK = 0x3FFF

_header = struct.Struct("=IHHII")
_attribute = struct.Struct("=HH")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class NetlinkError(OSError):
    """The kernel refused message number `position` (from 0) of a request; `reason` is its own text, often empty."""

    def __init__(self, number: int, what: str, reason: str = "", position: int = 0) -> None:
        super().__init__(number, f"{os.strerror(number)}: {reason}" if reason else os.strerror(number), what)
        self.reason = reason
        self.position = position


class Message(NamedTuple):
    """One request or reply: its type, its flags without the generic ones, its body."""

    type: int
    flags: int
    body: bytes


def attr(kind: int, payload: bytes) -> bytes:
    """Encode one attribute."""
    return _attribute.pack(len(payload) + 4, kind) + payload + _PADDING[len(payload) & 3]


def attr_u8(kind: int, number: int) -> bytes:
    return attr(kind, struct.pack("=B", number))


def attr_u16(kind: int, number: int) -> bytes:
    return attr(kind, struct.pack("=H", number))


def attr_u32(kind: int, number: int) -> bytes:
    return attr(kind, struct.pack("=I", number))


def attr_be32(kind: int, number: int) -> bytes:
    """A 32 bit number in network order, signed or not, as nfnetlink wants all of its numbers."""
    return attr(kind, struct.pack(">I", number & 0xFFFFFFFF))


def attr_string(kind: int, text: str) -> bytes:
    """A string with its closing NUL; NUL inside is refused."""
    if "\0" in text:
        raise ValueError(f"NUL in {text!r}")
    return attr(kind, text.encode() + b"\0")


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute made of attributes."""
    return attr(kind | _NESTED, b"".join(parts))


def walk(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data` from `offset` in order as (type, payload); a malformed tail ends the walk."""
    end = len(data)
    while offset + 4 <= end:
        length, kind = _attribute.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & _TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes in `data` from `offset` by type; of repeated ones the last."""
    return dict(walk(data, offset))


def text(payload: bytes) -> str:
    """Decode a string attribute."""
    return payload.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


class Notification(NamedTuple):
    """A multicast message; `port` is the socket whose request caused it, 0 for the kernel's own doing."""

    type: int
    port: int
    body: bytes


class _Reply(NamedTuple):
    type: int
    flags: int
    sequence: int
    port: int
    body: bytes


def _replies(data: bytes) -> Iterator[_Reply]:
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, port = _header.unpack_from(data, offset)
        if length < 16:
            return
        yield _Reply(kind, flags, sequence, port, data[offset + 16 : offset + length])
        offset += (length + 3) & ~3


def _error(reply: _Reply, what: str, position: int) -> NetlinkError | None:
    """The error an NLMSG_ERROR reports, None for an acknowledgement."""
    (code,) = struct.unpack_from("=i", reply.body)
    if code == 0:
        return None
    reason = ""
    if reply.flags & _ACK_TLVS:
        # After the errno comes the header of the refused message, and the message itself unless it was cut off.
        (length,) = struct.unpack_from("=I", reply.body, 4)
        offset = 20 if reply.flags & _CAPPED else 4 + ((length + 3) & ~3)
        reason = text(attributes(reply.body, offset).get(_ERRATTR_MESSAGE, b""))
    return NetlinkError(-code, what, reason, position)


class Socket:
    """A netlink socket of the calling thread's network namespace; methods may be called from any thread."""

    def __init__(self, protocol: int) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._buffer = bytearray(1 << 16)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.bind((0, 0))
            # The kernel answers before send returns; a message it ignores must not stop us for ever.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
            for option in (_CAP_ACK, _EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The number that names this socket in the kernel's notifications."""
        address: tuple[int, int] = self._socket.getsockname()
        return address[0]

    def _receive(self) -> Iterator[_Reply]:
        count = self._socket.recv_into(self._buffer)
        return _replies(bytes(memoryview(self._buffer)[:count]))

    def _pack(self, message: Message, flags: int) -> bytes:
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        body = message.body
        head = _header.pack(16 + len(body), message.type, message.flags | flags, self._sequence, 0)
        return head + body + _PADDING[len(body) & 3]

    def _send(self, data: bytes) -> None:
        if len(data) > 100_000:
            # Default send buffers end at 200 kB; both options need CAP_NET_ADMIN, as does what is being sent.
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(data))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 2 * len(data))
        self._socket.send(data)

    def request(self, what: str, *messages: Message) -> None:
        """Send `messages` in one system call and wait until the kernel carried out each. They are independent of each
        other: after a failure the later ones still run. Raises the first `NetlinkError`; `what` names the deed."""
        with self._lock:
            first = self._sequence + 1
            self._send(b"".join([self._pack(message, REQUEST | ACK) for message in messages]))
            self._collect(what, first, self._sequence)

    def batch(self, what: str, begin: Message, messages: Sequence[Message], end: Message) -> None:
        """Send `messages` as one nfnetlink transaction: all happen or none does. Raises `NetlinkError`."""
        with self._lock:
            parts = [self._pack(begin, REQUEST)]
            first = self._sequence + 1
            parts += [self._pack(message, REQUEST) for message in messages[:-1]]
            parts.append(self._pack(messages[-1], REQUEST | ACK))
            last = self._sequence
            parts.append(self._pack(end, REQUEST))
            self._send(b"".join(parts))
            self._collect(what, first, last, transaction=True)

    def _collect(self, what: str, first: int, last: int, *, transaction: bool = False) -> None:
        """Read replies until the one to `last`; raise the first error among them. Whatever precedes `first` is left
        over from an earlier failed request and is skipped, except the refusal of a transaction's first message."""
        failure: NetlinkError | None = None
        while True:
            for reply in self._receive():
                early = transaction and reply.sequence == first - 1
                if reply.type != _ERROR or not (early or first <= reply.sequence <= last):
                    continue
                failure = failure or _error(reply, what, reply.sequence - first)
                if reply.sequence == last or (early and failure):
                    if failure:
                        raise failure
                    return

    def get(self, what: str, message: Message) -> Message:
        """Ask for one object; raises `NetlinkError` (ENOENT, ENODEV) when there is none."""
        with self._lock:
            self._send(self._pack(message, REQUEST))
            while True:
                for reply in self._receive():
                    if reply.sequence != self._sequence:
                        continue
                    error = _error(reply, what, 0) if reply.type == _ERROR else None
                    if error:
                        raise error
                    return Message(reply.type, reply.flags, reply.body)

    def dump(self, what: str, message: Message) -> list[Message]:
        """All objects of a kind; asked again when the kernel says that they changed while it was listing."""
        for _ in range(10):
            found, whole = self._dump(what, message)
            if whole:
                return found
        return found

    def _dump(self, what: str, message: Message) -> tuple[list[Message], bool]:
        found: list[Message] = []
        whole = True
        with self._lock:
            self._send(self._pack(message, REQUEST | DUMP))
            while True:
                for reply in self._receive():
                    if reply.sequence != self._sequence:
                        continue
                    whole = whole and not reply.flags & DUMP_INTERRUPTED
                    if reply.type == _DONE:
                        return found, whole
                    if reply.type == _ERROR:
                        raise _error(reply, what, 0) or NetlinkError(errno.EIO, what)
                    found.append(Message(reply.type, reply.flags, reply.body))


class Monitor:
    """A subscription to multicast groups (numbers, not bits) of the calling thread's network namespace."""

    def __init__(self, protocol: int, groups: Iterable[int]) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, 1, group)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[Notification] | None:
        """The next notifications; None when the kernel dropped some because we were slow."""
        try:
            data = self._socket.recv(1 << 16)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return None
            raise
        return [Notification(reply.type, reply.port, reply.body) for reply in _replies(data)]
