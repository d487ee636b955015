"""Thousands of short containers leave nothing behind: no descriptor, no mount, no rule, no memory, nothing on disk.

`WHERRY_SCALE` is how many of them (5,000; the first 2,000 fill every cache); the figures are printed (`pytest -s`).
"""

import http.client
import itertools
import json
import os
import re
import socket
import statistics
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from tests.e2e.host import Host

COUNT = int(os.environ.get("WHERRY_SCALE", "5000"))
CONNECTIONS = 4
SAMPLES = 20
WARM = SAMPLES * 2 // 5
"""Samples after which every cache is full (heaps settle after some 2,000), and nothing may grow any more."""
SLOPE_BYTES = 256
"""What one container may cost for ever: below the smallest record anybody could keep of it, its id, name and state."""
PAGES = 8 * 4096
"""What the database may grow by: its pages split, however little is in them."""

KINDS = (
    {"HostConfig": {"AutoRemove": True}},
    {"HostConfig": {"AutoRemove": True, "PortBindings": {"80/tcp": [{}]}}, "ExposedPorts": {"80/tcp": {}}},
    {"HostConfig": {"AutoRemove": True}, "Volumes": {"/v": {}}},
    {"HostConfig": {"AutoRemove": True, "Init": True}, "Tty": True},
    {"HostConfig": {"AutoRemove": True, "NetworkMode": "none"}, "Healthcheck": {"Test": ["CMD", "true"]}},
)


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(path)

    def ask(self, method: str, path: str, body: object = None):
        """The reply, its headers read."""
        data = None if body is None else json.dumps(body)
        self.request(method, f"/v1.51{path}", data, {"Content-Type": "application/json"} if data else {})
        return self.getresponse()

    def call(self, method: str, path: str, expected: int, body: object = None) -> bytes:
        reply = self.ask(method, path, body)
        content = reply.read()
        assert reply.status == expected, (path, reply.status, content)
        return content


class Worker(threading.local):
    """What one thread keeps: a connection for requests, one to wait on."""

    made: ClassVar[list[Connection]] = []

    def __init__(self, path: str) -> None:
        self.requests, self.waits = Connection(path), Connection(path)
        self.made += [self.requests, self.waits]

    def close(self) -> None:
        """The connections of all threads."""
        for connection in self.made:
            connection.close()

    def run(self, number: int) -> None:
        """As `docker run --rm` does: wait for the removal, then start."""
        body = {"Image": "busybox", "Cmd": ["true"], **KINDS[number % len(KINDS)]}
        container = json.loads(self.requests.call("POST", "/containers/create", 201, body))["Id"]
        waiting = self.waits.ask("POST", f"/containers/{container}/wait?condition=removed")
        self.requests.call("POST", f"/containers/{container}/start", 204)
        assert json.loads(waiting.read())["StatusCode"] == 0


def status_field(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) if found else 0


def watches(pid: int) -> int:
    """The inotify watches of a process, proc_pid_fdinfo(5)."""
    total = 0
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            total += path.read_text().count("inotify wd:")
        except OSError:
            continue
    return total


def processes(host: Host) -> list[int]:
    """The daemon and what descends from it."""
    found = [host.daemon.pid]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def sample(host: Host) -> dict[str, int]:
    """What there is now that no container runs; memory in KiB."""
    host.wait_until(lambda: not host.leaks() and len(processes(host)) <= 4, "rest", 30)
    daemon, spawner = processes(host)[:2]
    rules = host.run("nft", "list", "ruleset").stdout
    tree = subprocess.run(["find", str(host.root), "-xdev"], check=True, capture_output=True, text=True).stdout
    database = sum(path.stat().st_size for path in (host.root / "data").glob("*.db"))
    return {
        "fds of the daemon": len(os.listdir(f"/proc/{daemon}/fd")),
        "fds of the spawner": len(os.listdir(f"/proc/{spawner}/fd")),
        "threads of the daemon": status_field(daemon, "Threads"),
        "inotify watches": watches(daemon),
        "processes": len(processes(host)),
        "mounts": Path(f"/proc/{daemon}/mountinfo").read_text().count(str(host.root)),
        "links": len(json.loads(host.run("ip", "-j", "link").stdout)),
        "rules": len(rules.splitlines()),
        "cgroups": sum(1 for parent in host._cgroup_parents() for _ in parent.rglob("*/")),
        "files": len(tree.splitlines()),
        "database": database,
        "memory of the daemon": status_field(daemon, "RssAnon"),
        "memory of the spawner": status_field(spawner, "RssAnon"),
    }


def slope(values: list[int]) -> float:
    """The usual growth from one sample to the next: not that of a table which is made anew, larger, now and then."""
    return statistics.median(b - a for a, b in itertools.pairwise(values))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_short_containers_leave_nothing(own_host):
    host, batch = own_host, max(COUNT // SAMPLES, 1)
    worker = Worker(f"{host.root}/wherry.sock")
    samples = []
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for number in range(SAMPLES):
            list(pool.map(worker.run, range(number * batch, (number + 1) * batch)))
            samples.append(sample(host))
            print((number + 1) * batch, samples[-1], flush=True)
    worker.close()
    later = samples[WARM:]
    for name in samples[0]:
        values = [found[name] for found in later]
        print(name, values)
        if name.startswith("memory"):
            per_container = slope(values) * 1024 / batch
            print(f"{name}: {per_container:.0f} bytes per container")
            assert per_container <= SLOPE_BYTES, (name, values)
        elif name == "threads of the daemon":
            assert max(values) <= max(found[name] for found in samples[:WARM]) + CONNECTIONS, (name, values)
        elif name == "database":
            assert values[-1] - values[0] <= PAGES, (name, values)
        else:
            assert values[-1] <= values[0], (name, values)
