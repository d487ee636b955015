"""What needs no kernel: the firewall's plan, ports, subnets, MAC addresses, the files in /etc."""

import ipaddress
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.errors import InvalidArgument, Unavailable
from wherry.network import files
from wherry.network.endpoints import parse_mac, random_mac
from wherry.network.firewall import PORTS, PORTS_AT, BridgeRules, State, element, plan
from wherry.network.ipam import DEFAULT_POOLS, candidate_subnets, choose_subnet
from wherry.network.model import PublishedPort
from wherry.network.ports import parse_bindings, parse_port

GOLDEN = """\
raw-prerouting: iifname != "lo" ip daddr 127.0.0.0/8 meta l4proto . th dport @ports drop comment "published on loopback"
raw-prerouting: iifname != "lo" ip daddr 127.0.0.0/8 ip daddr . meta l4proto . th dport @ports-at drop \
comment "published on loopback"
raw-prerouting: iifname "w0" ip daddr 127.0.0.0/8 drop comment "the host's loopback"
raw-prerouting: iifname != "w0" ip daddr 10.1.0.0/24 ip daddr != 10.1.0.1 drop comment "direct access"
nat-prerouting: fib daddr type local dnat to ip daddr . meta l4proto . th dport map @ports-at \
comment "published ports of an address"
nat-prerouting: fib daddr type local dnat to meta l4proto . th dport map @ports comment "published ports"
nat-output: fib daddr type local dnat to ip daddr . meta l4proto . th dport map @ports-at \
comment "published ports of an address"
nat-output: fib daddr type local dnat to meta l4proto . th dport map @ports comment "published ports"
nat-postrouting: oifname "w0" ip saddr 127.0.0.0/8 masquerade comment "from the host's loopback"
nat-postrouting: oifname "w0" ip saddr 10.1.0.0/24 ct status dnat masquerade comment "back to the own bridge"
nat-postrouting: ip saddr 10.1.0.0/24 oifname != "w0" masquerade comment "out by the host's address"
forward: oifname "w0" ct state established,related accept comment "answers"
forward: oifname "w0" ct status dnat accept comment "published ports"
forward: oifname "w0" iifname "w0" accept comment "neighbours"
forward: oifname "w0" drop comment "nothing else"
forward: iifname @uplinks oifname @uplinks drop comment "forwarding is for containers\""""


def test_the_whole_plan():
    state = State("t", (BridgeRules("w0", "10.1.0.0/24", "10.1.0.1"),), ("eth0",))
    assert plan(state).describe() == GOLDEN
    assert plan(state) == plan(state)


def test_plans_of_fewer_rights():
    bridge = BridgeRules("w0", "10.1.0.0/24", "10.1.0.1", icc=False, masquerade=False)
    missing = set(GOLDEN.splitlines()) - set(plan(State("t", (bridge,))).describe().splitlines())
    assert {line.rpartition(" comment ")[2] for line in missing} == {
        '"direct access"',
        '"out by the host\'s address"',
        '"neighbours"',
        '"forwarding is for containers"',
    }


def test_two_bridges_in_one_plan_are_apart():
    one, two = BridgeRules("w0", "10.1.0.0/24", "10.1.0.1"), BridgeRules("w1", "10.2.0.0/24", "10.2.0.1")
    text = plan(State("t", (one, two))).describe()
    assert 'oifname "w0" drop' in text
    assert 'oifname "w1" drop' in text
    assert text.count("published on loopback") == 2


def test_a_port_is_one_element():
    everywhere, here = (
        element(PublishedPort("tcp", "0.0.0.0", 8080, "10.1.0.2", 80)),
        element(PublishedPort("udp", "192.0.2.1", 53, "10.1.0.3", 5353)),
    )
    assert everywhere[0] is PORTS
    assert everywhere[1].key == bytes.fromhex("06000000 1f900000")
    assert everywhere[1].value == bytes.fromhex("0a010002 00500000")
    assert here[0] is PORTS_AT
    assert here[1].key == bytes.fromhex("c0000201 11000000 00350000")


