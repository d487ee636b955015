"""Published ports and what must stay closed, with real packets between a host, a peer and containers."""

import errno
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.network.netengine import HOST, Lab, container_id, server_in
from tests.network.netlab import Host, isolated, listen, nft, reaches
from wherry.errors import Internal, InvalidArgument
from wherry.linux import netns, rtnetlink
from wherry.linux.conntrack import ConntrackSocket

pytestmark = pytest.mark.root

UDP = socket.SOCK_DGRAM


@pytest.mark.parametrize("bridge_filter", ["0", "1"])
@isolated
def test_a_published_port_is_reachable_from_everywhere(tmp_path: Path, bridge_filter: str):
    rtnetlink.write_sysctl("bridge/bridge-nf-call-iptables", bridge_filter)
    rtnetlink.write_sysctl("ipv4/conf/all/rp_filter", "1")  # strict, as some distributions have it
    lab = Lab(tmp_path, peer=True)
    web, other = lab.publish("web", "8080:80"), lab.run("other")
    server = server_in(web, 80)
    assert lab.from_peer(server, 8080) == "192.0.2.2"  # the container sees the client's own address
    assert reaches(None, server, HOST, 8080) == HOST
    assert reaches(None, server, "127.0.0.1", 8080) == web.gateway
    assert reaches(other.netns_path, server, HOST, 8080)  # a neighbour, by the host's address
    assert reaches(other.netns_path, server, web.gateway, 8080)
    assert reaches(other.netns_path, server, web.ipv4, 80) == other.ipv4
    assert reaches(web.netns_path, server, HOST, 8080) == web.gateway  # hairpin
    assert lab.leaks("web", "other") == []


@isolated
def test_what_is_not_published_is_not_reachable(tmp_path: Path):
    lab = Lab(tmp_path, peer=True)
    web = lab.publish("web", "8080:80")
    hidden = server_in(web, 81)
    published = server_in(web, 80)
    assert lab.peer
    assert lab.from_peer(hidden, 81) == ""
    assert reaches(None, hidden, web.ipv4, 81)  # the host itself may
    lab.peer.route("172.16.0.0/12", HOST)
    for port, server in ((81, hidden), (80, published)):
        assert lab.from_peer(server, port, web.ipv4) == ""  # not even a published port by the container's address
    # It is the direct access rule that drops it, before anything else could let it through.
    nft(f"flush chain ip wherry-{lab.service.inspect('bridge')['Options']['com.docker.network.bridge.name']} forward")
    lab.service._ruleset.unwatch()
    nft("flush chain ip wherry-wherry0 forward")
    assert lab.from_peer(published, 80, web.ipv4) == ""
    nft("flush chain ip wherry-wherry0 raw-prerouting")
    assert lab.from_peer(published, 80, web.ipv4) == "192.0.2.2"


@isolated
def test_the_forward_chain_alone_keeps_unpublished_ports_closed(tmp_path: Path):
    lab = Lab(tmp_path, peer=True, ip_masq=False)
    web = lab.publish("web", "8080:80")
    hidden, published = server_in(web, 81), server_in(web, 80)
    assert lab.peer
    lab.peer.route("172.16.0.0/12", HOST)
    assert lab.from_peer(hidden, 81, web.ipv4) == ""
    assert lab.from_peer(published, 8080) == "192.0.2.2"
    outside = listen(lab.peer.pin, 9000)
    assert reaches(web.netns_path, outside, "192.0.2.2", 9000) == web.ipv4  # routed, not masqueraded


@isolated
def test_a_port_published_on_loopback_stays_there(tmp_path: Path):
    lab = Lab(tmp_path, peer=True)
    web = lab.publish("web", "127.0.0.1:8080:80", "127.0.0.1:8053:53/udp")
    server, dns = server_in(web, 80), server_in(web, 53, UDP)
    assert reaches(None, server, "127.0.0.1", 8080)
    assert reaches(None, dns, "127.0.0.1", 8053)
    assert lab.from_peer(server, 8080) == ""
    # A neighbour sends to 127.0.0.1 by our MAC address, and our interface believes such packets.
    rtnetlink.write_sysctl("ipv4/conf/up0/route_localnet", "1")
    rtnetlink.write_sysctl("ipv4/conf/up0/rp_filter", "0")
    rtnetlink.write_sysctl("ipv4/conf/all/rp_filter", "0")
    assert lab.peer
    lab.peer.call(lambda: _send_loopback_away(HOST))
    assert lab.from_peer(server, 8080, "127.0.0.1") == ""
    assert lab.from_peer(dns, 8053, "127.0.0.1") == ""
    lab.service._ruleset.unwatch()
    nft("flush chain ip wherry-wherry0 raw-prerouting")
    assert lab.from_peer(server, 8080, "127.0.0.1") != "", "the test proves nothing: the packets never came"


