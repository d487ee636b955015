"""What the benchmarks share: a wherryd of our own, alternating runs, medians, memory by PSS."""

import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class Wherryd:
    """A daemon in a network namespace of its own, with its roots in a temporary directory."""

    def __init__(self, disk: str | None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="wherry-bench-", dir=disk))
        self.run = Path(tempfile.mkdtemp(prefix="wherry-bench-", dir="/run"))
        self.netns = f"wherry-bench-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True)
        self.socket = str(self.run / "wherry.sock")
        self.host = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None
        self.startup_s = self.start()

    def start(self) -> float:
        """Start the daemon; return the seconds until the first answer to /_ping."""
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [
                *("nsenter", f"--net=/run/netns/{self.netns}", "wherryd", "--host", self.host, "--pidfile", ""),
                *("--data-root", str(self.root / "data"), "--exec-root", str(self.run / "exec")),
            ],
            stderr=open(self.run / "wherryd.log", "ab"),  # noqa: SIM115 - the daemon's for its whole life
        )
        while True:
            try:
                if API(self.socket).call("GET", "/_ping")[0] == 200:
                    return time.perf_counter() - began
            except OSError:
                if self.process.poll() is not None:
                    sys.exit((self.run / "wherryd.log").read_text()[-3000:])
                time.sleep(0.002)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait()

    def close(self) -> None:
        self.stop()
        subprocess.run(["ip", "netns", "del", self.netns], check=True)
        shutil.rmtree(self.root)
        shutil.rmtree(self.run)

    def pids(self) -> list[int]:
        """The daemon, the spawner, the monitors: every process whose command line or parent is ours."""
        assert self.process is not None
        marker = str(self.run).encode()
        found = {self.process.pid} | set(descendants(self.process.pid))
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if marker in read(f"/proc/{pid}/cmdline"):
                found.add(int(pid))
        return sorted(found)


def descendants(pid: int) -> list[int]:
    threads = [int(t) for t in os.listdir(f"/proc/{pid}/task")]
    children = [int(c) for thread in threads for c in read(f"/proc/{pid}/task/{thread}/children").split()]
    return children + [d for child in children for d in descendants(child)]


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def pss_kib(pids: list[int]) -> int:
    """The proportional memory of these processes, in KiB."""
    total = 0
    for pid in pids:
        match = re.search(rb"^Pss:\s+(\d+)", read(f"/proc/{pid}/smaps_rollup"), re.M)
        total += int(match[1]) if match else 0
    return total


def processor_s(pids: list[int]) -> float:
    """The processor time these processes have used so far, user and system (proc_pid_stat(5))."""
    ticks = 0
    for pid in pids:
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        ticks += int(fields[11]) + int(fields[12]) if fields else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def in_parallel(job: Callable[[], Callable[[], object]], count: int, clients: int) -> float:
    """Do what `job()` gives each client `count` times in all; jobs per second."""
    left = iter(range(count))

    def work() -> None:
        once = job()
        for _ in left:  # one number for whoever comes: the iterator is the queue
            once()

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(work) for _ in range(clients)]:
            done.result()
    return count / (time.perf_counter() - began)


def matching(pattern: str) -> list[int]:
    """The processes whose command line matches."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        line = read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace")
        if re.search(pattern, line) and int(pid) != os.getpid():
            found.append(int(pid))
    return found


class API:
    """One keep-alive connection to an engine's socket."""

    def __init__(self, path: str) -> None:
        self.connection = http.client.HTTPConnection("localhost")
        self.connection.sock = socket.socket(socket.AF_UNIX)
        self.connection.sock.connect(path)

    def call(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body)
        self.connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        response = self.connection.getresponse()
        return response.status, response.read()


def alternate(jobs: dict[str, Callable[[], object]], n: int) -> dict[str, list[float]]:
    """Time each job n times in alternation, the order turned round every time; milliseconds by job."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()  # warm both
    for i in range(n):
        for name in sorted(jobs, reverse=bool(i % 2)):
            began = time.perf_counter()
            jobs[name]()
            times[name].append((time.perf_counter() - began) * 1000)
    return times


def median(values: list[float]) -> float:
    return statistics.median(values)
