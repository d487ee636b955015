"""The firewall as data: from the state of the bridges and the published ports to the rules that make it true.

One table of our own per engine, `ip wherry-<bridge>`, replaced as a whole in one transaction; no other table is
touched. What it says, chain by chain:

    raw-prerouting   before connection tracking. Nothing from outside a bridge may address a container directly, not
                     even a neighbour who adds a route to our subnet; nothing but lo may speak to a published port by a
                     127/8 address; containers may not reach the host's loopback, which route_localnet would open.
    nat-prerouting   a published port leads to its container, if the packet is for an address of this host: others'
    nat-output       traffic that merely passes through is left alone. One map element a port.
    nat-postrouting  containers leave by the host's address; a container that comes back to its own bridge through a
                     published port, and the host's loopback, arrive as the bridge's gateway so that answers return.
    forward          into a bridge: answers, published ports and, with icc, the neighbours; nothing else, so bridges
                     are isolated from each other. If forwarding was switched on by us, then not between the interfaces
                     that were there before: this host does not become a router.

A port published on any address lies in map `ports` keyed by protocol and port, one published on a certain address in
`ports-at` keyed by address as well.
"""

from typing import NamedTuple

from wherry.linux import nftables as nf
from wherry.linux.nftables import Chain, Element, Expr, Rule, Set, pack
from wherry.network.model import PublishedPort

ANY = "0.0.0.0"
LOOPBACK = "127.0.0.0/8"
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}

_KEY_ANY, _KEY_AT = ("l4proto", "dport"), ("daddr", "l4proto", "dport")
_TARGET = ("ipv4_addr", "inet_service")
PORTS = Set("ports", ("inet_proto", "inet_service"), _TARGET)
PORTS_AT = Set("ports-at", ("ipv4_addr", "inet_proto", "inet_service"), _TARGET)
UPLINKS = Set("uplinks", ("ifname",))

_DROP, _ACCEPT = nf.verdict(nf.DROP), nf.verdict(nf.ACCEPT)


class BridgeRules(NamedTuple):
    """What the firewall needs to know of a bridge: subnet as "172.17.0.0/16"."""

    bridge: str
    subnet: str
    gateway: str
    icc: bool = True
    masquerade: bool = True


class State(NamedTuple):
    """All that the rules depend on, but for the ports, which are elements."""

    table: str
    bridges: tuple[BridgeRules, ...]
    uplinks: tuple[str, ...] = ()


class Plan(NamedTuple):
    """The table's whole content; `describe` prints it."""

    table: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...]
    uplinks: tuple[Element, ...]

    def describe(self) -> str:
        return "\n".join(str(rule) for rule in self.rules)

    def batch(self, ports: "dict[PublishedPort, None]") -> nf.Batch:
        """The transaction that replaces whatever is there by this plan with `ports` published."""
        batch = nf.Batch(nf.IP, self.table)
        batch.add_table()
        batch.delete_table()
        batch.add_table("made by wherry; replaced when changed")
        for description in self.sets:
            batch.add_set(description)
        for chain in self.chains:
            batch.add_chain(chain)
        for rule in self.rules:
            batch.add_rule(rule)
        if self.uplinks:
            batch.add_elements(UPLINKS, self.uplinks)
        publish(batch, *ports)
        return batch


CHAINS = (
    Chain("raw-prerouting", "filter", nf.PREROUTING, nf.RAW),
    Chain("nat-prerouting", "nat", nf.PREROUTING, nf.DSTNAT),
    Chain("nat-output", "nat", nf.OUTPUT, nf.DSTNAT),
    Chain("nat-postrouting", "nat", nf.POSTROUTING, nf.SRCNAT),
    Chain("forward", "filter", nf.FORWARD, nf.FILTER),
)


def plan(state: State) -> Plan:
    """The rules that make `state` true. Pure."""
    rules = [*_loopback_guard()]
    for bridge in state.bridges:
        rules += _raw(bridge)
    rules += _destination_nat("nat-prerouting") + _destination_nat("nat-output")
    for bridge in state.bridges:
        rules += _source_nat(bridge)
    for bridge in state.bridges:
        rules += _forward(bridge)
    if state.uplinks:
        between = (nf.lookup(nf.IP, ("iifname",), "uplinks"), nf.lookup(nf.IP, ("oifname",), "uplinks"), _DROP)
        rules.append(Rule("forward", between, "forwarding is for containers"))
    elements = tuple(Element(nf.interface_key(name)) for name in state.uplinks)
    return Plan(state.table, (PORTS, PORTS_AT, UPLINKS), CHAINS, tuple(rules), elements)


