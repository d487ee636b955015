"""Living beside other firewalls: when one of them drops what is forwarded, containers need an accept there as well.

In nf_tables an accept ends one base chain only while a drop is final, so our own table cannot overrule a neighbour's.
The least that helps is two rules (packets into our bridge, packets out of it) in the one place made for it: Docker's
DOCKER-USER chain, or else the FORWARD chain of iptables if its policy is drop. They are appended, so the operator's own
rules there come first; they bear our name as a comment and go when the bridge goes. What may pass is still decided by
our own table. A table of another kind (firewalld's, a hand-written one) whose forward chain drops is not ours to
change: it is reported.
"""

from wherry.linux import nftables as nf
from wherry.linux.nftables import Batch, FoundChain, FoundRule, NftSocket, Rule

_TABLE = "filter"
_CHAINS = ("DOCKER-USER", "FORWARD")


def _comment(bridge: str) -> str:
    return f"wherry {bridge}"


def _place(chains: list[FoundChain]) -> str:
    """The chain of `ip filter` that needs our rules, "" for none."""
    known = {chain.name: chain for chain in chains if (chain.family, chain.table) == (nf.IP, _TABLE)}
    if "DOCKER-USER" in known:
        return "DOCKER-USER"
    forward = known.get("FORWARD")
    return "FORWARD" if forward and forward.type and forward.policy == nf.DROP else ""


def _rules(chain: str, bridge: str) -> list[Rule]:
    accept = (nf.counter(), nf.verdict(nf.ACCEPT))  # iptables(8) expects a counter in each rule it lists
    return [Rule(chain, (nf.interface(key, bridge), *accept), _comment(bridge)) for key in ("iifname", "oifname")]


def _ours(kernel: NftSocket, bridge: str) -> list[FoundRule]:
    found = [rule for chain in _CHAINS for rule in kernel.rules(nf.IP, _TABLE, chain)]
    return [rule for rule in found if rule.comment == _comment(bridge)]


def _closing_return(rules: list[FoundRule]) -> int:
    """The handle of an unconditional last rule, which would hide what is appended after it; 0 when there is none."""
    if rules and all(name in ("counter", "immediate") for name, _ in rules[-1].expressions):
        return rules[-1].handle
    return 0


def missing(kernel: NftSocket, bridge: str) -> bool:
    """Whether a neighbour's chain needs our rules and lacks them."""
    place = _place(kernel.chains())
    return bool(place) and [rule.chain for rule in _ours(kernel, bridge)] != [place, place]


def allow(kernel: NftSocket, bridge: str) -> None:
    """Put our two rules where they are needed, and nowhere else."""
    place = _place(kernel.chains())
    present = _ours(kernel, bridge)
    if [rule.chain for rule in present] == ([place, place] if place else []):
        return
    batch = Batch(nf.IP, _TABLE)
    for rule in present:
        batch.delete_rule(rule.chain, rule.handle)
    if place:
        before = _closing_return(kernel.rules(nf.IP, _TABLE, place))
        for wanted in _rules(place, bridge):
            batch.add_rule(wanted, before=before)
    kernel.commit("let containers through the host's own firewall", batch)


def withdraw(kernel: NftSocket, bridge: str) -> None:
    """Remove our rules from other tables."""
    batch = Batch(nf.IP, _TABLE)
    for rule in _ours(kernel, bridge):
        batch.delete_rule(rule.chain, rule.handle)
    kernel.commit("leave the host's own firewall", batch)


def obstacles(kernel: NftSocket) -> list[str]:
    """Warnings about forward chains that drop by policy and that we do not touch."""
    return [
        f"table {chain.table} drops forwarded packets by policy (chain {chain.name}): "
        "containers reach the outside only if it accepts their bridge"
        for chain in kernel.chains()
        if chain.type == "filter" and chain.hook == nf.FORWARD and chain.policy == nf.DROP
        if (chain.family, chain.table, chain.name) != (nf.IP, _TABLE, "FORWARD")
    ]
