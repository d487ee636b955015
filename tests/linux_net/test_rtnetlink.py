"""rtnetlink against ip(8): what one writes, the other reads."""

import errno
import os
import threading
from pathlib import Path

import pytest
from netlab import ip, isolated

from wherry.linux import netns, rtnetlink
from wherry.linux.netlink import Message, NetlinkError, attr, attr_string, attributes, nested, walk
from wherry.linux.rtnetlink import RouteSocket

pytestmark = pytest.mark.root


def test_attributes_round_trip():
    data = attr_string(1, "eth0") + nested(2, attr(3, b"x"), attr(3, b"yz"))
    assert attributes(data)[1] == b"eth0\0"
    assert list(walk(attributes(data)[2])) == [(3, b"x"), (3, b"yz")]
    assert attributes(data[:-3]) == {1: b"eth0\0"}  # a cut attribute is not read
    assert attributes(b"\0\0\0\0" + data) == {}
    with pytest.raises(ValueError, match="NUL"):
        attr_string(1, "a\0b")


@isolated
def test_links_as_ip_shows_them(tmp_path: Path):
    pin = str(tmp_path / "ns")
    netns.create(pin, lambda: None)
    fd = os.open(pin, os.O_RDONLY)
    with RouteSocket() as route:
        route.request("bridge", rtnetlink.new_link("br0", "bridge", mac="02:00:00:00:00:01", mtu=1400, up=True))
        bridge = route.link("br0")
        assert bridge
        assert bridge.kind == "bridge"
        assert bridge.up
        veth = rtnetlink.new_veth(
            "v0", "eth0", peer_netns=fd, peer_mac="02:00:00:00:00:02", mtu=1400, master=bridge.number
        )
        flags = rtnetlink.set_bridge_port("v0", alias="the alias", isolated=True, hairpin=True)
        route.request("veth", veth, flags)
        port = route.link("v0")
        assert port
        shown = {link["ifname"]: link for link in ip("link", "show")}
        assert shown["br0"]["address"] == bridge.mac == "02:00:00:00:00:01"
        assert shown["br0"]["mtu"] == 1400
        assert shown["v0"]["ifalias"] == port.alias == "the alias"
        assert shown["v0"]["master"] == "br0"
        assert port.master == bridge.number
        data = shown["v0"]["linkinfo"]["info_slave_data"]
        assert (data["isolated"], data["hairpin"]) == (True, True)
        assert {link.name for link in route.links()} == set(shown)
        route.request("delete", rtnetlink.delete_link(port.number))
        assert route.link("v0") is None
    inside = netns.run_in(pin, lambda: ip("link", "show"))
    assert [link["ifname"] for link in inside] == ["lo"]
    os.close(fd)
    netns.delete(pin)


@isolated
def test_addresses_routes_neighbours():
    with RouteSocket() as route:
        route.request("new", rtnetlink.new_link("d0", "bridge", up=True))
        link = route.link("d0")
        assert link
        route.request(
            "configure",
            rtnetlink.new_address(link.number, "192.0.2.1", 24),
            rtnetlink.new_address(link.number, "2001:db8::1", 64),
            rtnetlink.new_route("198.51.100.0/24", gateway="192.0.2.254"),
            rtnetlink.new_route("203.0.113.0/24", link=link.number, metric=7),
            rtnetlink.new_route("0.0.0.0/0", gateway="192.0.2.253"),
            rtnetlink.new_neighbour(link.number, "192.0.2.9", "02:00:00:00:00:09"),
        )
        shown = {a["local"]: a for a in ip("addr", "show", "dev", "d0")[0]["addr_info"]}
        assert shown["192.0.2.1"]["broadcast"] == "192.0.2.255"
        assert shown["2001:db8::1"]["prefixlen"] == 64
        assert {a.address for a in route.addresses(link.number)} == set(shown)
        routes = {r["dst"]: r for r in ip("route", "show")}
        assert routes["198.51.100.0/24"]["gateway"] == "192.0.2.254"
        assert routes["203.0.113.0/24"]["metric"] == 7
        assert routes["203.0.113.0/24"]["scope"] == "link"
        ours = {r.destination: r for r in route.routes() if r.table == rtnetlink.TABLE_MAIN}
        assert set(ours) == {"0.0.0.0/0" if d == "default" else d for d in routes}
        assert ours["0.0.0.0/0"].gateway == "192.0.2.253"
        (neighbour,) = [n for n in route.neighbours() if n.address == "192.0.2.9"]
        assert neighbour.mac == "02:00:00:00:00:09"
        assert ip("neigh", "show", "192.0.2.9")[0]["state"] == ["PERMANENT"]
        route.request(
            "undo",
            rtnetlink.delete_neighbour(link.number, "192.0.2.9"),
            rtnetlink.delete_route("198.51.100.0/24", gateway="192.0.2.254"),
            rtnetlink.delete_address(link.number, "2001:db8::1", 64),
        )
        assert "198.51.100.0/24" not in {r["dst"] for r in ip("route", "show")}
        assert "2001:db8::1" not in {a.address for a in route.addresses()}


