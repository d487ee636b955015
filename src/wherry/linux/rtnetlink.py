"""rtnetlink(7): links, addresses, routes, neighbours. Changes are `Message` values, so that several go to the kernel in
one system call (`Socket.request`); listings are small tuples. Addresses are text ("192.0.2.1"), MACs "02:00:..".
"""

import errno
import ipaddress
import os
import socket
import struct
from typing import NamedTuple

from wherry.linux.netlink import (
    CREATE,
    EXCL,
    NETLINK_ROUTE,
    REPLACE,
    Message,
    NetlinkError,
    Socket,
    attr,
    attr_string,
    attr_u8,
    attr_u32,
    attributes,
    nested,
    text,
)

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_IFALIAS, _IFLA_NET_NS_FD = 20, 28
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_BRPORT_HAIRPIN, _BRPORT_ISOLATED = 4, 33
_IFF_UP = 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80

TABLE_MAIN = 254
_PROTOCOL_BOOT, _SCOPE_UNIVERSE, _SCOPE_LINK, _UNICAST = 3, 0, 253, 1

_ifinfomsg = struct.Struct("=BxHiII")
_ifaddrmsg = struct.Struct("=BBBBi")
_rtmsg = struct.Struct("=BBBBBBBBI")
_ndmsg = struct.Struct("=BxxxiHBB")


class Link(NamedTuple):
    """A network interface; `master` is an interface number, 0 for none; `kind` is "" for hardware."""

    number: int
    name: str
    kind: str
    flags: int
    mtu: int
    mac: str
    master: int
    alias: str

    @property
    def up(self) -> bool:
        return bool(self.flags & _IFF_UP)


class Address(NamedTuple):
    link: int
    address: str
    prefix: int


class Route(NamedTuple):
    """`destination` is "0.0.0.0/0" or "::/0" for the default route; `gateway` is "" on the link itself."""

    destination: str
    gateway: str
    link: int
    table: int
    type: int


class Neighbour(NamedTuple):
    link: int
    address: str
    mac: str
    state: int


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def _link_message(index: int, *, up: bool | None) -> bytes:
    return _ifinfomsg.pack(0, 0, index, int(bool(up)), 0 if up is None else _IFF_UP)


def _link_attributes(name: str, mac: str, mtu: int, master: int, alias: str | None) -> bytes:
    parts = []
    if name:
        parts.append(attr_string(_IFLA_IFNAME, name))
    if mac:
        parts.append(attr(_IFLA_ADDRESS, _mac(mac)))
    if mtu:
        parts.append(attr_u32(_IFLA_MTU, mtu))
    if master:
        parts.append(attr_u32(_IFLA_MASTER, master))
    if alias is not None:
        parts.append(attr(_IFLA_IFALIAS, alias.encode()))
    return b"".join(parts)


def new_link(
    name: str, kind: str, *, mac: str = "", mtu: int = 0, master: int = 0, up: bool | None = None, data: bytes = b""
) -> Message:
    """A new link of `kind` ("bridge", "dummy", "veth", ...); `data` is the kind's own IFLA_INFO_DATA content."""
    info = attr_string(_INFO_KIND, kind) + (nested(_INFO_DATA, data) if data else b"")
    body = _link_message(0, up=up) + _link_attributes(name, mac, mtu, master, None) + nested(_IFLA_LINKINFO, info)
    return Message(_NEWLINK, CREATE | EXCL, body)


def new_veth(
    name: str, peer: str, *, peer_netns: int, peer_mac: str = "", mac: str = "", mtu: int = 0, master: int = 0
) -> Message:
    """A veth pair: `name` here and up, `peer` in the network namespace of file descriptor `peer_netns`, still down: the
    kernel refuses (ENOTCONN) to bring up an end that has no other end yet."""
    other = _link_message(0, up=None) + _link_attributes(peer, peer_mac, mtu, 0, None)
    data = nested(_VETH_INFO_PEER, other + attr_u32(_IFLA_NET_NS_FD, peer_netns))
    return new_link(name, "veth", mac=mac, mtu=mtu, master=master, up=True, data=data)


