"""What a container reaches by the network, and what reaches it."""

import pytest

from tests.e2e.host import Host

pytestmark = pytest.mark.root


def test_the_interface_on_loopback_is_out_of_reach(name):
    """CVE-2025-9074: neither the gateway's address nor the host's loopback leads to the engine's own port."""
    own = Host("--host", "tcp://127.0.0.1:2375").start()
    try:
        own.import_busybox()
        answer = own.run("curl", "-s", "--max-time", "30", "http://127.0.0.1:2375/_ping").stdout
        assert answer == "OK"
        own.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
        networks = own.inspect(name)["NetworkSettings"]["Networks"]
        gateway = networks["bridge"]["Gateway"]
        for address in (gateway, "127.0.0.1", "127.0.0.2", "169.254.169.254"):
            result = own.docker(
                "exec", name, "wget", "-T", "2", "-q", "-O", "-", f"http://{address}:2375/_ping", check=False
            )
            assert result.returncode != 0
            assert "OK" not in result.stdout
        own.docker("exec", name, "ip", "route", "add", "127.0.0.0/8", "via", gateway, check=False)
        move = "ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via $0"
        script = f"{move}; wget -T 2 -q -O - http://127.0.0.1:2375/_ping"
        result = own.docker("exec", "--privileged", name, "sh", "-c", script, gateway, check=False)
        assert "OK" not in result.stdout
    finally:
        own.close()


def test_no_address_of_ipv6_appears(host, name):
    """CVE-2024-32473: a network without IPv6 has none, on either side."""
    host.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    seen = host.out("exec", name, "cat", "/proc/net/if_inet6")
    assert {line.split()[-1] for line in seen.splitlines()} <= {"lo"}
    assert host.out("exec", name, "cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6") == "1"
    outside = host.run("cat", "/proc/net/if_inet6").stdout
    assert {line.split()[-1] for line in outside.splitlines()} <= {"lo"}


def test_a_container_listens_without_opening_a_port_of_the_host(host, name):
    """CVE-2021-4024: no helper listens anywhere."""
    before = host.run("cat", "/proc/net/tcp", "/proc/net/udp").stdout
    host.docker("run", "-d", "--name", name, "busybox", "nc", "-l", "-p", "7777")
    after = host.run("cat", "/proc/net/tcp", "/proc/net/udp").stdout

    def listening(table):
        lines = [line.split() for line in table.splitlines() if ":" in line.split()[0]]
        return sorted((words[1], words[3]) for words in lines if words[3] in ("0A", "07"))

    assert listening(after) == listening(before)
