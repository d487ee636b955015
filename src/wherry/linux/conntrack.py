"""The kernel's table of tracked connections over nfnetlink: listed by destination, and forgotten.

A UDP flow goes where its first packet went for as long as packets keep coming; when a container is replaced, its flows
must be forgotten or a busy client never reaches the new one. Layouts: linux/netfilter/nfnetlink_conntrack.h.
"""

import errno
import ipaddress
import struct
from typing import NamedTuple

from wherry.linux.netlink import NETLINK_NETFILTER, Message, NetlinkError, Socket, attributes, nested

_SUBSYSTEM = 1 << 8
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_TUPLE_ORIG, _TUPLE_REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_V4_SRC, _IP_V4_DST = 1, 2
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
_head = struct.pack(">BBH", 2, 0, 0)


class Flow(NamedTuple):
    """An IPv4 connection: protocol number, where its first packet was addressed to, and `answerer`, who really answers
    (the destination after translation). `original` is the encoded key."""

    protocol: int
    destination: str
    port: int
    answerer: str
    original: bytes


def _decode(body: bytes) -> Flow | None:
    found = attributes(body, len(_head))
    original, reply = attributes(found.get(_TUPLE_ORIG, b"")), attributes(found.get(_TUPLE_REPLY, b""))
    addresses, answer = attributes(original.get(_TUPLE_IP, b"")), attributes(reply.get(_TUPLE_IP, b""))
    protocol = attributes(original.get(_TUPLE_PROTO, b""))
    if _IP_V4_DST not in addresses or _IP_V4_SRC not in answer:
        return None
    return Flow(
        protocol.get(_PROTO_NUM, b"\0")[0],
        str(ipaddress.IPv4Address(addresses[_IP_V4_DST])),
        int.from_bytes(protocol.get(_PROTO_DST_PORT, b""), "big"),
        str(ipaddress.IPv4Address(answer[_IP_V4_SRC])),
        found[_TUPLE_ORIG],
    )


class ConntrackSocket(Socket):
    """Connection tracking of the calling thread's network namespace."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def __enter__(self) -> "ConntrackSocket":
        return self

    def flows(self) -> list[Flow]:
        """All tracked IPv4 connections; none on a kernel that cannot list them."""
        try:
            found = self.dump("list connections", Message(_GET, 0, _head))
        except NetlinkError:
            return []
        return [flow for message in found if (flow := _decode(message.body))]

    def forget(self, flow: Flow) -> None:
        """Forget a connection; its next packet starts a new one. One that has ended meanwhile is fine."""
        try:
            self.request("forget a connection", Message(_DELETE, 0, _head + nested(_TUPLE_ORIG, flow.original)))
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