@pytest.mark.parametrize("text", ["0/tcp", "65536", "x", "80/icmp", "", "/tcp", "-1", "8 0", "٣"])
def test_ports_that_are_none(text: str):
    with pytest.raises(InvalidArgument):
        parse_port(text)


def test_bindings_fixed_first():
    wishes = parse_bindings(
        {"80": [{"HostPort": ""}, {"HostPort": "8080", "HostIp": "127.0.0.1"}], "53/udp": []},
        ["99/tcp", "80/tcp"],
        publish_all=True,
        default_ip="192.0.2.1",
    )
    assert [(wish.key, wish.host_ip, wish.first, wish.last) for wish in wishes] == [
        ("80/tcp", "127.0.0.1", 8080, 8080),
        ("53/udp", "192.0.2.1", 0, 0),
        ("80/tcp", "192.0.2.1", 0, 0),
        ("99/tcp", "192.0.2.1", 0, 0),
    ]


def test_default_pools_are_dockers():
    first = [str(subnet) for subnet in islice(candidate_subnets(DEFAULT_POOLS), 17)]
    assert first[0] == "172.17.0.0/16"
    assert first[14:] == ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20"]


@given(st.lists(st.integers(0, 255), max_size=40))
def test_a_chosen_subnet_overlaps_nothing(taken: list[int]):
    occupied = [ipaddress.IPv4Network(f"10.0.{third}.128/25") for third in taken]
    chosen = choose_subnet((("10.0.0.0/16", 24),), occupied)
    assert not any(chosen.overlaps(other) for other in occupied)


def test_no_subnet_left():
    with pytest.raises(Unavailable):
        choose_subnet((("10.0.0.0/24", 25),), [ipaddress.IPv4Network("10.0.0.0/8")])


def test_mac_addresses():
    assert parse_mac("02-AA-bb-00-00-01") == "02:aa:bb:00:00:01"
    assert len({random_mac() for _ in range(100)}) == 100
    for wrong in ("zz", "02:00:00:00:00", "02:00:00:00:00:0g", "01:00:00:00:00:00", "2:0:0:0:0:00"):
        with pytest.raises(InvalidArgument, match="not a valid mac address"):
            parse_mac(wrong)


HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def test_hosts_as_docker_writes_them():
    assert files.hosts_file("562d3809c8b3").decode() == HOSTS
    assert files.hosts_file("562d3809c8b3", addresses=["172.17.0.3"]).decode() == HOSTS + "172.17.0.3\t562d3809c8b3\n"
    done = files.hosts_file(
        "h.example.com",
        addresses=["172.17.0.5"],
        extra_hosts=["foo:1.2.3.4", "gw:host-gateway", "v6=::2", "w:[::3]"],
        host_gateways=["172.17.0.1"],
    )
    added = "1.2.3.4\tfoo\n172.17.0.1\tgw\n::2\tv6\n::3\tw\n172.17.0.5\th.example.com h\n"
    assert done.decode() == HOSTS + added
    assert files.hosts_file("h", domainname="dd.org", addresses=["1.1.1.1"]).decode() == HOSTS + "1.1.1.1\th.dd.org h\n"
    assert files.hostname_file("h") == b"h\n"


@pytest.mark.parametrize("bad", ["a\nb", "a\x00", "a\rb", "\x7f", "a\tb"])
def test_nothing_breaks_out_of_its_line(bad: str):
    for attempt in (
        lambda: files.hostname_file(bad),
        lambda: files.hosts_file(bad, addresses=["1.1.1.1"]),
        lambda: files.hosts_file("h", domainname=bad, addresses=["1.1.1.1"]),
        lambda: files.hosts_file("h", extra_hosts=[f"{bad}:1.1.1.1"]),
        lambda: files.hosts_file("h", links=[("1.1.1.1", bad)]),
        lambda: files.resolv_conf("", search=[bad]),
        lambda: files.resolv_conf("", options=[bad]),
        lambda: files.resolv_conf("", dns=[f"1.1.1.1{bad}"]),
    ):
        with pytest.raises(InvalidArgument):
            attempt()


