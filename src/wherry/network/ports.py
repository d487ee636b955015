"""Ports of the host: which one a binding gets, and the sockets that hold them.

Each published port is also bound by a socket of ours, as long as it is published: a port in use by any process is
refused before the container starts, and no process that comes later can take it. Packets never reach these sockets,
the firewall sends them to the container; they listen only once it does.
"""

import errno
import ipaddress
import os
import socket
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from wherry.errors import Internal, InvalidArgument
from wherry.linux.rtnetlink import read_sysctl
from wherry.network.firewall import PROTOCOLS
from wherry.network.model import PublishedPort

_FALLBACK_RANGE = (49153, 65535)
_TRIES = 10


class Binding(NamedTuple):
    """A wish: publish `port`/`protocol` on `host_ip` at a port from `first` to `last`; `first` 0 means any free one."""

    port: int
    protocol: str
    host_ip: str
    first: int
    last: int

    @property
    def key(self) -> str:
        return f"{self.port}/{self.protocol}"


def parse_port(key: str) -> tuple[int, str]:
    """ "80/tcp" or "80" to (80, "tcp"). Raises `InvalidArgument`."""
    number, _, protocol = key.partition("/")
    protocol = protocol or "tcp"
    if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= 65535:
        raise InvalidArgument(f"invalid port specification: {key!r}")
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    return int(number), protocol


