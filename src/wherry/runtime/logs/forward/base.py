"""What the forwarder and its drivers share."""

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

HEADER = struct.Struct("=IBQ")  # length of the data, stream, time in ns; then the data: whole lines, or one piece
_CONNECT_S = 10.0


class Partial(NamedTuple):
    """A piece of a line too long for one message: the line's id, the piece's number from 1, whether it is the last."""

    id: str
    ordinal: int
    last: bool


class Message(NamedTuple):
    """One line, without its newline, or a piece of one. `stream` is 1 or 2."""

    stream: int
    time_ns: int
    text: bytes
    partial: Partial | None


class Target(Protocol):
    """The connection to a log server."""

    def connect(self) -> None:
        """Raise OSError or ValueError, in Docker's words, when the server can't be had."""

    def send(self, messages: Iterator[Message]) -> None:
        """Send, or drop what can't be sent after the driver's own attempts. Does not raise for the network."""

    @property
    def patience_s(self) -> float | None:
        """After how many seconds without output `send` shall be called with nothing; None: not at all."""

    def close(self) -> None:
        """Send what still waits, within reason, and end."""


class Prompt:
    """Part of a target that leaves nothing for later."""

    patience_s = None


class Refusal(OSError):
    """A failure whose text is for the user as it stands."""

    def __str__(self) -> str:
        return str(self.args[0])


def dial(protocol: str, address: Any, wrap: Callable[[socket.socket], socket.socket] | None = None) -> socket.socket:
    """A connected socket: "udp", "tcp", "unix" (stream), "unixgram". Raises `Refusal`."""
    where = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    network = {"unixgram": "unixgram", "unix": "unix", "udp": "udp"}.get(protocol, "tcp")
    try:
        sock = _open(protocol, address)
        return wrap(sock) if wrap else sock
    except socket.gaierror:
        raise Refusal(f"dial {network}: lookup {address[0]}: no such host") from None
    except TimeoutError:
        raise Refusal(f"dial {network} {where}: i/o timeout") from None
    except OverflowError:
        raise Refusal(f"dial {network}: address {address[1]}: invalid port") from None
    except OSError as error:
        raise Refusal(f"dial {network} {where}: connect: {(error.strerror or str(error)).lower()}") from None


def _open(protocol: str, address: Any) -> socket.socket:
    if protocol in ("unix", "unixgram"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if protocol == "unix" else socket.SOCK_DGRAM)
        try:
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock
    if protocol != "udp":
        sock = socket.create_connection((address[0] or "localhost", address[1]), timeout=_CONNECT_S)
        sock.settimeout(None)
        return sock
    family, kind, _, _, found = socket.getaddrinfo(address[0] or "localhost", address[1], type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, kind)
    sock.connect(found)
    return sock
