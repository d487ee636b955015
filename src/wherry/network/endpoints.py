"""A container's network namespace and its wire to the bridge.

The host's end of the pair is named by the endpoint's id and bears the container's id as its alias; the container's end
is eth0, made right inside the new namespace, so that it never shows on the host.
"""

import errno
import os
import secrets

from wherry.errors import InvalidArgument, Unavailable
from wherry.linux import netns, rtnetlink
from wherry.linux.netlink import Message
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


def bring_up_loopback() -> None:
    """What every namespace has, to be called inside. Raises OSError."""
    with RouteSocket() as route:
        route.request("bring up lo", rtnetlink.set_link(_LOOPBACK, up=True))


def create_isolated(endpoint: Endpoint, spare: int | None) -> None:
    """Network "none": a namespace with nothing but lo; `spare` is one (`spare.Spare`). Raises OSError."""
    if spare is None:
        netns.create(endpoint.netns_path, bring_up_loopback)
    else:
        netns.keep(endpoint.netns_path, spare)


def create(
    endpoint: Endpoint, network: BridgeNetwork, host: RouteSocket, bridge: int, *, icc: bool, spare: int | None
) -> None:
    """Make and pin the endpoint's namespace, or pin the `spare` one, and wire it to link `bridge`. Without `icc` its
    port reaches no other port of the bridge. On failure nothing is left. Raises OSError."""

    port = _port(endpoint, icc=icc)

    def inside() -> None:
        # New interfaces start without IPv6: no link-local address, no autoconfiguration, no packet before we are done.
        write_sysctl("ipv6/conf/default/disable_ipv6", "1")
        fd = netns.open_current()
        try:
            host.request(f"create {endpoint.link}", *_pair(endpoint, network, bridge, fd, port))
        finally:
            os.close(fd)
        _configure(endpoint)
        write_sysctl("ipv6/conf/default/disable_ipv6", "0")

    netns.create(endpoint.netns_path, inside, spare)
    # The port of a bridge has no use for IPv6 of its own; a router advertisement must not reach the host by it.
    write_sysctl(f"ipv6/conf/{endpoint.link}/accept_ra", "0")
    write_sysctl(f"ipv6/conf/{endpoint.link}/disable_ipv6", "1")


def _pair(endpoint: Endpoint, network: BridgeNetwork, bridge: int, fd: int, port: Message) -> list[Message]:
    pair = rtnetlink.new_veth(
        endpoint.link, "eth0", peer_netns=fd, peer_mac=endpoint.mac, mtu=network.mtu, master=bridge
    )
    return [pair, port]


def _port(endpoint: Endpoint, *, icc: bool) -> Message:
    """The flags of the endpoint's port at the bridge. To be called in the host's namespace.

    Where br_netfilter is loaded (Docker loads it), bridged frames pass the firewall too. It then keeps neighbours apart
    itself, and a frame that it leads back to its sender is bridged, not routed, which needs hairpin mode.
    """
    filtered = bridge_filter_active()
    isolated = not icc and not filtered
    return rtnetlink.set_bridge_port(endpoint.link, alias=endpoint.container_id, isolated=isolated, hairpin=filtered)


def bridge_filter_active() -> bool:
    """Whether frames between ports of a bridge pass the IPv4 firewall."""
    return rtnetlink.read_sysctl("bridge/bridge-nf-call-iptables") == "1"


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


def remove_link(host: RouteSocket, name: str) -> None:
    """Delete the link `name` unless it is gone. The kernel waits some milliseconds for all users of the device."""
    link = host.link(name)
    if link:
        try:
            host.request(f"delete {name}", rtnetlink.delete_link(link.number))
        except OSError as error:
            if error.errno != errno.ENODEV:  # it went with its namespace meanwhile
                raise
