"""nf_tables against nft(8): it lists what we made as we meant it, and we list what it made."""

import errno
import threading

import pytest
from netlab import isolated, nft, nft_json

from wherry.linux import nftables as nf
from wherry.linux.netlink import Monitor, NetlinkError
from wherry.linux.nftables import Batch, Chain, Element, Expr, NftSocket, Rule, Set, pack

pytestmark = pytest.mark.root

TCP = b"\x06"

# Each expression beside what `nft list` must print for it: the differential test of every encoder.
CASES = [
    (nf.interface("iifname", "w0"), 'iifname "w0"'),
    (nf.interface("oifname", "w0", "!="), 'oifname != "w0"'),
    (nf.meta("l4proto", 6), "meta l4proto tcp"),
    (nf.meta("mark", 0x10), "meta mark 0x00000010"),
    (nf.address("saddr", "10.0.0.0/8"), "ip saddr 10.0.0.0/8"),
    (nf.address("daddr", "10.1.2.128/25", "!="), "ip daddr != 10.1.2.128/25"),
    (nf.address("daddr", "10.1.2.3"), "ip daddr 10.1.2.3"),
    (nf.ct_state("established", "related"), "ct state established,related"),
    (nf.ct_status("dnat"), "ct status dnat"),
    (nf.fib_type("daddr", "local"), "fib daddr type local"),
    (nf.lookup(nf.IP, ("iifname",), "names"), "iifname @names"),
    (nf.lookup(nf.IP, ("saddr",), "nets", inverted=True), "ip saddr != @nets"),
    (nf.lookup(nf.IP, ("saddr", "dport"), "pairs"), "ip saddr . th dport @pairs"),
    (nf.verdict_map(nf.IP, ("saddr",), "fate"), "ip saddr vmap @fate"),
    (nf.counter(), "counter packets 0 bytes 0"),
    (nf.set_mark(5), "meta mark set 0x00000005"),
    (nf.verdict(nf.ACCEPT), "accept"),
    (nf.verdict(nf.DROP), "drop"),
    (nf.verdict(("jump", "plain")), "jump plain"),
    (nf.verdict(("goto", "plain")), "goto plain"),
    (nf.verdict(("return", "")), "return"),
]

NAMES = Set("names", ("ifname",))
NETS = Set("nets", ("ipv4_addr",), interval=True)
PAIRS = Set("pairs", ("ipv4_addr", "inet_service"), interval=True)
FATE = Set("fate", ("ipv4_addr",), ("verdict",))
TARGETS = Set("targets", ("inet_proto", "inet_service"), ("ipv4_addr", "inet_service"))


def _table(nft_socket: NftSocket) -> None:
    batch = Batch(nf.IP, "t")
    batch.add_table("made by a test")
    batch.add_chain(Chain("plain"))
    batch.add_chain(Chain("forward", "filter", nf.FORWARD, nf.FILTER, nf.DROP))
    batch.add_chain(Chain("prerouting", "nat", nf.PREROUTING, nf.DSTNAT))
    batch.add_chain(Chain("postrouting", "nat", nf.POSTROUTING, nf.SRCNAT))
    batch.add_chain(Chain("output", "route", nf.OUTPUT, nf.MANGLE))
    for description in (NAMES, NETS, PAIRS, FATE, TARGETS):
        batch.add_set(description)
    nft_socket.commit("make table", batch)


@isolated
def test_every_expression_as_nft_prints_it():
    with NftSocket() as kernel:
        _table(kernel)
        for expr, _ in CASES:
            batch = Batch(nf.IP, "t")
            batch.add_rule(Rule("forward", (expr,)))
            kernel.commit("rule", batch)
        listed = [line.strip() for line in nft("list chain ip t forward").splitlines()]
        assert listed[3:-2] == [expected for _, expected in CASES]


