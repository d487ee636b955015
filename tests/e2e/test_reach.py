"""Who can reach the engine and its files: not the containers, not the other users of the host."""

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from .host import Host

PORT = 2375


@pytest.fixture(scope="module")
def listening():
    """A host whose engine also answers on TCP, on the loopback address."""
    host = Host("--host", f"tcp://127.0.0.1:{PORT}").start()
    host.import_busybox()
    yield host
    host.close()


def test_containers_do_not_reach_an_engine_that_listens_on_loopback(listening):
    """CVE-2025-9074."""
    host = listening
    assert host.run("curl", "-sS", f"http://127.0.0.1:{PORT}/_ping").stdout == "OK"
    gateway = json.loads(host.out("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Gateway"]
    # route_localnet is on for published ports: a container may try to pass for a loopback neighbour
    ask = f"nc -w 1 $1 {PORT} 2>/dev/null | head -c 12"
    script = f"""
        try() {{ echo "$1: $(printf 'GET /_ping HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' | {ask})"; }}
        try {gateway}
        try 127.0.0.1
        ip addr del 127.0.0.1/8 dev lo
        ip route add 127.0.0.0/8 via {gateway}
        try 127.0.0.1
        try 127.1.2.3
        try 169.254.1.1
        try host.docker.internal
    """
    shown = host.out("run", "--rm", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", script).splitlines()
    assert len(shown) == 6
    assert all("HTTP" not in line for line in shown), shown
    internal = host.out("run", "--rm", "--add-host", "host.docker.internal:host-gateway", "busybox", "sh", "-c", script)
    assert "HTTP" not in internal
    patient = script.split("ip addr")[0].replace("nc -w 1", "nc -w 30")
    assert "HTTP" in host.out("run", "--rm", "--network", "host", "busybox", "sh", "-c", patient)


def test_requests_of_web_pages_and_rebound_names_are_refused(listening):
    for flags in (
        ("-H", "Origin: http://evil.example"),
        ("-H", "Host: evil.example"),
        ("-H", "Sec-Fetch-Site: cross-site"),
    ):
        url = f"http://127.0.0.1:{PORT}/containers/json"
        shown = listening.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *flags, url).stdout
        assert shown == "403", flags


def accessible(root: Path) -> list[str]:
    """What `nobody` can list, enter, read or write below `root`; looked at from a process that is `nobody`."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        found = []
        for path in PATHS:
            for what, mode in (("enter", os.X_OK), ("read", os.R_OK), ("write", os.W_OK)):
                if os.access(path, mode, effective_ids=True):
                    found.append(f"{what} {path}")
        os.write(writer, "\n".join(found).encode()[-60_000:])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as report:
        text = report.read()
    os.waitpid(pid, 0)
    return text.splitlines()


PATHS: list[str] = []


def test_other_users_see_nothing(host, name):
    """CVE-2021-41091 and its kin: neither the tree nor a set-user-id program in it is reachable."""
    make = "cp /bin/busybox /data/su; chmod 4755 /data/su; mkdir -m 777 /open; echo secret > /open/x; sleep 1000"
    host.docker("run", "-d", "--name", name, "-v", f"{name}:/data", "busybox", "sh", "-c", make)
    try:
        host.wait_until(
            lambda: host.docker("exec", name, "test", "-s", "/open/x", check=False).returncode == 0, "the files"
        )
        host.root.chmod(0o755)  # the data root's own mode has to do
        roots = (host.root / "data", host.root / "run")
        PATHS[:] = [os.path.join(d, n) for root in roots for d, ds, fs in os.walk(root) for n in (*ds, *fs)]
        PATHS.extend(map(str, roots))
        assert any(path.endswith("_data/su") and os.stat(path).st_mode & stat.S_ISUID for path in PATHS)
        assert any(path.endswith("open/x") for path in PATHS)
        assert accessible(host.root) == []
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{host.root}/wherry.sock")  # ours; what others may is the socket's mode
        connection.close()
        assert stat.S_IMODE(os.stat(f"{host.root}/wherry.sock").st_mode) & 0o007 == 0
    finally:
        host.docker("rm", "-f", name)
        host.docker("volume", "rm", name)
