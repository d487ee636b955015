"""A container's network namespace and its wire to the bridge.

The host's end of the pair is named by the endpoint's id and bears the container's id as its alias; the container's end
is eth0, made right inside the new namespace, so that it never shows on the host.
"""

import os
import secrets

from wherry.errors import InvalidArgument, Unavailable
from wherry.linux import netns, rtnetlink
from wherry.linux.rtnetlink import RouteSocket, write_sysctl
from wherry.network.model import BridgeNetwork, Endpoint

_LOOPBACK = 1


def random_mac() -> str:
    """A random, locally administered, unicast MAC address, as Docker gives."""
    octets = bytearray(secrets.token_bytes(6))
    octets[0] = octets[0] & 0xFE | 0x02
    return octets.hex(":")


def parse_mac(text: str) -> str:
    """A MAC address in lower case with colons. Raises `InvalidArgument`."""
    parts = text.replace("-", ":").split(":")
    if len(parts) == 6 and all(len(part) == 2 for part in parts):
        try:
            octets = bytes.fromhex("".join(parts))
        except ValueError:
            octets = b""
        if octets and not octets[0] & 1:
            return octets.hex(":")
    raise InvalidArgument(f"{text} is not a valid mac address")


def create_isolated(endpoint: Endpoint) -> None:
    """Network "none": a namespace with nothing but lo. Raises OSError."""

    def inside() -> None:
        with RouteSocket() as route:
            route.request("bring up lo", rtnetlink.set_link(_LOOPBACK, up=True))

    netns.create(endpoint.netns_path, inside)


def create(endpoint: Endpoint, network: BridgeNetwork, host: RouteSocket, bridge: int, *, isolated: bool) -> None:
    """Make and pin the endpoint's namespace, and wire it to link `bridge`. `isolated` ports reach no other port of the
    bridge. On failure nothing is left. Raises OSError."""

    def inside() -> None:
        # New interfaces start without IPv6: no link-local address, no autoconfiguration, no packet before we are done.
        write_sysctl("ipv6/conf/default/disable_ipv6", "1")
        fd = netns.open_current()
        try:
            _make_pair(endpoint, network, host, bridge, fd)
        finally:
            os.close(fd)
        _configure(endpoint)
        write_sysctl("ipv6/conf/default/disable_ipv6", "0")

    netns.create(endpoint.netns_path, inside)
    if isolated:
        _isolate(endpoint, host)
    # The port of a bridge has no use for IPv6 of its own; a router advertisement must not reach the host by it.
    write_sysctl(f"ipv6/conf/{endpoint.link}/accept_ra", "0")
    write_sysctl(f"ipv6/conf/{endpoint.link}/disable_ipv6", "1")


def _make_pair(endpoint: Endpoint, network: BridgeNetwork, host: RouteSocket, bridge: int, fd: int) -> None:
    pair = rtnetlink.new_veth(
        endpoint.link, "eth0", peer_netns=fd, peer_mac=endpoint.mac, mtu=network.mtu, master=bridge
    )
    host.request(f"create {endpoint.link}", pair, rtnetlink.set_alias(endpoint.link, endpoint.container_id))


def _configure(endpoint: Endpoint) -> None:
    """Inside the namespace: lo and eth0 up, the address, the default route."""
    with RouteSocket() as route:
        link = route.link("eth0")
        if link is None:
            raise Unavailable(f"eth0 of {endpoint.container_id} vanished")
        route.request(
            "configure eth0",
            rtnetlink.set_link(_LOOPBACK, up=True),
            rtnetlink.set_link(link.number, up=True),
            rtnetlink.new_address(link.number, endpoint.ipv4, endpoint.prefix),
            rtnetlink.new_route("0.0.0.0/0", gateway=endpoint.gateway, link=link.number),
        )


def _isolate(endpoint: Endpoint, host: RouteSocket) -> None:
    link = host.link(endpoint.link)
    if link:
        host.request(f"isolate {endpoint.link}", rtnetlink.set_bridge_port(link.number, isolated=True))


def remove(endpoint: Endpoint, host: RouteSocket) -> None:
    """Let go of the namespace and delete the pair, whichever of them is still there."""
    netns.delete(endpoint.netns_path)
    remove_link(host, endpoint.link)


def remove_link(host: RouteSocket, name: str) -> None:
    """Delete the link `name` unless it is gone. The kernel waits some milliseconds for all users of the device."""
    link = host.link(name)
    if link:
        try:
            host.request(f"delete {name}", rtnetlink.delete_link(link.number))
        except OSError as error:
            if error.errno != 19:  # ENODEV: it went with its namespace meanwhile
                raise