@isolated
def test_nat_statements_and_ports():
    with NftSocket() as kernel:
        _table(kernel)
        batch = Batch(nf.IP, "t")
        local = nf.fib_type("daddr", "local")
        batch.add_rule(Rule("prerouting", (local, nf.dnat_by_map(nf.IP, ("l4proto", "dport"), "targets")), "ports"))
        batch.add_rule(Rule("prerouting", (nf.meta("l4proto", 17), nf.destination_port(53), nf.dnat("10.0.0.3", 5353))))
        batch.add_rule(Rule("postrouting", (nf.masquerade(),)))
        kernel.commit("nat", batch)
        shown = nft("list chain ip t prerouting")
        assert 'fib daddr type local dnat ip to meta l4proto . th dport map @targets comment "ports"' in shown
        assert "udp dport 53 dnat to 10.0.0.3:5353" in shown
        assert "masquerade" in nft("list chain ip t postrouting")
        assert {chain.name: (chain.type, chain.hook, chain.priority, chain.policy) for chain in kernel.chains()} == {
            "plain": ("", 0, 0, 1),
            "forward": ("filter", nf.FORWARD, 0, nf.DROP),
            "prerouting": ("nat", nf.PREROUTING, -100, 1),
            "postrouting": ("nat", nf.POSTROUTING, 100, 1),
            "output": ("route", nf.OUTPUT, -150, 1),
        }


@isolated
def test_elements_of_every_kind():
    with NftSocket() as kernel:
        _table(kernel)
        batch = Batch(nf.IP, "t")
        batch.add_elements(NAMES, [Element(nf.interface_key("eth0")), Element(nf.interface_key("wlan0"))])
        batch.add_elements(NETS, [Element(pack("10.0.0.0"), end=pack("10.255.255.255"))])
        batch.add_elements(NETS, [Element(pack("240.0.0.0"), end=pack("255.255.255.255"))])
        batch.add_elements(PAIRS, [Element(pack("10.0.0.1", 80), end=pack("10.0.0.9", 90))])
        fates = [("10.0.0.1", nf.DROP), ("10.0.0.2", ("jump", "plain"))]
        batch.add_elements(FATE, [Element(pack(address), verdict=verdict) for address, verdict in fates])
        batch.add_elements(TARGETS, [Element(pack(TCP, 80), pack("10.0.0.2", 8080))])
        kernel.commit("elements", batch)
        shown = nft("list ruleset")
        for expected in (
            '"eth0"',
            '"wlan0"',
            "elements = { 10.0.0.0/8, 240.0.0.0/4 }",
            "elements = { 10.0.0.1-10.0.0.9 . 80-90 }",
            "elements = { 10.0.0.1 : drop, 10.0.0.2 : jump plain }",
            "elements = { tcp . 80 : 10.0.0.2 . 8080 }",
        ):
            assert expected in shown
        assert kernel.elements(nf.IP, "t", "targets") == [Element(pack(TCP, 80), pack("10.0.0.2", 8080))]
        assert {element.verdict for element in kernel.elements(nf.IP, "t", "fate")} == {nf.DROP, ("jump", "plain")}
        assert {name for name, _ in kernel.sets(nf.IP, "t")} == {"names", "nets", "pairs", "fate", "targets"}
        undo = Batch(nf.IP, "t")
        undo.delete_elements(TARGETS, [Element(pack(TCP, 80))])
        undo.delete_elements(NETS, [Element(pack("10.0.0.0"), end=pack("10.255.255.255"))])
        kernel.commit("undo", undo)
        assert kernel.elements(nf.IP, "t", "targets") == []
        assert "elements = { 240.0.0.0/4 }" in nft("list set ip t nets")


@isolated
def test_many_elements_in_one_batch():
    ports = range(1, 6001)
    with NftSocket() as kernel:
        _table(kernel)
        batch = Batch(nf.IP, "t")
        batch.add_elements(TARGETS, [Element(pack(TCP, port), pack("10.0.0.2", port)) for port in ports])
        kernel.commit("elements", batch)
        assert len(kernel.elements(nf.IP, "t", "targets")) == len(ports)


