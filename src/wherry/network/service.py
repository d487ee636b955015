"""The networks of one engine: what the rest of the engine calls.

Every change writes its rows first and then acts on the kernel; what it makes is named by ids that the rows hold, so
that `reconcile` finds whatever a crash left between the two, and tells or undoes it.
"""

import errno
import ipaddress
import logging
import os
import secrets
from collections.abc import Callable
from typing import Any

from wherry import failpoint
from wherry.errors import Internal, InvalidArgument, NotFound, Unavailable, WherryError
from wherry.linux import netns
from wherry.linux.nftables import NftSocket
from wherry.linux.rtnetlink import RouteSocket
from wherry.network import bridge, describe, endpoints, flows, foreign, setup
from wherry.network.cleanup import Cleaner
from wherry.network.files import host_resolv_conf
from wherry.network.firewall import BridgeRules, State
from wherry.network.ipam import AddressAllocator
from wherry.network.model import AttachRequest, BridgeNetwork, Endpoint, NetworkOptions, PublishedPort
from wherry.network.ports import Binding, PortAllocator, parse_bindings, parse_port
from wherry.network.reconcile import Reconciler
from wherry.network.records import MIGRATIONS, NetworkRow, Records
from wherry.network.ruleset import Ruleset
from wherry.network.spare import Spare
from wherry.store.db import Database
from wherry.store.paths import Paths

__all__ = ["MIGRATIONS", "NetworkService"]

log = logging.getLogger(__name__)

_LACKING = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EROFS)
"""How a kernel says that it has not got something, or not for us."""
_FAILED = "failed to set up container networking"