@pytest.mark.parametrize("bad", ["x", "x:", "x:1.2.3", ":1.2.3.4", "a b:1.2.3.4", "gw:host-gateway"])
def test_extra_hosts_that_are_none(bad: str):
    with pytest.raises(InvalidArgument):
        files.hosts_file("h", extra_hosts=[bad])


def _body(data: bytes) -> str:
    header, _, rest = data.decode().partition("\n\n")
    assert header.startswith("# Generated by wherry.")
    return rest


def test_resolv_conf_as_docker_writes_it():
    assert _body(files.resolv_conf("nameserver 10.255.255.53\n")) == (
        "nameserver 10.255.255.53\n\n# Based on host file: '/etc/resolv.conf' (legacy)\n# Overrides: []\n"
    )
    assert _body(files.resolv_conf("nameserver 127.0.0.53\n")) == (
        "nameserver 8.8.8.8\nnameserver 8.8.4.4\n\n"
        "# Based on host file: '/etc/resolv.conf' (legacy)\n# Used default nameservers.\n# Overrides: []\n"
    )
    overridden = files.resolv_conf(
        "nameserver 9.9.9.9\nsearch x.y", dns=["127.0.0.1", "8.8.8.8"], search=["."], options=["ndots:3"]
    )
    assert _body(overridden) == (
        "nameserver 127.0.0.1\nnameserver 8.8.8.8\noptions ndots:3\n\n"
        "# Based on host file: '/etc/resolv.conf' (legacy)\n"
        "# Overrides: [nameservers search options]\n# Option ndots from: override\n"
    )
    assert _body(files.resolv_conf("nameserver 10.255.255.53", search=["a.b", "c.d"])) == (
        "nameserver 10.255.255.53\nsearch a.b c.d\n\n"
        "# Based on host file: '/etc/resolv.conf' (legacy)\n# Overrides: [search]\n"
    )
    assert _body(files.resolv_conf("nameserver 127.0.0.53", host_network=True)) == (
        "nameserver 127.0.0.53\n\n# Based on host file: '/etc/resolv.conf'\n# Overrides: []\n"
    )


def test_resolv_conf_filters_what_a_container_cannot_reach():
    text = "; comment\n# more\nnameserver ::1\nnameserver fd00::1\nnameserver 10.0.0.1\nnameserver 127.0.0.1\n"
    assert "nameserver 10.0.0.1\n\n" in _body(files.resolv_conf(text))
    odd = _body(
        files.resolv_conf("domain old.org\nsearch new.org\nsortlist 1\nnameserver 1.2.3.4.5\noptions ndots:1 x")
    )
    servers = ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]
    assert odd.splitlines()[:6] == [*servers, "search new.org", "options ndots:1 x", "sortlist 1", ""]
    assert "# Invalid nameservers: [1.2.3.4.5]" in odd
    assert "# Option ndots from: host" in odd


@given(st.text())
def test_any_resolv_conf_can_be_read(text: str):
    assert b"\n# Overrides: []\n" in files.resolv_conf(text)


def test_systemds_stub_is_looked_behind(monkeypatch: pytest.MonkeyPatch):
    texts = {files.RESOLV_CONF: "nameserver 127.0.0.53\n", files.SYSTEMD_RESOLV_CONF: "nameserver 10.0.0.7\n"}
    monkeypatch.setattr(files, "_read", texts.get)
    assert files.host_resolv_conf() == (files.SYSTEMD_RESOLV_CONF, "nameserver 10.0.0.7\n")
    texts[files.RESOLV_CONF] = "nameserver 10.0.0.1\nnameserver 127.0.0.53\n"
    assert files.host_resolv_conf()[0] == files.RESOLV_CONF