@isolated
def test_a_batch_is_all_or_nothing():
    with NftSocket() as kernel:
        _table(kernel)
        before = nft("list ruleset")
        batch = Batch(nf.IP, "t")
        batch.add_rule(Rule("forward", (nf.verdict(nf.ACCEPT),)))
        batch.add_rule(Rule("nosuchchain", (nf.verdict(nf.ACCEPT),)))
        batch.add_rule(Rule("forward", (nf.verdict(nf.DROP),)))
        with pytest.raises(NetlinkError) as caught:
            kernel.commit("bad", batch)
        assert (caught.value.errno, caught.value.position) == (errno.ENOENT, 1)
        assert nft("list ruleset") == before
        assert [chain.name for chain in kernel.chains()]  # and the socket still works


@isolated
def test_rules_are_found_and_deleted_by_comment():
    with NftSocket() as kernel:
        nft('add table ip other\nadd chain ip other c\nadd rule ip other c iifname "x" counter accept comment "theirs"')
        (theirs,) = kernel.rules(nf.IP, "other")
        batch = Batch(nf.IP, "other")
        batch.add_rule(Rule("c", (nf.verdict(nf.ACCEPT),), "ours"), before=theirs.handle)
        kernel.commit("add", batch)
        rules = kernel.rules(nf.IP, "other", "c")
        assert [rule.comment for rule in rules] == ["ours", "theirs"]
        assert [name for name, _ in rules[1].expressions] == ["meta", "cmp", "counter", "immediate"]
        undo = Batch(nf.IP, "other")
        undo.delete_rule("c", rules[0].handle)
        kernel.commit("undo", undo)
        assert [rule.comment for rule in kernel.rules(nf.IP, "other")] == ["theirs"]
        assert kernel.rules(nf.IP, "nosuch") == []


@isolated
def test_replacing_a_table_leaves_others_alone():
    with NftSocket() as kernel:
        nft("add table inet theirs\nadd chain inet theirs c")
        _table(kernel)
        batch = Batch(nf.IP, "t")
        batch.add_table()
        batch.delete_table()
        batch.add_table("second")
        kernel.commit("replace", batch)
        assert {(table.family, table.name, table.comment) for table in kernel.tables()} == {
            (nf.INET, "theirs", ""),
            (nf.IP, "t", "second"),
        }
        assert [chain.name for chain in kernel.chains()] == ["c"]


@isolated
def test_inet_and_ip6_tables():
    with NftSocket() as kernel:
        for family in (nf.INET, nf.IP6):
            batch = Batch(family, "t")
            batch.add_table()
            batch.add_chain(Chain("c", "filter", nf.INPUT, nf.FILTER))
            batch.add_rule(Rule("c", (nf.address("saddr", "2001:db8::/32"), nf.verdict(nf.DROP))))
            kernel.commit("make", batch)
        assert "ip6 saddr 2001:db8::/32 drop" in nft("list table ip6 t")
        families = {item["table"]["family"] for item in nft_json("list", "ruleset") if "table" in item}
        assert families == {"inet", "ip6"}


def test_rules_print_as_nft_would():
    rule = Rule("forward", (nf.interface("oifname", "w0"), Expr("accept", b"")), "why")
    assert str(rule) == 'forward: oifname "w0" accept comment "why"'


@isolated
def test_a_monitor_hears_a_flush():
    with NftSocket() as kernel:
        _table(kernel)
        monitor = Monitor(12, [nf.NOTIFY_GROUP])
        flusher = threading.Thread(target=lambda: nft("flush ruleset"))
        flusher.start()
        flusher.join()
        heard = _transaction(monitor)
        assert kernel.port not in heard
        _table(kernel)
        assert _transaction(monitor) == {kernel.port}
        monitor.close()


def _transaction(monitor: Monitor) -> set[int]:
    """Whose sockets caused the notifications up to the end of one transaction."""
    ports: set[int] = set()
    while True:
        for notification in monitor.read() or []:
            ports.add(notification.port)
            if notification.type == nf.NEW_GENERATION:
                return ports