def _send_loopback_away(gateway: str) -> None:
    """In the peer: 127.0.0.1 is somewhere else."""
    rtnetlink.write_sysctl("ipv4/conf/all/route_localnet", "1")
    rtnetlink.write_sysctl("ipv4/conf/eth0/route_localnet", "1")
    os.system(
        "ip addr del 127.0.0.1/8 dev lo; ip rule add pref 0 to 127.0.0.1 lookup 100;"
        f" ip route add 127.0.0.1 via {gateway} dev eth0 src 192.0.2.2 table 100"
    )


@isolated
def test_containers_cannot_reach_the_hosts_loopback(tmp_path: Path):
    lab = Lab(tmp_path)
    rogue = lab.run("rogue")
    service = listen(None, 7000, address="127.0.0.1")

    def aim() -> None:
        os.system(
            "ip addr del 127.0.0.1/8 dev lo; ip rule add pref 0 to 127.0.0.1 lookup 100;"
            f" ip route add 127.0.0.1 via {rogue.gateway} dev eth0 src {rogue.ipv4} table 100"
        )
        rtnetlink.write_sysctl("ipv4/conf/eth0/route_localnet", "1")
        rtnetlink.write_sysctl("ipv4/conf/all/route_localnet", "1")

    netns.run_in(rogue.netns_path, aim)
    assert reaches(rogue.netns_path, service, "127.0.0.1", 7000) == ""
    lab.service._ruleset.unwatch()
    nft("flush chain ip wherry-wherry0 raw-prerouting")
    assert reaches(rogue.netns_path, service, "127.0.0.1", 7000) == rogue.ipv4, "the packets never came"