def set_link(
    index: int,
    *,
    name: str = "",
    mac: str = "",
    mtu: int = 0,
    master: int = 0,
    alias: str | None = None,
    up: bool | None = None,
) -> Message:
    """Change what is given of link `index`."""
    return Message(_SETLINK, 0, _link_message(index, up=up) + _link_attributes(name, mac, mtu, master, alias))


def set_bridge_port(name: str, *, alias: str | None = None, isolated: bool = False, hairpin: bool = False) -> Message:
    """Set the alias (up to 255 bytes; ip link shows it) and the flags of the bridge port called `name`: isolated ports
    do not see each other, hairpin lets frames go back out by the port they came in."""
    flags = attr_u8(_BRPORT_ISOLATED, isolated) + attr_u8(_BRPORT_HAIRPIN, hairpin)
    info = attr_string(_INFO_SLAVE_KIND, "bridge") + nested(_INFO_SLAVE_DATA, flags)
    named = _link_message(0, up=None) + _link_attributes(name, "", 0, 0, alias)
    return Message(_NEWLINK, 0, named + nested(_IFLA_LINKINFO, info))


def delete_link(index: int) -> Message:
    return Message(_DELLINK, 0, _link_message(index, up=None))


def _family(address: str) -> tuple[int, bytes]:
    parsed = ipaddress.ip_address(address)
    return (socket.AF_INET if parsed.version == 4 else socket.AF_INET6), parsed.packed


def new_address(index: int, address: str, prefix: int) -> Message:
    """Give link `index` an address, for IPv4 with its broadcast address; the same one again is no error."""
    family, packed = _family(address)
    body = _ifaddrmsg.pack(family, prefix, 0, 0, index) + attr(_IFA_LOCAL, packed) + attr(_IFA_ADDRESS, packed)
    if family == socket.AF_INET and prefix < 31:
        network = ipaddress.IPv4Network((packed, prefix), strict=False)
        body += attr(_IFA_BROADCAST, network.broadcast_address.packed)
    return Message(_NEWADDR, CREATE | REPLACE, body)


def delete_address(index: int, address: str, prefix: int) -> Message:
    family, packed = _family(address)
    return Message(_DELADDR, 0, _ifaddrmsg.pack(family, prefix, 0, 0, index) + attr(_IFA_LOCAL, packed))


def _route(destination: str, gateway: str, link: int, metric: int) -> bytes:
    network = ipaddress.ip_network(destination)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    scope = _SCOPE_UNIVERSE if gateway or family == socket.AF_INET6 else _SCOPE_LINK
    body = _rtmsg.pack(family, network.prefixlen, 0, 0, TABLE_MAIN, _PROTOCOL_BOOT, scope, _UNICAST, 0)
    if network.prefixlen:
        body += attr(_RTA_DST, network.network_address.packed)
    if gateway:
        body += attr(_RTA_GATEWAY, ipaddress.ip_address(gateway).packed)
    if link:
        body += attr_u32(_RTA_OIF, link)
    if metric:
        body += attr_u32(_RTA_PRIORITY, metric)
    return body


def new_route(destination: str, *, gateway: str = "", link: int = 0, metric: int = 0) -> Message:
    """A route to `destination` ("0.0.0.0/0" is the default) in the main table, by gateway, link or both."""
    return Message(_NEWROUTE, CREATE | REPLACE, _route(destination, gateway, link, metric))


def delete_route(destination: str, *, gateway: str = "", link: int = 0, metric: int = 0) -> Message:
    return Message(_DELROUTE, 0, _route(destination, gateway, link, metric))


def new_neighbour(link: int, address: str, mac: str) -> Message:
    """A permanent ARP or NDP entry."""
    family, packed = _family(address)
    body = _ndmsg.pack(family, link, _NUD_PERMANENT, 0, _UNICAST) + attr(_NDA_DST, packed)
    return Message(_NEWNEIGH, CREATE | REPLACE, body + attr(_NDA_LLADDR, _mac(mac)))