@isolated
def test_the_kernels_own_words():
    with RouteSocket() as route:
        with pytest.raises(NetlinkError) as caught:
            route.request("odd link", rtnetlink.new_link("x0", "nosuchkind"))
        assert caught.value.errno == errno.EOPNOTSUPP
        assert "Unknown device type" in str(caught.value)
        with pytest.raises(NetlinkError) as caught:
            route.request(
                "three",
                rtnetlink.new_link("d1", "bridge"),
                rtnetlink.new_link("d1", "bridge"),
                rtnetlink.new_link("d2", "bridge"),
            )
        assert (caught.value.errno, caught.value.position) == (errno.EEXIST, 1)
        # The socket is as good as before: no reply of the failed request is taken for one of the next.
        assert {link.name for link in route.links()} >= {"lo", "d1", "d2"}
        with pytest.raises(NetlinkError) as caught:
            route.get("nothing", Message(18, 0, bytes(16)))
        assert caught.value.errno == errno.EINVAL


@isolated
def test_one_socket_many_threads():
    with RouteSocket() as route:
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(10):
                    name = f"t{number}.{turn}"
                    route.request("add", rtnetlink.new_link(name, "bridge"))
                    link = route.link(name)
                    assert link
                    assert link.name == name
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(route.links()) == 61


@isolated
def test_a_socket_stays_in_its_namespace(tmp_path: Path):
    pin = str(tmp_path / "ns")
    inner = netns.create(pin, RouteSocket)
    assert [link.name for link in inner.links()] == ["lo"]
    with RouteSocket() as outer:
        outer.request("new", rtnetlink.new_link("only-here", "bridge"))
    assert inner.link("only-here") is None
    inner.close()


@isolated
def test_netns_is_gone_when_inside_fails(tmp_path: Path):
    pin = str(tmp_path / "ns")

    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        netns.create(pin, fail)
    assert not os.path.exists(pin)
    here = os.readlink("/proc/self/ns/net")
    assert netns.create(pin, lambda: os.readlink("/proc/thread-self/ns/net")) != here
    assert os.readlink("/proc/thread-self/ns/net") == here
    assert netns.is_pinned(pin)
    with pytest.raises(FileExistsError):
        netns.create(pin, lambda: None)
    assert netns.is_pinned(pin)
    netns.delete(pin)
    netns.delete(pin)
    assert not netns.is_pinned(pin)


@isolated
def test_delete_removes_a_bare_pin(tmp_path: Path):
    pin = tmp_path / "ns"
    pin.touch()
    assert not netns.is_pinned(str(pin))
    netns.delete(str(pin))
    assert not pin.exists()


@isolated
def test_sysctls():
    assert rtnetlink.write_sysctl("ipv4/ip_forward", "0")
    assert rtnetlink.read_sysctl("ipv4/ip_forward") == "0"
    assert rtnetlink.write_sysctl("ipv4/ip_forward", "1")
    assert rtnetlink.read_sysctl("ipv4/ip_forward") == "1"
    assert rtnetlink.read_sysctl("ipv4/nosuch") is None
    assert not rtnetlink.write_sysctl("ipv4/nosuch", "1")
