"""Addresses: which subnet a network gets, which address an endpoint gets. The endpoints' rows are the only record."""

import ipaddress
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from wherry.errors import Forbidden, InvalidArgument, Unavailable
from wherry.network.model import BridgeNetwork

IPv4Network = ipaddress.IPv4Network

DEFAULT_POOLS: tuple[tuple[str, int], ...] = (
    *((f"172.{second}.0.0/16", 16) for second in range(17, 32)),
    ("192.168.0.0/16", 20),
)
"""Docker's: 172.17.0.0/16 to 172.31.0.0/16, then the /20s of 192.168.0.0/16."""


def candidate_subnets(pools: Sequence[tuple[str, int]]) -> Iterator[IPv4Network]:
    """The subnets that `pools` of (base, size) offer, in order. Raises `InvalidArgument` for a pool that is none."""
    for base, size in pools:
        try:
            network = IPv4Network(base)
        except ValueError as error:
            raise InvalidArgument(f"invalid address pool {base}: {error}") from None
        if not network.prefixlen <= size <= 30:
            raise InvalidArgument(f"invalid address pool {base}: cannot be cut into subnets of size {size}")
        yield from network.subnets(new_prefix=size)


def choose_subnet(pools: Sequence[tuple[str, int]], taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first subnet of `pools` that overlaps none of `taken`: the host's routes (but the default one), the addresses
    of its resolvers, the subnets of other networks. Raises `Unavailable` when there is none."""
    occupied = list(taken)
    for subnet in candidate_subnets(pools or DEFAULT_POOLS):
        if not any(subnet.overlaps(other) for other in occupied):
            return subnet
    raise Unavailable("could not find an available, non-overlapping IPv4 address pool among the defaults")


def _bounds(network: BridgeNetwork) -> tuple[int, int]:
    """First and last address to hand out, as numbers: those of the range, without the subnet's two ends."""
    subnet, span = IPv4Network(network.subnet), IPv4Network(network.ip_range)
    low, high = int(span.network_address), int(span.broadcast_address)
    if subnet.prefixlen < 31:
        low, high = max(low, int(subnet.network_address) + 1), min(high, int(subnet.broadcast_address) - 1)
    return low, high


class AddressAllocator:
    """Hands out addresses of one network, each a while after its last use: the namespace of a container that just ended
    may still answer ARP for its address while the kernel takes it down."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def allocate(self, tx: sqlite3.Connection, network: BridgeNetwork, wanted: str | None) -> str:
        """An address no endpoint of `network` has, or `wanted`. Call it in the transaction that writes the row."""
        if wanted:
            return self._check(tx, network, wanted)
        low, high = _bounds(network)
        gateway = int(ipaddress.IPv4Address(network.gateway))
        last = self._last.get(network.id, low - 1)
        start = last + 1 if low <= last < high else low
        for number in chain(range(start, high + 1), range(low, start)):
            address = str(ipaddress.IPv4Address(number))
            if number != gateway and not _used(tx, network, address):
                self._last[network.id] = number
                return address
        raise Unavailable(f"no available IPv4 addresses on this network's address pools: bridge ({network.id})")

    def _check(self, tx: sqlite3.Connection, network: BridgeNetwork, wanted: str) -> str:
        try:
            address = ipaddress.IPv4Address(wanted)
        except ValueError:
            raise InvalidArgument(f"invalid IPv4 address: {wanted}") from None
        if address not in IPv4Network(network.subnet):
            raise InvalidArgument(f"no configured subnet contains IP address {address}")
        if str(address) == network.gateway or _used(tx, network, str(address)):
            raise Forbidden("Address already in use")
        return str(address)


def _used(tx: sqlite3.Connection, network: BridgeNetwork, address: str) -> bool:
    query = "SELECT 1 FROM endpoints WHERE network_id = ? AND ipv4 = ?"
    return tx.execute(query, (network.id, address)).fetchone() is not None
