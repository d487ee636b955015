"""What goes in and out of the network room: plain structs."""

from msgspec import Struct, field


class NetworkOptions(Struct, frozen=True, kw_only=True):
    """The daemon's network flags, under dockerd's names.

    `bip` is the bridge's own address with its prefix ("172.26.0.1/16"), `fixed_cidr` the part of its subnet that
    containers get addresses from, `default_address_pools` what to choose subnets from ({"base", "size"}), `mtu` 0 for
    that of the uplink, `ip` the host address for ports published without one, `bridge` an existing bridge to use, or
    "none" for no bridge network at all.
    """

    bridge: str = ""
    bip: str = ""
    fixed_cidr: str = ""
    default_address_pools: tuple[tuple[str, int], ...] = ()
    mtu: int = 0
    icc: bool = True
    ip: str = "0.0.0.0"
    ip_forward: bool = True
    ip_masq: bool = True
    iptables: bool = True


class AttachRequest(Struct, kw_only=True):
    """A container that is to get its network. `network` is "bridge" or "none". `exposed` holds "80/tcp"; `bindings`
    maps such a port to [{"HostIp", "HostPort"}], HostPort "" for any, "8000-8010" for one of these."""

    container_id: str
    name: str
    network: str = "bridge"
    mac: str | None = None
    ipv4: str | None = None
    exposed: list[str] = field(default_factory=list)
    bindings: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    publish_all: bool = False


class Endpoint(Struct, kw_only=True):
    """A container's place in a network. `ports` is Docker's: {"80/tcp": [{"HostIp", "HostPort"}] or None when the port
    is exposed but not published}."""

    id: str
    container_id: str
    name: str
    network_id: str
    network_name: str
    sandbox_id: str
    netns_path: str
    mac: str = ""
    ipv4: str = ""
    prefix: int = 0
    gateway: str = ""
    ports: dict[str, list[dict[str, str]] | None] = field(default_factory=dict)

    @property
    def link(self) -> str:
        """The name of the host's end of the veth pair."""
        return f"veth{self.id[:11]}"


class PublishedPort(Struct, frozen=True):
    """One port of the host that leads to one port of a container."""

    protocol: str
    host_ip: str
    host_port: int
    ip: str
    port: int


class BridgeNetwork(Struct, kw_only=True):
    """A network of driver bridge as its row has it. `owned` tells our own bridge from one given by the operator."""

    id: str
    bridge: str
    subnet: str
    gateway: str
    ip_range: str
    mtu: int
    owned: bool = True
