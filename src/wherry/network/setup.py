"""Choosing the bridge network's parameters from the daemon's flags, and switching forwarding on."""

import ipaddress

from wherry.errors import InvalidArgument, NotFound
from wherry.linux.rtnetlink import RouteSocket, read_sysctl, write_sysctl
from wherry.network import bridge, ipam
from wherry.network.model import BridgeNetwork, NetworkOptions
from wherry.network.records import Records

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_FORWARD = "ipv4/ip_forward"


_LEAST_MTU, _LARGEST_MTU = 68, 65535
"""RFC 791, and what a bridge takes."""


def check_options(options: NetworkOptions) -> None:
    """What can be told of the flags without looking at the host. Raises `InvalidArgument`."""
    if options.mtu and not _LEAST_MTU <= options.mtu <= _LARGEST_MTU:
        raise InvalidArgument(f"invalid default MTU: {options.mtu}")
    for pool in options.default_address_pools:
        next(ipam.candidate_subnets([pool]))
    bridge_address = _interface(options.bip, "--bip") if options.bip else None
    if options.fixed_cidr:
        _range(options.fixed_cidr, bridge_address.network if bridge_address else None)


def choose(
    route: RouteSocket, network_id: str, options: NetworkOptions, current: BridgeNetwork | None, resolv_conf: str
) -> BridgeNetwork:
    """The bridge network that the flags ask for: what is on record where they leave it open and it still fits, new
    choices where not. Raises `InvalidArgument` for flags that contradict each other, `NotFound` for a bridge that the
    operator named and did not make."""
    if options.bridge:
        return _given(route, network_id, options)
    name = current.bridge if current and current.owned else ""
    link = route.link(name) if name else None
    if not name or (link and not bridge.is_ours(link, network_id)):
        name = bridge.free_name(route)
    if options.bip:
        address = _interface(options.bip, "--bip")
    elif current and current.owned and _still_free(route, current, link.number if link else 0):
        address = ipaddress.IPv4Interface(f"{current.gateway}/{ipaddress.IPv4Network(current.subnet).prefixlen}")
    else:
        taken = bridge.occupied(route, resolv_conf, besides=link.number if link else 0)
        subnet = ipam.choose_subnet(options.default_address_pools, taken)
        address = ipaddress.IPv4Interface((int(subnet.network_address) + 1, subnet.prefixlen))
    return _network(network_id, name, address, options, bridge.uplink_mtu(route), owned=True)


def _still_free(route: RouteSocket, current: BridgeNetwork, link: int) -> bool:
    """Whether the subnet on record is still nobody else's; while containers use it, it is kept whatever happens."""
    subnet = ipaddress.IPv4Network(current.subnet)
    return bool(link) or not any(subnet.overlaps(other) for other in bridge.occupied(route, "", besides=link))


def _given(route: RouteSocket, network_id: str, options: NetworkOptions) -> BridgeNetwork:
    """The network of a bridge that the operator made, by its own address."""
    link = route.link(options.bridge)
    if link is None or link.kind != "bridge":
        raise NotFound(f"bridge device with non default name {options.bridge} must be created manually")
    found = [one for one in route.addresses(link.number) if ":" not in one.address]
    if not found and not options.bip:
        raise InvalidArgument(f"bridge {options.bridge} has no IPv4 address and --bip gives none")
    text = options.bip or f"{found[0].address}/{found[0].prefix}"
    return _network(network_id, options.bridge, _interface(text, "--bip"), options, link.mtu, owned=False)


def _interface(text: str, flag: str) -> ipaddress.IPv4Interface:
    try:
        found = ipaddress.IPv4Interface(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid {flag} {text!r}: {error}") from None
    if found.ip == found.network.network_address or found.network.prefixlen > 30:
        raise InvalidArgument(f"invalid {flag} {text!r}: want an address of a subnet, such as 172.26.0.1/16")
    return found


def _range(text: str, subnet: ipaddress.IPv4Network | None) -> ipaddress.IPv4Network:
    """--fixed-cidr, a part of the bridge's `subnet`, where that is known."""
    try:
        found = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid --fixed-cidr {text!r}: {error}") from None
    if subnet and not found.subnet_of(subnet):
        raise InvalidArgument(f"--fixed-cidr {found} is not part of the bridge's subnet {subnet}")
    return found


def _network(
    network_id: str, name: str, address: ipaddress.IPv4Interface, options: NetworkOptions, mtu: int, *, owned: bool
) -> BridgeNetwork:
    ip_range = _range(options.fixed_cidr, address.network) if options.fixed_cidr else address.network
    return BridgeNetwork(
        id=network_id,
        bridge=name,
        subnet=str(address.network),
        gateway=str(address.ip),
        ip_range=str(ip_range),
        mtu=options.mtu or mtu,
        owned=owned,
    )


def enable_forwarding(route: RouteSocket, records: Records, bridge_name: str) -> tuple[str, ...]:
    """Switch IPv4 forwarding on unless it is; return the links that must not be forwarded between: those that were
    there when we did it, in this boot. None when the operator had it on."""
    with open(_BOOT_ID, encoding="ascii") as file:
        boot = file.read().strip()
    if read_sysctl(_FORWARD) != "1":
        names = [link.name for link in route.links() if link.name not in ("lo", bridge_name) and not link.master]
        records.set_host_value("forwarding", " ".join((boot, *names)))
        write_sysctl(_FORWARD, "1")
        return tuple(names)
    switched, *names = (records.host_value("forwarding") or "-").split(" ")
    return tuple(filter(None, names)) if switched == boot else ()
