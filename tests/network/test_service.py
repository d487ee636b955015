"""The life of networks and endpoints: what is made, what is refused, what survives, what is left behind (nothing)."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.network.netengine import HOST, Lab, container_id, host_links, open_fds, server_in
from tests.network.netlab import Host, ip, isolated, nft, reaches
from wherry.errors import Forbidden, Internal, InvalidArgument, NotFound, Unavailable
from wherry.linux import netns, rtnetlink
from wherry.network import bridge
from wherry.network.model import BridgeNetwork, NetworkOptions

pytestmark = pytest.mark.root


def sysctl_inside(path: str, name: str) -> str | None:
    value: str | None = netns.run_in(path, lambda: rtnetlink.read_sysctl(name))
    return value


@isolated
def test_what_a_container_finds(tmp_path: Path):
    lab = Lab(tmp_path)
    web = lab.run("web", mac="02:11:22:33:44:55")
    inside = netns.run_in(web.netns_path, lambda: (ip("addr"), ip("route")))
    lo, eth0 = inside[0]
    assert [address["local"] for address in lo["addr_info"]] == ["127.0.0.1", "::1"]
    assert [(a["local"], a["prefixlen"], a["broadcast"]) for a in eth0["addr_info"]] == [
        ("172.17.0.2", 16, "172.17.255.255")
    ]
    assert (eth0["ifname"], eth0["address"], eth0["operstate"]) == ("eth0", "02:11:22:33:44:55", "UP")
    assert {route["dst"]: route.get("gateway") for route in inside[1]} == {
        "default": "172.17.0.1",
        "172.17.0.0/16": None,
    }
    assert (web.ipv4, web.prefix, web.gateway, web.mac) == ("172.17.0.2", 16, "172.17.0.1", "02:11:22:33:44:55")
    assert lab.service.endpoint(container_id("web")) == web
    assert lab.service.endpoint("nobody") is None
    for name, expected in (("eth0", "1"), ("all", "0"), ("default", "0"), ("lo", "0")):
        assert sysctl_inside(web.netns_path, f"ipv6/conf/{name}/disable_ipv6") == expected
    for link in ("wherry0", web.link):
        assert rtnetlink.read_sysctl(f"ipv6/conf/{link}/accept_ra") == "0"
        assert rtnetlink.read_sysctl(f"ipv6/conf/{link}/disable_ipv6") == "1"
    other = lab.run("other")
    assert other.mac != web.mac
    assert int(other.mac[:2], 16) & 3 == 2  # locally administered, unicast


@isolated
def test_a_rogue_router_advertisement_changes_nothing(tmp_path: Path):
    lab = Lab(tmp_path)
    rogue, victim = lab.run("rogue"), lab.run("victim")

    def advertise() -> None:
        rtnetlink.write_sysctl("ipv6/conf/eth0/disable_ipv6", "0")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0x86DD))
            raw.send(_router_advertisement(bytes.fromhex(rogue.mac.replace(":", ""))))

    before = ip("-6", "route"), ip("-6", "addr", "show", "dev", "wherry0")
    netns.run_in(rogue.netns_path, advertise)
    assert (ip("-6", "route"), ip("-6", "addr", "show", "dev", "wherry0")) == before
    assert netns.run_in(victim.netns_path, lambda: ip("-6", "route")) == []


def _router_advertisement(mac: bytes) -> bytes:
    source, target = bytes.fromhex("fe80" + "00" * 13 + "01"), bytes.fromhex("ff02" + "00" * 13 + "01")
    prefix = bytes((3, 4, 64, 0xC0)) + b"\xff" * 8 + bytes(4) + bytes.fromhex("20010db8") + bytes(12)
    body = bytes((134, 0, 0, 0, 64, 0, 0xFF, 0xFF)) + bytes(8) + prefix
    pseudo = source + target + len(body).to_bytes(4, "big") + bytes((0, 0, 0, 58)) + body
    total = sum(int.from_bytes(pseudo[i : i + 2], "big") for i in range(0, len(pseudo), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + (~total & 0xFFFF).to_bytes(2, "big") + body[4:]
    header = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((58, 255)) + source + target
    return bytes.fromhex("333300000001") + mac + b"\x86\xdd" + header + body


@isolated
def test_network_none_has_lo_alone(tmp_path: Path):
    lab = Lab(tmp_path)
    lone = lab.run("lone", network="none", bindings={"80/tcp": [{"HostPort": "80"}]}, exposed=["81"])
    (lo,) = netns.run_in(lone.netns_path, lambda: ip("link"))
    assert (lo["ifname"], "UP" in lo["flags"]) == ("lo", True)
    assert (lone.network_name, lone.ipv4, lone.mac, lone.ports) == ("none", "", "", {})
    assert container_id("lone") in lab.service.inspect("none")["Containers"]
    assert lab.leaks("lone") == []
    lab.rm("lone")
    assert lab.leaks() == []


@isolated
def test_the_next_namespace_is_made_in_advance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lab = Lab(tmp_path)
    first = lab.run("first", network="none")
    assert lab.leaks("first") == []  # waits for what is done in the background
    made: list[str] = []
    monkeypatch.setattr(netns, "on_own_thread", lambda work: made.append("on start") or work())
    second = lab.run("second", network="none")
    assert made == []
    monkeypatch.undo()
    (lo,) = netns.run_in(second.netns_path, lambda: ip("link"))
    assert (lo["ifname"], "UP" in lo["flags"]) == ("lo", True)
    assert os.stat(first.netns_path).st_ino != os.stat(second.netns_path).st_ino
    assert lab.leaks("first", "second") == []
    third = lab.publish("third", "80")  # on the bridge, with one that waited
    assert "eth0" in {link["ifname"] for link in netns.run_in(third.netns_path, lambda: ip("link"))}
    for name in ("first", "second", "third"):
        lab.rm(name)
    lab.service.stop()
    assert not [fd for fd in os.listdir("/proc/self/fd") if _is_network(fd)]


def _is_network(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("net:")
    except OSError:
        return False


@isolated
def test_networks_look_like_dockers(tmp_path: Path):
    lab = Lab(tmp_path)
    web = lab.run("web")
    bridge = lab.service.inspect("bridge")
    assert {key: bridge[key] for key in ("Name", "Scope", "Driver", "EnableIPv4", "EnableIPv6", "Labels")} == {
        "Name": "bridge",
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "Labels": {},
    }
    config = [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]
    assert bridge["IPAM"] == {"Driver": "default", "Options": None, "Config": config}
    assert bridge["Options"] == {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
        "com.docker.network.bridge.name": "wherry0",
        "com.docker.network.driver.mtu": "1500",
    }
    assert bridge["Containers"] == {
        container_id("web"): {
            "Name": "web",
            "EndpointID": web.id,
            "MacAddress": web.mac,
            "IPv4Address": "172.17.0.2/16",
            "IPv6Address": "",
        }
    }
    listed = {network["Name"]: network for network in lab.service.networks()}
    assert {name: network["Driver"] for name, network in listed.items()} == {
        "bridge": "bridge",
        "host": "host",
        "none": "null",
    }
    assert listed["bridge"]["Id"] == bridge["Id"] == lab.service.inspect(bridge["Id"][:12])["Id"] == web.network_id
    assert len(bridge["Id"]) == 64
    assert lab.restart().inspect("bridge")["Id"] == bridge["Id"]
    with pytest.raises(NotFound, match="network nosuch not found"):
        lab.service.inspect("nosuch")
    with pytest.raises(NotFound, match="network  not found"):
        lab.service.inspect("")


@isolated
def test_addresses_run_out_and_come_back(tmp_path: Path):
    lab = Lab(tmp_path, bip="172.30.0.1/29")
    addresses = [lab.run(f"c{number}").ipv4 for number in range(5)]
    assert addresses == [f"172.30.0.{last}" for last in range(2, 7)]
    assert lab.leaks(*(f"c{number}" for number in range(5))) == []  # and nothing is done in the background any more
    fds, links = open_fds(), host_links()
    with pytest.raises(Unavailable) as caught:
        lab.publish("six", "8080:80")
    network = lab.service.inspect("bridge")["Id"]
    assert str(caught.value) == (
        "failed to set up container networking: "
        f"no available IPv4 addresses on this network's address pools: bridge ({network})"
    )
    assert (open_fds(), host_links()) == (fds, links)
    assert lab.leaks(*(f"c{number}" for number in range(5))) == []
    lab.rm("c1")
    assert lab.run("seven").ipv4 == "172.30.0.3"


@isolated
def test_an_address_rests_before_it_is_used_again(tmp_path: Path):
    lab = Lab(tmp_path, bip="172.30.0.1/29")
    seen = []
    for _ in range(7):
        seen.append(lab.run("web").ipv4[-1])
        lab.rm("web")
    assert seen == list("2345623")


@isolated
def test_fixed_addresses_and_ranges(tmp_path: Path):
    lab = Lab(tmp_path, bip="172.30.0.1/24", fixed_cidr="172.30.0.128/30")
    assert [lab.run(f"c{n}").ipv4 for n in range(4)] == [f"172.30.0.{last}" for last in range(128, 132)]
    assert lab.run("fixed", ipv4="172.30.0.77").ipv4 == "172.30.0.77"
    assert lab.service.inspect("bridge")["IPAM"]["Config"][0]["IPRange"] == "172.30.0.128/30"
    for taken in ("172.30.0.77", "172.30.0.1"):
        with pytest.raises(Forbidden, match="Address already in use"):
            lab.run("again", ipv4=taken)
    for wrong in ("10.0.0.1", "x"):
        with pytest.raises(InvalidArgument):
            lab.run("again", ipv4=wrong)


@isolated
def test_a_subnet_avoids_routes_and_resolvers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    vpn = Host(str(tmp_path / "vpn"), "vpn0", "172.17.9.2", "172.17.9.1")
    resolver = "nameserver 172.18.0.53\nnameserver ::1\n"
    monkeypatch.setattr("wherry.network.service.host_resolv_conf", lambda: ("/etc/resolv.conf", resolver))
    lab = Lab(tmp_path)
    assert lab.run("web").ipv4 == "172.19.0.2"
    vpn.close()
    assert lab.restart().inspect("bridge")["IPAM"]["Config"][0]["Subnet"] == "172.19.0.0/16"  # and stays
    with pytest.raises(Unavailable, match="non-overlapping"):
        Lab(tmp_path, "poor", default_address_pools=(("172.19.0.0/16", 20),))


@isolated
def test_pools_are_cut_as_asked(tmp_path: Path):
    pools = (("10.9.0.0/16", 24),)
    labs = [Lab(tmp_path, f"e{number}", default_address_pools=pools) for number in range(3)]
    assert [lab.run("x").ipv4 for lab in labs] == ["10.9.0.2", "10.9.1.2", "10.9.2.2"]


@isolated
def test_engines_that_start_at_once_choose_apart(tmp_path: Path):
    labs: list[Lab] = []
    threads = [threading.Thread(target=lambda n=n: labs.append(Lab(tmp_path, f"e{n}"))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    networks = [lab.service.inspect("bridge") for lab in labs]
    assert len({network["IPAM"]["Config"][0]["Subnet"] for network in networks}) == 6
    assert {network["Options"]["com.docker.network.bridge.name"] for network in networks} == {
        f"wherry{number}" for number in range(6)
    }


@isolated
def test_the_bridge_moves_when_its_name_is_taken(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.service.stop()
    os.system("ip link add wherry0 type bridge")
    lab.restart()
    assert lab.service.inspect("bridge")["Options"]["com.docker.network.bridge.name"] == "wherry1"
    assert nft("list tables").split() == ["table", "ip", "wherry-wherry1"]
    lab.service.stop()
    assert host_links() == {"lo", "wherry0"}


@isolated
def test_a_change_of_flags_leaves_no_old_bridge(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.run("web")
    lab.service.stop()
    os.system("ip link add br7 up type bridge; ip addr add 10.7.0.1/24 dev br7")
    lab.options = NetworkOptions(bridge="br7")
    assert "cut off" in lab.restart().warnings[0]
    assert {"br7"} <= host_links()
    assert "wherry0" not in host_links()
    assert nft("list tables").split() == ["table", "ip", "wherry-br7"]
    lab.service.reconcile(set())
    assert lab.run("web").ipv4 == "10.7.0.2"


@isolated
def test_a_bridge_of_the_operators(tmp_path: Path):
    with pytest.raises(NotFound, match="br7 must be created manually"):
        Lab(tmp_path, bridge="br7")
    with rtnetlink.RouteSocket() as route:
        route.request("bridge", rtnetlink.new_link("br7", "bridge", up=True))
        link = route.link("br7")
        assert link
        route.request("address", rtnetlink.new_address(link.number, "10.7.0.1", 24))
    lab = Lab(tmp_path, bridge="br7")
    web = lab.publish("web", "8080:80")
    assert (web.ipv4, web.gateway) == ("10.7.0.2", "10.7.0.1")
    assert reaches(None, server_in(web, 80), "127.0.0.1", 8080) == "10.7.0.1"
    lab.rm("web")
    lab.service.stop()
    assert "br7" in host_links()
    none = Lab(tmp_path, "none", bridge="none")
    assert [network["Name"] for network in none.service.networks()] == ["host", "none"]
    with pytest.raises(NotFound):
        none.run("x")
    assert none.run("y", network="none").ipv4 == ""


@isolated
def test_flags_that_contradict_each_other(tmp_path: Path):
    for number, options in enumerate(
        (
            {"bip": "x"},
            {"bip": "172.30.0.0/24"},
            {"bip": "172.30.0.1/32"},
            {"bip": "172.30.0.1/24", "fixed_cidr": "10.0.0.0/30"},
            {"fixed_cidr": "x"},
            {"default_address_pools": (("x", 24),)},
            {"default_address_pools": (("10.0.0.0/16", 8),)},
        )
    ):
        with pytest.raises(InvalidArgument):
            Lab(tmp_path, f"e{number}", **options)
    assert host_links() == {"lo"}


@isolated
def test_the_mtu_is_that_of_the_way_out(tmp_path: Path):
    Host(str(tmp_path / "up"), "up0", "192.0.2.2", HOST)
    with rtnetlink.RouteSocket() as route:
        up0 = route.link("up0")
        assert up0
        default = rtnetlink.new_route("0.0.0.0/0", gateway="192.0.2.2")
        route.request("uplink", rtnetlink.set_link(up0.number, mtu=1380), default)
    web = Lab(tmp_path).run("web")
    (eth0,) = netns.run_in(web.netns_path, lambda: ip("link", "show", "eth0"))
    assert eth0["mtu"] == 1380
    fixed = Lab(tmp_path, "fixed", mtu=9000).run("web")
    (eth0,) = netns.run_in(fixed.netns_path, lambda: ip("link", "show", "eth0"))
    assert eth0["mtu"] == 9000


@isolated
def test_twenty_at_once(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.run("first", network="none")
    lab.rm("first")
    assert lab.leaks() == []
    fds = open_fds()  # with the spare namespace
    names = [f"c{number}" for number in range(20)]
    failures: list[BaseException] = []

    def each(action):
        def run(name: str) -> None:
            try:
                action(name)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    each(lambda name: lab.publish(name, "80", "9000-9100:53/udp"))
    endpoints = [lab.service.endpoint(container_id(name)) for name in names]
    assert len({endpoint.ipv4 for endpoint in endpoints if endpoint}) == 20
    assert (
        len({port["HostPort"] for endpoint in endpoints if endpoint for port in endpoint.ports["80/tcp"] or []}) == 20
    )
    assert lab.leaks(*names) == []
    each(lab.rm)
    assert lab.leaks() == []
    assert host_links() == {"lo", "wherry0"}
    assert open_fds() == fds
    assert os.listdir(lab.paths.netns) == []


@isolated
def test_reconcile_while_containers_come_and_go(tmp_path: Path):
    lab = Lab(tmp_path)
    running: set[str] = set()
    stop = threading.Event()
    reports: list[list[str]] = []

    def reconcile() -> None:
        while not stop.is_set():
            reports.append(lab.service.reconcile(lambda: set(running)))

    thread = threading.Thread(target=reconcile)
    thread.start()
    for number in range(30):
        running.add(container_id(f"c{number}"))
        endpoint = lab.publish(f"c{number}", f"{9000 + number}:80")
        assert endpoint.link in host_links()
        assert netns.is_pinned(endpoint.netns_path)
        if number >= 3:
            lab.rm(f"c{number - 3}")
            running.discard(container_id(f"c{number - 3}"))
    stop.set()
    thread.join()
    assert len(reports) > 5
    assert lab.leaks("c27", "c28", "c29") == []


@isolated
def test_attach_again_replaces_what_was_left(tmp_path: Path):
    lab = Lab(tmp_path)
    first = lab.publish("web", "8080:80")
    second = lab.publish("web", "8080:80")
    assert first.id != second.id
    assert reaches(None, server_in(second, 80), "127.0.0.1", 8080)
    assert lab.leaks("web") == []
    lab.rm("web")
    lab.rm("web")
    assert lab.leaks() == []


@isolated
def test_stop_leaves_nothing_or_everything(tmp_path: Path):
    lab = Lab(tmp_path)
    web = lab.publish("web", "8080:80")
    server = server_in(web, 80)
    lab.service.stop()
    lab.service.stop()
    assert reaches(None, server, "127.0.0.1", 8080)  # the container goes on without a daemon
    lab.restart()
    lab.service.start()  # idempotent
    assert reaches(None, server, "127.0.0.1", 8080)
    assert lab.leaks("web") == []
    lab.rm("web")
    lab.service.stop()
    assert nft("list ruleset") == ""
    assert host_links() == {"lo"}


@isolated
def test_reconcile_repairs_what_an_admin_broke(tmp_path: Path):
    lab = Lab(tmp_path, peer=True)
    web = lab.publish("web", "8080:80")
    server = server_in(web, 80)
    live = {container_id("web")}
    assert lab.service.reconcile(live) == []
    for vandalism, complaint in (
        ("ip link del wherry0", "bridge wherry0 is missing"),
        ("ip link set wherry0 down", "bridge wherry0 is down"),
        ("ip addr flush dev wherry0", "bridge wherry0 lacks its address"),
        (f"ip link set {web.link} nomaster", "is not at bridge wherry0"),
        (f"ip link set {web.link} down", "is not at bridge wherry0"),
        ("echo 0 > /proc/sys/net/ipv4/conf/wherry0/route_localnet", "has lost its sysctls"),
    ):
        assert os.system(vandalism) == 0
        assert complaint in "\n".join(lab.leaks("web"))
        assert complaint in "\n".join(lab.service.reconcile(live))
        assert lab.leaks("web") == [], vandalism
        assert lab.from_peer(server, 8080), vandalism
        assert reaches(None, server, "127.0.0.1", 8080), vandalism


@isolated
def test_reconcile_removes_what_nobody_owns(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.publish("dead", "8080:80")
    live = lab.publish("live", "8081:80")
    netns.create(str(lab.paths.netns_pin("0" * 64)), lambda: None)
    lab.paths.netns_pin("1" * 64).touch()
    os.system("ip link add veth00000000000 master wherry0 type veth peer name stray0")
    os.system("ip link add vethsomebody type veth peer name other0")  # not at our bridge: not ours
    complaints = lab.leaks("live")
    assert len(complaints) == 4
    assert complaints == lab.leaks("live")  # a dry run changes nothing
    lab.service.reconcile({container_id("live")})
    assert lab.leaks("live") == []
    assert {"vethsomebody", live.link} <= host_links()
    assert "veth00000000000" not in host_links()
    assert os.listdir(lab.paths.netns) == [container_id("live")]
    netns.delete(live.netns_path)
    assert lab.leaks("live") == [f"container {container_id('live')} has lost its network namespace"]


@isolated
def test_after_a_reboot_nothing_is_left_of_the_dead(tmp_path: Path):
    lab = Lab(tmp_path)
    web = lab.publish("web", "8080:80")
    netns.delete(web.netns_path)
    os.system(f"ip link del {web.link}; ip link del wherry0; nft flush ruleset")
    lab.service._ports.release_all()
    lab.service._ruleset.unwatch()
    lab.restart()
    lab.service.reconcile(set())
    assert lab.leaks() == []
    assert lab.publish("web", "8080:80").ipv4 == "172.17.0.2"


@isolated
def test_a_failing_kernel_undoes_the_attach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lab = Lab(tmp_path)
    lab.run("first", network="none")
    lab.rm("first")
    assert lab.leaks() == []
    fds, links = open_fds(), host_links()  # with the spare namespace

    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    for where in ("wherry.network.endpoints._configure", "wherry.network.ruleset.Ruleset.publish"):
        with monkeypatch.context() as patch:
            patch.setattr(where, refuse)
            with pytest.raises(Internal, match=r"failed to set up container networking: .*Cannot allocate memory"):
                lab.publish("web", "8080:80", "8080:80/udp")
        assert lab.leaks() == []
        assert (open_fds(), host_links()) == (fds, links)
    lab.publish("web", "8080:80")


KILLED = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from tests.network.netengine import Lab
lab = Lab(Path({root!r}))
lab.publish("web", "8080:80", "9000:53/udp")
lab.rm("web")
"""


