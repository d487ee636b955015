"""The bridge on the host: made, recognised, repaired, removed.

A bridge of ours is known by its MAC address, which follows from the network's id and is set in the same message that
makes it: there is no moment at which a crash leaves one that nobody recognises.
"""

import errno
import hashlib
import ipaddress
import socket

from wherry.errors import Conflict, Unavailable
from wherry.linux import rtnetlink
from wherry.linux.netlink import NetlinkError
from wherry.linux.rtnetlink import Link, RouteSocket, read_sysctl, write_sysctl
from wherry.network.files import parse_resolv_conf
from wherry.network.model import BridgeNetwork

_PREFIX = "wherry"
_MAX_BRIDGES = 1000
_DEFAULT_MTU = 1500


def bridge_mac(network_id: str) -> str:
    """The locally administered MAC address that belongs to a network id."""
    digest = hashlib.sha256(network_id.encode()).digest()
    return bytes((0x02, *digest[:5])).hex(":")


def is_ours(link: Link, network_id: str) -> bool:
    return link.kind == "bridge" and link.mac == bridge_mac(network_id)


def free_name(route: RouteSocket) -> str:
    """The first of wherry0, wherry1, ... that no link has."""
    names = {link.name for link in route.links()}
    for number in range(_MAX_BRIDGES):
        if f"{_PREFIX}{number}" not in names:
            return f"{_PREFIX}{number}"
    raise Unavailable(f"no name for a bridge is free: {_PREFIX}0 to {_PREFIX}{_MAX_BRIDGES - 1} exist")


def uplink_mtu(route: RouteSocket) -> int:
    """The MTU of the link that the default route goes by, 1500 when there is none: a bridge with a larger one would
    make connections stall wherever path MTU discovery is broken."""
    mtus = {link.number: link.mtu for link in route.links()}
    found = [mtus.get(entry.link, _DEFAULT_MTU) for entry in route.routes() if entry.destination == "0.0.0.0/0"]
    return max(68, min(found)) if found else _DEFAULT_MTU


def occupied(route: RouteSocket, resolv_conf: str, *, besides: int = 0) -> list[ipaddress.IPv4Network]:
    """Networks a new subnet must not overlap: what the host has routes to and where its resolvers are. Routes by link
    `besides` do not count."""
    found = [
        ipaddress.IPv4Network(entry.destination)
        for entry in route.routes(socket.AF_INET)
        if not entry.destination.startswith(("0.0.0.0/0", "127.")) and (not besides or entry.link != besides)
    ]
    servers = parse_resolv_conf(resolv_conf).nameservers
    return found + [ipaddress.IPv4Network(server) for server in servers if "." in server and ":" not in server]


def ensure(route: RouteSocket, network: BridgeNetwork) -> Link:
    """Make or repair the bridge of `network`: there, up, with its address, its ports' MTU and its sysctls. Raises
    `Conflict` when the name belongs to something else."""
    link = route.link(network.bridge)
    if link is None:
        link = _create(route, network)
    elif not is_ours(link, network.id):
        raise Conflict(f"network interface {network.bridge} exists and is not the bridge of this engine")
    configure(network.bridge)  # before it is up: an IPv6 address, once there, has been heard of
    changes = [rtnetlink.set_link(link.number, mtu=network.mtu, alias=f"wherry {network.id}", up=True)]
    prefix = ipaddress.IPv4Network(network.subnet).prefixlen
    changes += [
        rtnetlink.delete_address(link.number, address.address, address.prefix)
        for address in route.addresses(link.number)
        if ":" not in address.address and (address.address, address.prefix) != (network.gateway, prefix)
    ]
    route.request(f"configure {network.bridge}", *changes, rtnetlink.new_address(link.number, network.gateway, prefix))
    return link


def _create(route: RouteSocket, network: BridgeNetwork) -> Link:
    message = rtnetlink.new_link(network.bridge, "bridge", mac=bridge_mac(network.id), mtu=network.mtu)
    try:
        route.request(f"create bridge {network.bridge}", message)
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            raise Conflict(f"network interface {network.bridge} exists") from None
        raise
    link = route.link(network.bridge)
    if link is None:
        raise Unavailable(f"bridge {network.bridge} vanished while it was made")
    return link


def configure(bridge: str) -> None:
    """The bridge's sysctls: the host believes no router advertisement of a container and has no IPv6 address here,
    connections from the host's loopback may be led to containers (the firewall closes the way back)."""
    write_sysctl(f"ipv6/conf/{bridge}/accept_ra", "0")
    write_sysctl(f"ipv6/conf/{bridge}/disable_ipv6", "1")
    write_sysctl(f"ipv4/conf/{bridge}/route_localnet", "1")


def problems(route: RouteSocket, network: BridgeNetwork) -> list[str]:
    """What is wrong with the bridge, in words; nothing when `ensure` would change nothing."""
    link = route.link(network.bridge)
    if link is None:
        return [f"bridge {network.bridge} is missing"]
    found = []
    if not link.up:
        found.append(f"bridge {network.bridge} is down")
    if network.gateway not in {address.address for address in route.addresses(link.number)}:
        found.append(f"bridge {network.bridge} lacks its address {network.gateway}")
    if read_sysctl(f"ipv4/conf/{network.bridge}/route_localnet") != "1":
        found.append(f"bridge {network.bridge} has lost its sysctls")
    return found


def remove(route: RouteSocket, network: BridgeNetwork) -> None:
    """Delete the bridge if it is there and ours."""
    link = route.link(network.bridge)
    if link and is_ours(link, network.id):
        route.request(f"delete bridge {network.bridge}", rtnetlink.delete_link(link.number))
