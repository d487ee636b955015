"""What should be on the host, what is, and what to do about the difference."""

import os
from collections.abc import Callable

from wherry.linux import netns, rtnetlink
from wherry.linux.rtnetlink import Link, RouteSocket
from wherry.network import bridge, endpoints
from wherry.network.model import BridgeNetwork, Endpoint
from wherry.network.ports import PortAllocator
from wherry.network.records import Records
from wherry.network.ruleset import Ruleset


class Reconciler:
    """One comparison of rows and host. Each check returns what is wrong, in words, and mends it unless `dry_run`."""

    def __init__(
        self,
        *,
        records: Records,
        pins: str,
        network: BridgeNetwork | None,
        route: RouteSocket,
        ruleset: Ruleset | None,
        ports: PortAllocator,
        attaching: set[str],
        detach: Callable[[str], None],
    ) -> None:
        self._records = records
        self._pins = pins
        self._network = network
        self._route = route
        self._ruleset = ruleset
        self._ports = ports
        self._attaching = attaching
        self._detach = detach

    def run(self, live: Callable[[], set[str]], *, dry_run: bool) -> list[str]:
        """All checks. Whatever is made while they run is safe: a row is there before what it names, and a container is
        live before its row; so each check looks at the things first and at those who own them afterwards."""
        found = self._rows(live, dry_run=dry_run)
        found += self._namespaces(live, dry_run=dry_run)
        found += self._bridge(dry_run=dry_run)
        found += self._links(dry_run=dry_run)
        if self._ruleset:
            found += self._ruleset.problems() if dry_run else self._ruleset.repair()
        return found + self.hold_ports(dry_run=dry_run)

    def _rows(self, live: Callable[[], set[str]], *, dry_run: bool) -> list[str]:
        """Endpoints of containers that are no more."""
        stale = {endpoint.container_id for endpoint in self._records.endpoints()}
        stale -= live()
        for container_id in stale if not dry_run else ():
            self._detach(container_id)
        return [f"endpoint of container {container_id}, which is not running" for container_id in sorted(stale)]

    def _namespaces(self, live: Callable[[], set[str]], *, dry_run: bool) -> list[str]:
        """Pins that no endpoint has, and endpoints whose pin is gone."""
        stale = set(os.listdir(self._pins))
        stale -= {endpoint.container_id for endpoint in self._records.endpoints()}
        for name in stale if not dry_run else ():
            netns.delete(os.path.join(self._pins, name))
        found = [f"network namespace of {name}, which has no endpoint" for name in sorted(stale)]
        alive = live()
        return found + [
            f"container {endpoint.container_id} has lost its network namespace"
            for endpoint in self._records.endpoints()
            if endpoint.container_id in alive - self._attaching and not netns.is_pinned(endpoint.netns_path)
        ]

    def _bridge(self, *, dry_run: bool) -> list[str]:
        if self._network is None:
            return []
        found = bridge.problems(self._route, self._network)
        if found and not dry_run and self._network.owned:
            bridge.ensure(self._route, self._network)
        return found

    def _links(self, *, dry_run: bool) -> list[str]:
        """Ends of veth pairs at our bridge that no endpoint has, and endpoints whose end is not at the bridge."""
        network = self._network
        master = self._route.link(network.bridge) if network else None
        if master is None:
            return []
        links = [link for link in self._route.links() if link.kind == "veth"]
        wanted = {endpoint.link: endpoint for endpoint in self._records.endpoints() if endpoint.ipv4}
        found = []
        for link in links:
            if link.name in wanted:
                found += self._port(link, wanted[link.name], master, dry_run=dry_run)
            elif link.master == master.number and link.name.startswith("veth"):
                found.append(f"link {link.name} of container {link.alias or '?'}, which has no endpoint")
                if not dry_run:
                    endpoints.remove_link(self._route, link.name)
        return found

    def _port(self, link: Link, endpoint: Endpoint, master: Link, *, dry_run: bool) -> list[str]:
        if link.master == master.number and link.up:
            return []
        if not dry_run:
            self._route.request(
                f"reconnect {link.name}", rtnetlink.set_link(link.number, master=master.number, up=True)
            )
        return [f"link {link.name} of container {endpoint.container_id} is not at bridge {master.name}"]

    def hold_ports(self, *, dry_run: bool) -> list[str]:
        """Published ports that no socket of ours holds, as after a restart of the daemon."""
        with self._ports.lock:
            containers = sorted({endpoint.container_id for endpoint in self._records.endpoints()})
            return [problem for one in containers for problem in self._hold_ports_of(one, dry_run=dry_run)]

    def _hold_ports_of(self, container_id: str, *, dry_run: bool) -> list[str]:
        found = []
        missing = [port for port in self._records.ports(container_id) if not self._ports.holds(container_id, port)]
        for port in missing:
            where = f"port {port.host_ip}:{port.host_port}/{port.protocol} of container {container_id}"
            if dry_run:
                found.append(f"{where} is not held")
                continue
            try:
                self._ports.hold(container_id, port)
            except OSError as error:
                # It stays published: the firewall leads packets to the container before any local process.
                found.append(f"{where} is also in use by another process: {error.strerror}")
        if missing and not dry_run:
            self._claim(container_id, found)
        return found

    def _claim(self, container_id: str, found: list[str]) -> None:
        try:
            self._ports.claim(container_id)
        except OSError as error:
            found.append(f"a port of container {container_id} is also in use by another process: {error.strerror}")
