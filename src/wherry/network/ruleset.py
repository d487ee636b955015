"""The firewall in the kernel: the plan applied, ports published, and all of it restored when someone flushes it."""

import logging
import os
import select
import threading

from wherry.linux import nftables as nf
from wherry.linux.netlink import NETLINK_NETFILTER, Monitor, NetlinkError
from wherry.linux.nftables import Batch, NftSocket
from wherry.network import firewall, foreign
from wherry.network.firewall import PORTS, PORTS_AT, UPLINKS, State
from wherry.network.model import PublishedPort

log = logging.getLogger(__name__)

_Listing = tuple[object, ...]
_SETTLE_MS = 20
"""How long a burst of changes by others is let pass before the rules are looked at."""


class Ruleset:
    """Our table, as it should be and as it is. All methods may be called from any thread."""

    def __init__(self, kernel: NftSocket) -> None:
        self._kernel = kernel
        self._lock = threading.RLock()
        self._state: State | None = None
        self._ports: dict[PublishedPort, None] = {}
        self._listing: _Listing = ()
        self._watch: _Watch | None = None

    def apply(self, state: State, ports: list[PublishedPort]) -> None:
        """Replace the table by what `state` and `ports` ask for, at once: no moment without rules. Raises
        `NetlinkError`."""
        with self._lock:
            self._state, self._ports = state, dict.fromkeys(ports)
            self._install()

    def _install(self) -> None:
        state = self._state
        if state is None:
            return
        self._kernel.commit("replace the firewall", firewall.plan(state).batch(self._ports))
        self._listing = self._list(state)
        for bridge in state.bridges:
            foreign.allow(self._kernel, bridge.bridge)

    def _list(self, state: State) -> _Listing:
        """The kernel's own listing of all of our table but the ports: what it is compared with later."""
        chains = tuple(chain for chain in self._kernel.chains() if (chain.family, chain.table) == (nf.IP, state.table))
        rules = tuple(rule._replace(handle=0) for rule in self._kernel.rules(nf.IP, state.table))
        uplinks = frozenset(self._kernel.elements(nf.IP, state.table, UPLINKS.name))
        return chains, rules, tuple(self._kernel.sets(nf.IP, state.table)), uplinks

    def publish(self, ports: list[PublishedPort]) -> None:
        """Lead `ports` to their containers. Raises `NetlinkError`."""
        with self._lock:
            self._ports.update(dict.fromkeys(ports))
            if not ports or self._state is None:
                return
            batch = Batch(nf.IP, self._state.table)
            firewall.publish(batch, *ports)
            try:
                self._kernel.commit("publish ports", batch)
            except NetlinkError:
                self._install()  # the table is not what we left: make it whole again, these ports with it

    def unpublish(self, ports: list[PublishedPort]) -> None:
        """Lead `ports` nowhere any more."""
        with self._lock:
            known = [port for port in ports if port in self._ports]
            for port in known:
                del self._ports[port]
            if not known or self._state is None:
                return
            batch = Batch(nf.IP, self._state.table)
            firewall.unpublish(batch, *known)
            try:
                self._kernel.commit("withdraw ports", batch)
            except NetlinkError:
                self._install()

    def problems(self) -> list[str]:
        """How the kernel's rules differ from what they should be, in words."""
        with self._lock:
            state = self._state
            if state is None:
                return []
            found = []
            if self._list(state) != self._listing:
                found.append(f"table {state.table} is not as it was made")
            expected = {firewall.element(port) for port in self._ports}
            for description in (PORTS, PORTS_AT):
                wanted = {item for where, item in expected if where is description}
                if set(self._kernel.elements(nf.IP, state.table, description.name)) != wanted:
                    found.append(f"map {description.name} of table {state.table} differs from the published ports")
            found += [
                f"the host's firewall lacks the rules for {bridge.bridge}"
                for bridge in state.bridges
                if foreign.missing(self._kernel, bridge.bridge)
            ]
            return found

    def repair(self) -> list[str]:
        """Make the kernel's rules what they should be; return what was wrong."""
        with self._lock:
            found = self.problems()
            if found:
                self._install()
            return found

    def remove(self) -> None:
        """Delete our table and our rules elsewhere."""
        self.unwatch()
        with self._lock:
            state, self._state = self._state, None
            self._ports.clear()
            if state is None:
                return
            for bridge in state.bridges:
                self.remove_other(state.table, bridge.bridge)

    def remove_other(self, table: str, bridge: str) -> None:
        """Delete a table that was ours, and our rules for `bridge` elsewhere."""
        batch = Batch(nf.IP, table)
        batch.add_table()
        batch.delete_table()
        self._kernel.commit("remove the firewall", batch)
        foreign.withdraw(self._kernel, bridge)

    def watch(self) -> None:
        """From now on repair the rules within moments of anyone changing them."""
        if self._watch is None:
            self._watch = _Watch(self, self._kernel.port)

    def unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch:
            watch.stop()


class _Watch:
    """A thread that listens to the kernel's notifications of nf_tables and has the rules repaired."""

    def __init__(self, ruleset: Ruleset, own_port: int) -> None:
        self._ruleset = ruleset
        self._own_port = own_port
        self._monitor = Monitor(NETLINK_NETFILTER, [nf.NOTIFY_GROUP])
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="firewall-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._monitor.close()
        os.close(self._wake)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._monitor.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        foreign_change = False
        while True:
            ready = {fd for fd, _ in poll.poll(_SETTLE_MS if foreign_change else None)}
            if self._wake in ready:
                return
            if ready:
                foreign_change = self._read() or foreign_change
            elif foreign_change:
                foreign_change = False
                self._repair()

    def _read(self) -> bool:
        """Whether anyone but ourselves changed something; so it is when notifications were lost."""
        notifications = self._monitor.read()
        return notifications is None or any(notification.port != self._own_port for notification in notifications)

    def _repair(self) -> None:
        try:
            for problem in self._ruleset.repair():
                log.warning("firewall repaired: %s", problem)
        except OSError as error:
            log.error("the firewall cannot be repaired: %s", error)