@isolated
def test_killed_at_every_step_and_reconciled(tmp_path: Path):
    points = [
        *(f"network.start.{step}" for step in ("recorded", "bridge")),
        *(f"network.attach.{step}" for step in ("recorded", "connected", "published")),
        *(f"network.detach.{step}" for step in ("unpublished", "unpinned")),
    ]
    code = KILLED.format(path=[str(Path(__file__).parent)], root=str(tmp_path))
    for point in points:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "WHERRY_FAILPOINT": f"{point}:kill", "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == -9, (point, done.stderr.decode())
        lab = Lab(tmp_path)
        lab.service.reconcile(set())
        assert lab.leaks() == [], point
        assert os.listdir(lab.paths.netns) == [], point
        assert host_links() == {"lo", "wherry0"}, point
        again = lab.publish("web", "8080:80", "9000:53/udp")
        assert reaches(None, server_in(again, 80), "127.0.0.1", 8080), point
        lab.rm("web")
        lab.service.stop()
        assert (nft("list ruleset"), host_links()) == ("", {"lo"}), point


@isolated
def test_the_bridge_has_its_sysctls_before_it_is_up(tmp_path: Path):
    seen = []

    class Watching(rtnetlink.RouteSocket):
        def request(self, what, *messages):
            if what.startswith("configure "):
                names = [f"ipv6/conf/early0/{name}" for name in ("disable_ipv6", "accept_ra")]
                seen.append([self.link("early0").up, *map(rtnetlink.read_sysctl, names)])
            return super().request(what, *messages)

    network = BridgeNetwork(
        id="5" * 64, bridge="early0", subnet="172.30.0.0/16", gateway="172.30.0.1", ip_range="", mtu=1500
    )
    with Watching() as route:
        bridge.ensure(route, network)
        assert route.link("early0").up
    assert seen == [[False, "1", "0"]]