@isolated
def test_udp_and_ranges_and_random_ports(tmp_path: Path):
    lab = Lab(tmp_path, peer=True)
    one = lab.publish("one", "5000:53/udp", "7000-7002:80", "90")
    assert one.ports["53/udp"] == [{"HostIp": "0.0.0.0", "HostPort": "5000"}]
    assert one.ports["80/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "7000"}]
    assert one.ports["90/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "32768"}]
    two = lab.publish("two", "7000-7002:80", "90", "90/udp")
    assert two.ports["80/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "7001"}]
    assert two.ports["90/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "32769"}]
    assert two.ports["90/udp"] == [{"HostIp": "0.0.0.0", "HostPort": "32768"}]
    dns, first, second = server_in(one, 53, UDP), server_in(one, 80), server_in(two, 80)
    assert lab.from_peer(dns, 5000) == "192.0.2.2"
    assert reaches(None, dns, "127.0.0.1", 5000) == one.gateway
    assert lab.from_peer(first, 7000)
    assert lab.from_peer(second, 7001)
    assert lab.from_peer(first, 7001) == ""
    third = lab.run("three", exposed=["100/udp", "99/tcp", "98"], publish_all=True)
    assert {key: len(value or []) for key, value in third.ports.items()} == {"100/udp": 1, "99/tcp": 1, "98/tcp": 1}
    assert lab.run("four", exposed=["99/tcp"]).ports == {"99/tcp": None}


@isolated
def test_udp_of_a_restarted_container_reaches_the_new_one(tmp_path: Path):
    lab = Lab(tmp_path, peer=True)
    assert lab.peer
    client = lab.peer.call(lambda: socket.socket(socket.AF_INET, UDP))
    client.bind((lab.peer.address, 4444))
    for turn in range(2):
        web = lab.publish(f"web{turn}", "5000:53/udp")
        server = server_in(web, 53, UDP)
        server.settimeout(60)
        client.sendto(b"hello", (HOST, 5000))  # always the same flow, which the kernel remembers
        assert server.recvfrom(16)[0] == b"hello"
        lab.rm(f"web{turn}")
        assert lab.leaks() == []
        assert web.ipv4 not in answerers()
        client.sendto(b"lost", (HOST, 5000))  # and now it remembers that the host itself has no such port
        assert HOST in answerers()


def answerers() -> set[str]:
    with ConntrackSocket() as kernel:
        return {flow.answerer for flow in kernel.flows() if (flow.protocol, flow.port) == (17, 5000)}


@isolated
def test_traffic_for_other_hosts_is_left_alone(tmp_path: Path):
    lab = Lab(tmp_path, peer=True)
    web = lab.publish("web", "8080:80")
    ours = server_in(web, 80)
    far = Host(str(tmp_path / "far"), "up1", "198.51.100.2", "198.51.100.1")
    theirs = listen(far.pin, 8080)
    lab.service._ruleset.unwatch()
    nft("flush set ip wherry-wherry0 uplinks")  # this host is a router by its operator's will
    assert lab.from_peer(theirs, 8080, "198.51.100.2") == "192.0.2.2"
    assert lab.from_peer(ours, 8080) == "192.0.2.2"


@isolated
def test_the_host_does_not_become_a_router(tmp_path: Path):
    rtnetlink.write_sysctl("ipv4/ip_forward", "0")
    up = Host(str(tmp_path / "up"), "up0", "192.0.2.2", HOST)
    far = Host(str(tmp_path / "far"), "up1", "198.51.100.2", "198.51.100.1")
    lab = Lab(tmp_path)
    theirs = listen(far.pin, 8080)
    web = lab.run("web")
    assert rtnetlink.read_sysctl("ipv4/ip_forward") == "1"
    assert reaches(up.pin, theirs, "198.51.100.2", 8080) == ""
    assert reaches(web.netns_path, theirs, "198.51.100.2", 8080) == "198.51.100.1"
    lab.restart()
    assert reaches(up.pin, theirs, "198.51.100.2", 8080) == ""
    # Somebody else's bridge that comes later may forward as it likes.
    later = Host(str(tmp_path / "later"), "later0", "203.0.113.2", "203.0.113.1")
    assert reaches(later.pin, theirs, "198.51.100.2", 8080) == "203.0.113.2"


@pytest.mark.parametrize("bridge_filter", ["0", "1"])
@isolated
def test_without_icc_neighbours_are_apart(tmp_path: Path, bridge_filter: str):
    rtnetlink.write_sysctl("bridge/bridge-nf-call-iptables", bridge_filter)
    lab = Lab(tmp_path, icc=False)
    one, two = lab.publish("one", "8080:80"), lab.run("two")
    server = server_in(one, 80)
    assert reaches(two.netns_path, server, one.ipv4, 80) == ""
    assert reaches(two.netns_path, server, one.gateway, 8080) == one.gateway

    # Nor by sending the host what is for the neighbour.
    def detour() -> None:
        os.system(f"ip route add {one.ipv4}/32 via {one.gateway}")

    netns.run_in(two.netns_path, detour)
    assert reaches(two.netns_path, server, one.ipv4, 80) == ""
    assert reaches(None, server, one.ipv4, 80) == one.gateway


@isolated
def test_two_engines_side_by_side(tmp_path: Path):
    first, second = Lab(tmp_path, "first", peer=True), Lab(tmp_path, "second")
    one, two = first.publish("one", "8080:80"), second.publish("two", "8081:80")
    assert one.ipv4 == "172.17.0.2"
    assert two.ipv4 == "172.18.0.2"
    s1, s2 = server_in(one, 80), server_in(two, 80)
    assert first.from_peer(s1, 8080)
    assert first.from_peer(s2, 8081)
    assert reaches(one.netns_path, s2, two.ipv4, 80) == ""  # isolated from each other
    assert reaches(two.netns_path, s1, one.ipv4, 80) == ""
    assert reaches(one.netns_path, s2, HOST, 8081)  # but for what is published
    with pytest.raises(Internal, match="address already in use"):
        second.publish("three", "8080:80")
    assert second.leaks("two") == []
    assert first.leaks("one") == []
    first.rm("one")
    first.service.stop()
    assert first.from_peer(s2, 8081)
    assert "wherry-wherry0" not in nft("list tables")
    assert second.leaks("two") == []


@isolated
def test_ports_that_are_taken_are_refused_in_dockers_words(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.publish("web", "8080:80")
    prefix = "failed to set up container networking: driver failed programming external connectivity on endpoint"
    with pytest.raises(Internal) as caught:
        lab.publish("two", "8080:80")
    assert str(caught.value).startswith(f"{prefix} two (")
    assert str(caught.value).endswith("): Bind for 0.0.0.0:8080 failed: port is already allocated")
    with pytest.raises(Internal, match=r"Bind for 127.0.0.1:8080 failed: port is already allocated"):
        lab.publish("two", "127.0.0.1:8080:80")
    busy = listen(None, 8099)
    with pytest.raises(Internal) as caught:
        lab.publish("two", "8099:80")
    expected = r"failed to bind host port for 0.0.0.0:8099:172.17.0.\d:80/tcp: address already in use"
    assert caught.match(expected)
    with pytest.raises(Internal, match="cannot assign requested address"):
        lab.publish("two", "198.51.100.9:8098:80")
    busy.close()
    lab.publish("udp", "8080:80/udp")
    assert lab.leaks("web", "udp") == []
    lab.rm("web")
    lab.publish("two", "8080:80")


@isolated
def test_published_ports_are_held(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.publish("web", "8080:80", "5000:53/udp")

    def bind(port: int, kind: int) -> None:
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
            sock.bind(("0.0.0.0", port))
            if kind == socket.SOCK_STREAM:
                sock.listen()

    for port, kind in ((8080, socket.SOCK_STREAM), (5000, UDP)):
        with pytest.raises(OSError, match="in use") as caught:
            bind(port, kind)
        assert caught.value.errno == errno.EADDRINUSE
    lab.service._ports.release_all()  # the daemon died
    again = lab.restart()
    assert again.warnings == []
    with pytest.raises(OSError, match="in use"):
        bind(8080, socket.SOCK_STREAM)
    assert lab.leaks("web") == []
    lab.rm("web")
    bind(8080, socket.SOCK_STREAM)


@isolated
def test_a_port_taken_while_the_daemon_was_away(tmp_path: Path):
    lab = Lab(tmp_path, peer=True)
    web = lab.publish("web", "8080:80")
    server = server_in(web, 80)
    lab.service._ports.release_all()
    intruder = listen(None, 8080)
    lab.restart()
    assert ["also in use by another process" in warning for warning in lab.service.warnings] == [True]
    assert lab.from_peer(server, 8080) == "192.0.2.2"
    assert lab.from_peer(intruder, 8080) == ""


@isolated
def test_bad_ports_are_refused_before_anything_is_made(tmp_path: Path):
    lab = Lab(tmp_path)
    for bindings in (
        {"0/tcp": [{}]},
        {"80/icmp": [{}]},
        {"80/tcp": [{"HostPort": "70000"}]},
        {"80/tcp": [{"HostPort": "x"}]},
        {"80/tcp": [{"HostPort": "9-8"}]},
        {"80/tcp": [{"HostIp": "::1"}]},
        {"80/tcp": [{"HostIp": "1.2.3"}]},
    ):
        with pytest.raises(InvalidArgument):
            lab.run("bad", bindings=bindings)
    with pytest.raises(InvalidArgument, match="not a valid mac"):
        lab.run("bad", mac="zz")
    with pytest.raises(InvalidArgument):
        lab.run("bad", mac="01:00:00:00:00:01")  # multicast
    assert lab.leaks() == []


@isolated
def test_a_flushed_firewall_comes_back(tmp_path: Path):
    lab = Lab(tmp_path, peer=True)
    web = lab.publish("web", "8080:80", "127.0.0.1:8081:81")
    server = server_in(web, 80)
    golden = nft("list ruleset")
    for vandalism in (
        "flush ruleset",
        "delete table ip wherry-wherry0",
        "flush chain ip wherry-wherry0 raw-prerouting",
        "insert rule ip wherry-wherry0 forward accept",
        "flush map ip wherry-wherry0 ports",
        "flush set ip wherry-wherry0 uplinks",
        "chain ip wherry-wherry0 forward { policy drop; }",
    ):
        nft(vandalism)
        deadline = time.monotonic() + 60
        while nft("list ruleset") != golden and time.monotonic() < deadline:
            time.sleep(0.01)
        assert nft("list ruleset") == golden, vandalism
    assert lab.from_peer(server, 8080)
    lab.service._ruleset.unwatch()
    nft("flush ruleset")
    assert lab.leaks("web") == [
        "table wherry-wherry0 is not as it was made",
        "map ports of table wherry-wherry0 differs from the published ports",
        "map ports-at of table wherry-wherry0 differs from the published ports",
    ]
    lab.service.reconcile({container_id("web")})
    assert nft("list ruleset") == golden
    # Publishing and withdrawing on a flushed table do not stumble either.
    nft("flush ruleset")
    lab.publish("two", "9000:80")
    nft("flush ruleset")
    lab.rm("two")
    assert lab.leaks("web") == []


@isolated
def test_foreign_tables_are_never_touched(tmp_path: Path):
    nft("table inet theirs { chain c { type filter hook forward priority 5; counter\n }\n }")
    nft("add table ip wherry-other\nadd chain ip wherry-other c")
    before = nft("list table inet theirs") + nft("list table ip wherry-other")
    lab = Lab(tmp_path)
    lab.publish("web", "8080:80")
    lab.service.reconcile(set())
    lab.service.stop()
    assert nft("list table inet theirs") + nft("list table ip wherry-other") == before
    assert "wherry-wherry0" not in nft("list tables")


@isolated
def test_beside_a_docker_that_drops_what_is_forwarded(tmp_path: Path):
    nft(
        "add table ip filter\n"
        "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }\n"
        "add chain ip filter DOCKER-USER\n"
        "add rule ip filter FORWARD counter jump DOCKER-USER\n"
        "add rule ip filter DOCKER-USER counter return\n"
    )
    before = nft("list table ip filter")
    lab = Lab(tmp_path, peer=True)
    web = lab.publish("web", "8080:80")
    server, hidden = server_in(web, 80), server_in(web, 81)
    assert lab.peer
    lab.peer.route("172.16.0.0/12", HOST)
    outside = listen(lab.peer.pin, 9000)
    assert lab.from_peer(server, 8080) == "192.0.2.2"
    assert lab.from_peer(hidden, 81, web.ipv4) == ""
    assert reaches(web.netns_path, outside, "192.0.2.2", 9000) == HOST
    user = [line.strip() for line in nft("list chain ip filter DOCKER-USER").splitlines()]
    assert [line.partition(" counter")[0] for line in user[2:4]] == ['iifname "wherry0"', 'oifname "wherry0"']
    assert user[4].endswith("return")
    nft("flush chain ip filter DOCKER-USER")  # Docker starts anew
    lab.service.reconcile({container_id("web")})
    assert lab.from_peer(server, 8080) == "192.0.2.2"
    nft("add rule ip filter DOCKER-USER counter return")
    lab.rm("web")
    lab.service.stop()
    assert _without_counts(nft("list table ip filter")) == _without_counts(before)


def _without_counts(listing: str) -> str:
    return " ".join(word for word in listing.split() if not word.isdigit())


@isolated
def test_a_forward_policy_of_drop_without_docker(tmp_path: Path):
    nft("add table ip filter\nadd chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
    nft("add table inet strict\nadd chain inet strict f { type filter hook forward priority 0; policy drop; }")
    lab = Lab(tmp_path, peer=True)
    assert [warning for warning in lab.service.warnings if "table strict" in warning]
    nft("delete table inet strict")
    web = lab.publish("web", "8080:80")
    assert lab.from_peer(server_in(web, 80), 8080) == "192.0.2.2"
    assert 'comment "wherry wherry0"' in nft("list chain ip filter FORWARD")


@isolated
def test_without_iptables_nothing_is_written(tmp_path: Path):
    lab = Lab(tmp_path, iptables=False)
    with pytest.raises(InvalidArgument, match="the daemon runs with --iptables=false"):
        lab.publish("web", "8080:80")
    assert nft("list ruleset") == ""
    lab.service.stop()


@isolated
def test_publishing_is_one_element_and_others_do_not_notice(tmp_path: Path):
    lab = Lab(tmp_path, peer=True)
    web = lab.publish("web", "8080:80")
    server = server_in(web, 80)
    stop = threading.Event()
    missed: list[str] = []

    def probe() -> None:
        while not stop.is_set():
            if not lab.from_peer(server, 8080):
                missed.append("lost")

    thread = threading.Thread(target=probe)
    thread.start()
    for turn in range(20):
        lab.publish(f"x{turn}", f"{9000 + turn}:80")
        lab.rm(f"x{turn}")
    stop.set()
    thread.join()
    assert missed == []


@isolated
def test_sctp_is_led_to_the_container(tmp_path: Path):
    lab = Lab(tmp_path)
    web = lab.publish("web", "9000:9/sctp")
    assert web.ports == {"9/sctp": [{"HostIp": "0.0.0.0", "HostPort": "9000"}]}
    assert "sctp . 9000 : 172.17.0.2 . 9" in nft("list map ip wherry-wherry0 ports")
    assert lab.leaks("web") == []
    lab.rm("web")
    assert lab.leaks() == []