class NetworkService:
    """All methods block, for milliseconds, and may be called from any thread of the network namespace that `start` was
    called in."""

    def __init__(self, db: Database, paths: Paths, options: NetworkOptions) -> None:
        self.options = options
        self.records = Records(db)
        self.warnings: list[str] = []
        self._paths = paths
        self._addresses = AddressAllocator()
        self._ports = PortAllocator()
        self._bridge: BridgeNetwork | None = None
        self._unavailable = ""
        """Why there is no bridge although one is wanted; "" otherwise."""
        self._kernel: NftSocket | None = None
        self._ruleset: Ruleset | None = None
        """The firewall; None when it is not ours to manage."""
        self._attaching: set[str] = set()
        self._spare = Spare()
        self._started = False

    # ---- life

    def start(self) -> None:
        """Make or repair the bridge, forwarding and the firewall, and hold the ports that live containers publish.
        `warnings` tells what is not as it should be. Idempotent. Raises `WherryError` or OSError."""
        if not self._started:
            self._route = RouteSocket()
            self._cleaner = Cleaner(self._route)
        self._started = True
        self.warnings = []
        self.records.ensure_predefined()
        self._unavailable = ""
        if self.options.bridge == "none":
            return
        try:
            self._start_bridge()
        except OSError as error:
            if error.errno not in _LACKING:
                raise
            self._bridge, self._unavailable = None, f"the bridge network is not available: {_lacking(error)}"
            others = "host" if error.errno == errno.EPERM else "none and host"
            self.warnings.append(f"{self._unavailable}. Containers of --network {others} run all the same")

    def _start_bridge(self) -> None:
        if self.options.iptables and self._ruleset is None:
            self._kernel = NftSocket()
            self._ruleset = Ruleset(self._kernel)
        lock = netns.lock()  # another engine that starts now must see our bridge and subnet, or we its
        try:
            network = self._make_bridge()
        finally:
            os.close(lock)
        self._bridge = network
        uplinks = setup.enable_forwarding(self._route, self.records, network.bridge) if self.options.ip_forward else ()
        if self._ruleset and self._kernel:
            self._ruleset.apply(self._firewall_state(network, uplinks), self.records.ports())
            self._ruleset.watch()
            self.warnings += foreign.obstacles(self._kernel)
        self.warnings += self._reconciler().hold_ports(dry_run=False)

    def _make_bridge(self) -> BridgeNetwork:
        """Choose the bridge network, record it, and make its bridge."""
        row = self.records.network("bridge")
        network = setup.choose(self._route, row.id, self.options, row.bridge, host_resolv_conf()[1])
        if row.bridge:
            self._leave(row.bridge, network)
        self.records.save_bridge(row.id, network)
        failpoint.hit("network.start.recorded")
        if network.owned:
            bridge.ensure(self._route, network)
        else:
            bridge.configure(network.bridge)
        failpoint.hit("network.start.bridge")
        return network

    def _leave(self, old: BridgeNetwork, new: BridgeNetwork) -> None:
        """When the flags, or somebody else's link of that name, lead to another bridge or subnet than before."""
        if self.records.endpoints() and (old.bridge, old.subnet) != (new.bridge, new.subnet):
            self.warnings.append(
                f"running containers are cut off: the bridge was {old.bridge} with {old.subnet} when they started "
                f"and is {new.bridge} with {new.subnet}"
            )
        if old.bridge != new.bridge:
            if self._ruleset:
                self._ruleset.remove_other(f"wherry-{old.bridge}", old.bridge)
            if old.owned:
                bridge.remove(self._route, old)

    def _firewall_state(self, network: BridgeNetwork, uplinks: tuple[str, ...]) -> State:
        rules = BridgeRules(network.bridge, network.subnet, network.gateway, self.options.icc, self.options.ip_masq)
        return State(f"wherry-{network.bridge}", (rules,), uplinks)

    def stop(self) -> None:
        """Let go of the host. While containers have endpoints, all that serves them stays; otherwise the bridge and the
        firewall go as well."""
        if not self._started:
            return
        self._cleaner.flush()
        self._spare.drop()
        if self._ruleset:
            self._ruleset.unwatch()
        self._ports.release_all()
        if not self.records.endpoints():
            if self._ruleset:
                self._ruleset.remove()
            if self._bridge and self._bridge.owned:
                bridge.remove(self._route, self._bridge)
        self._route.close()
        if self._kernel:
            self._kernel.close()
        self._kernel = self._ruleset = None
        self._bridge = None
        self._started = False

    # ---- endpoints

    def attach(self, request: AttachRequest) -> Endpoint:
        """Make, pin and configure the container's network namespace and publish its ports; what a former life of the
        container left is removed first. Nothing is left when it fails. Raises `WherryError` with Docker's words."""
        self._attaching.add(request.container_id)
        try:
            self.detach(request.container_id)
            return self._attach(request)
        except BaseException:
            with self._ports.lock:  # chosen, but their rows could not be written
                self._ports.release(request.container_id)
            raise
        finally:
            self._attaching.discard(request.container_id)

    def _attach(self, request: AttachRequest) -> Endpoint:
        row = self.records.network(request.network)
        if row.driver == "bridge" and self._unavailable:
            raise Unavailable(self._unavailable)
        if row.driver == "bridge" and self._bridge is None:
            raise NotFound(f"network {request.network} not found")
        wishes = [] if row.driver == "null" else self._wishes(request)
        endpoint = self._endpoint(request, row)
        published = self._record(request, endpoint, wishes)
        failpoint.hit("network.attach.recorded")
        try:
            self._connect(endpoint)
            failpoint.hit("network.attach.connected")
            self._publish(endpoint, published)
        except BaseException as error:
            self.detach(request.container_id)
            if isinstance(error, OSError):
                raise Internal(f"{_FAILED}: {error}") from error
            raise
        return endpoint

    def _wishes(self, request: AttachRequest) -> list[Binding]:
        wishes = parse_bindings(
            request.bindings, request.exposed, publish_all=request.publish_all, default_ip=self.options.ip
        )
        if wishes and self._ruleset is None:
            raise InvalidArgument("ports cannot be published: the daemon runs with --iptables=false")
        return wishes

    def _endpoint(self, request: AttachRequest, row: NetworkRow) -> Endpoint:
        """A new endpoint without address and ports. Raises `InvalidArgument`."""
        endpoint = Endpoint(
            id=secrets.token_hex(32),
            container_id=request.container_id,
            name=request.name,
            network_id=row.id,
            network_name=row.name,
            sandbox_id=secrets.token_hex(32),
            netns_path=str(self._paths.netns_pin(request.container_id)),
        )
        if row.driver == "bridge" and self._bridge:
            endpoint.mac = endpoints.parse_mac(request.mac) if request.mac else endpoints.random_mac()
            endpoint.gateway = self._bridge.gateway
            endpoint.prefix = ipaddress.IPv4Network(self._bridge.subnet).prefixlen
            endpoint.ports = {"/".join(map(str, parse_port(key))): None for key in request.exposed}
        return endpoint

    def _record(self, request: AttachRequest, endpoint: Endpoint, wishes: list[Binding]) -> list[PublishedPort]:
        """Give the endpoint its address and ports, and write the rows."""
        published: list[PublishedPort] = []
        try:
            with self.records.db.transaction(durable=False) as tx:  # no namespace outlives a power cut
                if self._bridge and endpoint.mac:
                    endpoint.ipv4 = self._addresses.allocate(tx, self._bridge, request.ipv4)
                    published = self._ports.choose(tx, request.container_id, endpoint.ipv4, wishes)
                _list_ports(endpoint, published)
                self.records.add_endpoint(tx, endpoint)
        except InvalidArgument:
            raise
        except Internal as error:
            raise Internal(_programming(endpoint, error)) from None
        except WherryError as error:
            raise type(error)(f"{_FAILED}: {error}") from None
        return published

    def _connect(self, endpoint: Endpoint) -> None:
        spare = self._spare.take()
        try:
            self._create(endpoint, spare)
        finally:
            if spare is not None:
                os.close(spare)
            self._cleaner.soon(self._spare.make, "make a network namespace")

    def _create(self, endpoint: Endpoint, spare: int | None) -> None:
        if not endpoint.ipv4 or self._bridge is None:
            endpoints.create_isolated(endpoint, spare)
            return
        link = self._route.link(self._bridge.bridge)
        if link is None:
            link = bridge.ensure(self._route, self._bridge)
        endpoints.create(endpoint, self._bridge, self._route, link.number, icc=self.options.icc, spare=spare)

    def _publish(self, endpoint: Endpoint, published: list[PublishedPort]) -> None:
        if not published or self._ruleset is None:
            return
        self._ruleset.publish(published)
        flows.forget_others(published)
        failpoint.hit("network.attach.published")
        try:
            self._ports.claim(endpoint.container_id)
        except OSError as error:
            raise Internal(
                _programming(endpoint, f"failed to listen on TCP socket: {(error.strerror or '').lower()}")
            ) from None

    def detach(self, container_id: str) -> None:
        """Take the container's network away. Idempotent; the kernel's slow part happens in the background."""
        if self.records.endpoints(container_id):
            with self._ports.lock:
                self._detach(container_id)

    def _detach(self, container_id: str) -> None:
        found = self.records.endpoints(container_id)
        self._ports.release(container_id)
        published = self.records.ports(container_id)
        if self._ruleset:
            self._ruleset.unpublish(published)
        failpoint.hit("network.detach.unpublished")
        netns.delete(str(self._paths.netns_pin(container_id)))
        failpoint.hit("network.detach.unpinned")
        self.records.forget(container_id)
        self._cleaner.forget_flows(published)
        for endpoint in found:
            if endpoint.ipv4:
                self._cleaner.expect_gone(endpoint.link)

    def endpoint(self, container_id: str) -> Endpoint | None:
        """The container's endpoint, None when it has none now."""
        found = self.records.endpoints(container_id)
        return found[0] if found else None

    # ---- listings

    def networks(self) -> list[dict[str, Any]]:
        """All networks as the wire's Network, without containers, as GET /networks lists them."""
        return [describe.network(row, self.options, []) for row in self._visible()]

    def inspect(self, reference: str) -> dict[str, Any]:
        """One network by name, id or prefix of its id, with its containers. Raises `NotFound`."""
        row = self.records.find(reference)
        if row not in self._visible():
            raise NotFound(f"network {reference} not found")
        members = [endpoint for endpoint in self.records.endpoints() if endpoint.network_id == row.id]
        return describe.network(row, self.options, members)

    def _visible(self) -> list[NetworkRow]:
        return [row for row in self.records.networks() if row.driver != "bridge" or row.bridge]

    @property
    def gateway(self) -> str:
        """The bridge's own address, which is what host-gateway means by default; "" without a bridge."""
        return self._bridge.gateway if self._bridge else ""

    # ---- repair

    def reconcile(self, live: set[str] | Callable[[], set[str]], *, dry_run: bool = False) -> list[str]:
        """Make the host what the rows of the containers in `live` ask for, and remove what belongs to none of them;
        return in words what was wrong. With `dry_run` nothing is changed: the leak check. While containers start, give
        `live` as a function: it is called after the rows are read, and must know a container before it is attached."""
        self._cleaner.flush()

        def alive() -> set[str]:
            return (live() if callable(live) else live) | self._attaching

        return self._reconciler().run(alive, dry_run=dry_run)

    def _reconciler(self) -> Reconciler:
        return Reconciler(
            records=self.records,
            pins=str(self._paths.netns),
            network=self._bridge,
            route=self._route,
            ruleset=self._ruleset,
            ports=self._ports,
            attaching=self._attaching,
            detach=self.detach,
        )


def _list_ports(endpoint: Endpoint, published: list[PublishedPort]) -> None:
    for port in published:
        entry = {"HostIp": port.host_ip, "HostPort": str(port.host_port)}
        key = f"{port.port}/{port.protocol}"
        endpoint.ports[key] = [*(endpoint.ports.get(key) or []), entry]


def _programming(endpoint: Endpoint, error: object) -> str:
    where = f"driver failed programming external connectivity on endpoint {endpoint.name} ({endpoint.id})"
    return f"{_FAILED}: {where}: {error}"


def _lacking(error: OSError) -> str:
    """What a host lacks on which the bridge could not be made, and how to mend it."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"making links and firewall rules is not permitted (wherryd needs CAP_NET_ADMIN): {error}"
    if error.errno == errno.EROFS:
        return f"the kernel's settings are read-only (mount /proc/sys writably): {error}"
    if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
        return (
            "the kernel has no nf_tables (modprobe nf_tables nfnetlink, or give --iptables=false for a bridge without "
            f"published ports and without a way out): {error}"
        )
    return f"the kernel lacks bridges, veth pairs or nf_tables (modprobe bridge veth nf_tables): {error}"