def _host_ports(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not text:
        return 0, 0
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        low, high = -1, -1
    if not (0 <= low <= high <= 65535) or (low == 0 and high):
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return low, high


def parse_bindings(
    bindings: dict[str, list[dict[str, str]]], exposed: Iterable[str], *, publish_all: bool, default_ip: str
) -> list[Binding]:
    """What a container wants published, in the order in which ports are to be given. Raises `InvalidArgument`."""
    wishes = []
    for key, wanted in bindings.items():
        port, protocol = parse_port(key)
        # An empty list asks for a random port, as an entry without port does.
        for entry in wanted or [{}]:
            address = entry.get("HostIp") or default_ip
            try:
                host_ip = str(ipaddress.IPv4Address(address))
            except ValueError:
                raise InvalidArgument(f"cannot publish on {address}: the network bridge has IPv4 only") from None
            wishes.append(Binding(port, protocol, host_ip, *_host_ports(entry.get("HostPort") or "")))
    if publish_all:
        bound = {wish.key for wish in wishes}
        ports = [parse_port(key) for key in exposed]
        wishes += [Binding(*port, default_ip, 0, 0) for port in ports if f"{port[0]}/{port[1]}" not in bound]
    # Fixed ports first, so that no random choice takes one that the same container asks for.
    return sorted(wishes, key=lambda wish: (wish.first == 0, wish.port, wish.protocol))


def dynamic_range() -> tuple[int, int]:
    """The ports to choose from when none is asked for: the host's ephemeral range."""
    try:
        low, high = (read_sysctl("ipv4/ip_local_port_range") or "").split()
        return int(low), int(high)
    except ValueError:
        return _FALLBACK_RANGE


def hold(protocol: str, address: str, port: int) -> socket.socket | None:
    """Bind a port of the host; None where the kernel does not know the protocol (SCTP's module may be missing) and so
    nobody else can hold it either. Raises OSError."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    try:
        sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, PROTOCOLS[protocol])
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise
    try:
        if protocol != "udp":
            # Connections of an earlier owner in TIME_WAIT are no reason to refuse. (For UDP this would let two share.)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def claim(sock: socket.socket) -> None:
    """Make a held port exclusive: a bound TCP socket can still be joined by another with SO_REUSEADDR, a listening one
    cannot. Raises OSError (EADDRINUSE) when someone was quicker."""
    if sock.type == socket.SOCK_STREAM:
        sock.listen(0)


class PortAllocator:
    """Chooses ports and holds them. `choose` is called inside the transaction that records what it chose."""

    def __init__(self) -> None:
        # Held while a container's ports are taken back or given up, with its rows, so that the two do not cross.
        self.lock = threading.RLock()
        self._last: dict[tuple[str, str], int] = {}
        self._held: dict[str, dict[PublishedPort, socket.socket | None]] = {}

    def choose(
        self, tx: sqlite3.Connection, container_id: str, address: str, wishes: list[Binding]
    ) -> list[PublishedPort]:
        """Ports for `wishes`, bound and written as rows of `container_id`, whose address is `address`. Raises
        `Internal` with Docker's words, and then holds none."""
        chosen = []
        try:
            for wish in wishes:
                port = self._choose(tx, container_id, address, wish)
                chosen.append(port)
                row = (port.protocol, port.host_ip, port.host_port, container_id, port.ip, port.port)
                tx.execute("INSERT INTO ports VALUES (?, ?, ?, ?, ?, ?)", row)
        except BaseException:
            self.release(container_id)
            raise
        return chosen

    def _choose(self, tx: sqlite3.Connection, container_id: str, address: str, wish: Binding) -> PublishedPort:
        failure: OSError | None = None
        bound = 0
        for number in self._candidates(wish):
            if _taken(tx, wish.protocol, wish.host_ip, number):
                continue
            port = PublishedPort(wish.protocol, wish.host_ip, number, address, wish.port)
            try:
                self.hold(container_id, port)
            except OSError as error:
                failure = error
                bound += 1
                if bound == _TRIES or error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    break
                continue
            if not wish.first:
                self._last[wish.protocol, wish.host_ip] = number
            return port
        raise Internal(_refusal(wish, address, failure))

    def _candidates(self, wish: Binding) -> Iterator[int]:
        if wish.first:
            yield from range(wish.first, wish.last + 1)
            return
        low, high = dynamic_range()
        last = self._last.get((wish.protocol, wish.host_ip), low - 1)
        start = last + 1 if low <= last < high else low
        yield from range(start, high + 1)
        yield from range(low, start)

    def hold(self, container_id: str, port: PublishedPort) -> None:
        """Bind the port for a container, which releases it. Raises OSError."""
        sock = hold(port.protocol, port.host_ip, port.host_port)
        self._held.setdefault(container_id, {})[port] = sock

    def claim(self, container_id: str) -> None:
        """Make the container's ports exclusive, once the firewall leads them away. Raises OSError."""
        for sock in self._held.get(container_id, {}).values():
            if sock:
                claim(sock)

    def holds(self, container_id: str, port: PublishedPort) -> bool:
        return port in self._held.get(container_id, {})

    def release(self, container_id: str) -> None:
        """Close the container's sockets."""
        for sock in self._held.pop(container_id, {}).values():
            if sock:
                sock.close()

    def release_all(self) -> None:
        for container_id in list(self._held):
            self.release(container_id)


def _taken(tx: sqlite3.Connection, protocol: str, host_ip: str, port: int) -> bool:
    """Whether a container has this port on this address, on all of them, or on any if all are wanted."""
    overlapping = "(host_ip IN (?, '0.0.0.0') OR ? = '0.0.0.0')"
    query = f"SELECT 1 FROM ports WHERE protocol = ? AND host_port = ? AND {overlapping} LIMIT 1"
    return tx.execute(query, (protocol, port, host_ip, host_ip)).fetchone() is not None


def _refusal(wish: Binding, address: str, failure: OSError | None) -> str:
    if failure is None:
        what = "all ports are allocated" if wish.first != wish.last or not wish.first else "port is already allocated"
        return f"Bind for {wish.host_ip}:{wish.first} failed: {what}"
    shown = os.strerror(failure.errno or 0).lower()
    wanted = f"{wish.host_ip}:{wish.first}:{address}:{wish.port}/{wish.protocol}"
    return f"failed to bind host port for {wanted}: {shown}"