def delete_neighbour(link: int, address: str) -> Message:
    family, packed = _family(address)
    return Message(_DELNEIGH, 0, _ndmsg.pack(family, link, 0, 0, 0) + attr(_NDA_DST, packed))


def _u32(payload: bytes | None) -> int:
    return int(struct.unpack("=I", payload)[0]) if payload else 0


def _decode_link(body: bytes) -> Link:
    _, _, index, flags, _ = _ifinfomsg.unpack_from(body)
    found = attributes(body, _ifinfomsg.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index,
        text(found.get(_IFLA_IFNAME, b"")),
        text(info.get(_INFO_KIND, b"")),
        flags,
        _u32(found.get(_IFLA_MTU)),
        found.get(_IFLA_ADDRESS, b"").hex(":"),
        _u32(found.get(_IFLA_MASTER)),
        text(found.get(_IFLA_IFALIAS, b"")),
    )


def _decode_route(body: bytes) -> Route | None:
    family, length, _, _, table, _, _, kind, _ = _rtmsg.unpack_from(body)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    found = attributes(body, _rtmsg.size)
    size = 4 if family == socket.AF_INET else 16
    network = ipaddress.ip_network((found.get(_RTA_DST, bytes(size)), length), strict=False)
    gateway = str(ipaddress.ip_address(found[_RTA_GATEWAY])) if _RTA_GATEWAY in found else ""
    return Route(str(network), gateway, _u32(found.get(_RTA_OIF)), _u32(found.get(_RTA_TABLE)) or table, kind)


class RouteSocket(Socket):
    """rtnetlink of the calling thread's network namespace."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    def __enter__(self) -> "RouteSocket":
        return self

    def links(self) -> list[Link]:
        """All links."""
        return [
            _decode_link(m.body) for m in self.dump("list links", Message(_GETLINK, 0, _ifinfomsg.pack(0, 0, 0, 0, 0)))
        ]

    def link(self, name: str) -> Link | None:
        """The link called `name`, if there is one."""
        body = _ifinfomsg.pack(0, 0, 0, 0, 0) + attr_string(_IFLA_IFNAME, name)
        try:
            return _decode_link(self.get(f"look up link {name}", Message(_GETLINK, 0, body)).body)
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def addresses(self, link: int = 0) -> list[Address]:
        """The addresses of link `link`, 0 for all links."""
        found = []
        for message in self.dump("list addresses", Message(_GETADDR, 0, _ifaddrmsg.pack(0, 0, 0, 0, 0))):
            _, prefix, _, _, index = _ifaddrmsg.unpack_from(message.body)
            values = attributes(message.body, _ifaddrmsg.size)
            packed = values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS, b""))
            if packed and link in (0, index):
                found.append(Address(index, str(ipaddress.ip_address(packed)), prefix))
        return found

    def routes(self, family: int = socket.AF_INET) -> list[Route]:
        """The routes of all tables of a family."""
        messages = self.dump("list routes", Message(_GETROUTE, 0, _rtmsg.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)))
        return [route for message in messages if (route := _decode_route(message.body))]

    def neighbours(self, family: int = socket.AF_INET) -> list[Neighbour]:
        """The ARP (or NDP) table."""
        found = []
        for message in self.dump("list neighbours", Message(_GETNEIGH, 0, _ndmsg.pack(family, 0, 0, 0, 0))):
            _, index, state, _, _ = _ndmsg.unpack_from(message.body)
            values = attributes(message.body, _ndmsg.size)
            if _NDA_DST in values:
                address = str(ipaddress.ip_address(values[_NDA_DST]))
                found.append(Neighbour(index, address, values.get(_NDA_LLADDR, b"").hex(":"), state))
        return found


def write_sysctl(name: str, value: str) -> bool:
    """Write /proc/sys/net/`name` of the calling thread's network namespace; False when this kernel has no such file."""
    try:
        fd = os.open(f"/proc/sys/net/{name}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
    return True


def read_sysctl(name: str) -> str | None:
    """Read /proc/sys/net/`name` without its newline; None when this kernel has no such file."""
    try:
        fd = os.open(f"/proc/sys/net/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)