def _loopback_guard() -> list[Rule]:
    outside = (nf.interface("iifname", "lo", "!="), nf.address("daddr", LOOPBACK))
    return [
        Rule("raw-prerouting", (*outside, nf.in_map(nf.IP, _KEY_ANY, PORTS.name), _DROP), "published on loopback"),
        Rule("raw-prerouting", (*outside, nf.in_map(nf.IP, _KEY_AT, PORTS_AT.name), _DROP), "published on loopback"),
    ]


def _raw(bridge: BridgeRules) -> list[Rule]:
    inside = nf.interface("iifname", bridge.bridge)
    rules = [Rule("raw-prerouting", (inside, nf.address("daddr", LOOPBACK), _DROP), "the host's loopback")]
    if bridge.masquerade:
        # Without masquerading the answers to what containers ask come addressed to them, and routing is wanted.
        outside = nf.interface("iifname", bridge.bridge, "!=")
        to_container = (nf.address("daddr", bridge.subnet), nf.address("daddr", bridge.gateway, "!="))
        rules.append(Rule("raw-prerouting", (outside, *to_container, _DROP), "direct access"))
    return rules


def _destination_nat(chain: str) -> list[Rule]:
    local = nf.fib_type("daddr", "local")
    return [
        Rule(chain, (local, nf.dnat_by_map(nf.IP, _KEY_AT, PORTS_AT.name)), "published ports of an address"),
        Rule(chain, (local, nf.dnat_by_map(nf.IP, _KEY_ANY, PORTS.name)), "published ports"),
    ]


def _source_nat(bridge: BridgeRules) -> list[Rule]:
    own, into = nf.address("saddr", bridge.subnet), nf.interface("oifname", bridge.bridge)
    chain = "nat-postrouting"
    rules = [
        Rule(chain, (into, nf.address("saddr", LOOPBACK), nf.masquerade()), "from the host's loopback"),
        Rule(chain, (into, own, nf.ct_status("dnat"), nf.masquerade()), "back to the own bridge"),
    ]
    if bridge.masquerade:
        away = nf.interface("oifname", bridge.bridge, "!=")
        rules.append(Rule(chain, (own, away, nf.masquerade()), "out by the host's address"))
    return rules


def _forward(bridge: BridgeRules) -> list[Rule]:
    into = nf.interface("oifname", bridge.bridge)

    def rule(*exprs: Expr, comment: str) -> Rule:
        return Rule("forward", (into, *exprs), comment)

    rules = [
        rule(nf.ct_state("established", "related"), _ACCEPT, comment="answers"),
        rule(nf.ct_status("dnat"), _ACCEPT, comment="published ports"),
    ]
    if bridge.icc:
        rules.append(rule(nf.interface("iifname", bridge.bridge), _ACCEPT, comment="neighbours"))
    return [*rules, rule(_DROP, comment="nothing else")]


def element(port: PublishedPort) -> tuple[Set, Element]:
    """The map and the element that publish `port`."""
    protocol = bytes((PROTOCOLS[port.protocol],))
    value = pack(port.ip, port.port)
    if port.host_ip == ANY:
        return PORTS, Element(pack(protocol, port.host_port), value)
    return PORTS_AT, Element(pack(port.host_ip, protocol, port.host_port), value)


def publish(batch: nf.Batch, *ports: PublishedPort) -> None:
    """Add the elements of `ports`."""
    for description, elements in _by_map(ports):
        batch.add_elements(description, elements)


def unpublish(batch: nf.Batch, *ports: PublishedPort) -> None:
    """Remove the elements of `ports`."""
    for description, elements in _by_map(ports):
        batch.delete_elements(description, elements)


def _by_map(ports: tuple[PublishedPort, ...]) -> list[tuple[Set, list[Element]]]:
    pairs = [element(port) for port in ports]
    grouped = [(target, [item for description, item in pairs if description is target]) for target in (PORTS, PORTS_AT)]
    return [(target, items) for target, items in grouped if items]
