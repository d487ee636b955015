"""wherry beside Docker: load, save, push, pull and removal of an image of 440 MB, and the daemon's memory. See
script/bench --images. Run it where the Docker's loopback is: the registry listens there, and again beside wherryd.
"""

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness import Wherryd, matching, median, read

NAME = "wherry-bench-image:1"
PORT = 5067
REMOTE = f"127.0.0.1:{PORT}/bench/image:1"
SOURCES = ("usr/bin", "usr/lib", "usr/share", "usr/include")
LAYERS, BYTES, ENTRIES, LARGEST = 5, 440 << 20, 25_000, 12 << 20


def make_archive(path: Path) -> None:
    """A docker-archive of files of this machine, in five layers."""
    names = sorted(name for name in _files() if os.path.islink(name) or os.path.getsize(name) <= LARGEST)
    step = max(1, len(names) // ENTRIES)
    chosen = names[::step]
    size = sum(os.lstat(name).st_size for name in chosen)
    if size > BYTES:  # the largest go first
        for name in sorted(chosen, key=lambda name: -os.lstat(name).st_size):
            size -= os.lstat(name).st_size
            chosen.remove(name)
            if size <= BYTES:
                break
    layers = [_layer(chosen[at::LAYERS]) for at in range(LAYERS)]
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": digests}}
    members = [(f"{at}.tar", layer) for at, layer in enumerate(layers)]
    item = {"Config": "config.json", "RepoTags": [NAME], "Layers": [name for name, _ in members]}
    with tarfile.open(path, "w") as archive:
        for name, data in (*members, ("config.json", _json(config)), ("manifest.json", _json([item]))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    print(f"image: {len(chosen)} entries, {size / 1e6:.0f} MB in {LAYERS} layers", flush=True)


def _files() -> list[str]:
    return [os.path.join(at, name) for top in SOURCES for at, _, names in os.walk(f"/{top}") for name in names]


def _layer(names: list[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in names:
            archive.add(name, recursive=False)
    return out.getvalue()


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


class Registry:
    """The same registry on the loopback of Docker and of wherryd."""

    def __init__(self, root: Path, netns: str) -> None:
        self.data = root / "registry"
        self.data.mkdir()
        configuration = root / "registry.yml"
        configuration.write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.data}}}}}\nhttp: {{addr: '127.0.0.1:{PORT}'}}\n"
        )
        command = ["docker-registry", "serve", str(configuration)]
        prefixes = ([], ["nsenter", f"--net=/run/netns/{netns}"])
        self.processes = [subprocess.Popen([*prefix, *command], stderr=subprocess.DEVNULL) for prefix in prefixes]
        time.sleep(1)

    def empty(self) -> None:
        for path in self.data.iterdir():
            shutil.rmtree(path)

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait()


class Bench:
    """`jobs` are given in pairs: what to do first, untimed, and what is measured."""

    def __init__(self, options: argparse.Namespace, wherryd: Wherryd, registry: Registry, archive: str) -> None:
        self.hosts = {"docker": options.docker, "wherry": wherryd.host}
        self.n: int = options.n
        self.only: str = options.only
        self.wherryd = wherryd
        self.registry = registry
        self.archive = archive
        self.pattern: str = options.docker_processes

    def docker(self, host: str, *words: str, check: bool = True) -> None:
        with open(os.devnull, "wb") as sink:
            subprocess.run(["docker", "-H", host, *words], stdout=sink, stderr=None if check else sink, check=check)

    def drop(self, host: str) -> None:
        self.docker(host, "rmi", "-f", NAME, REMOTE, check=False)
        os.sync()

    def have(self, host: str, name: str = NAME) -> None:
        """Have the image under `name`, by load."""
        if subprocess.run(["docker", "-H", host, "image", "inspect", name], capture_output=True).returncode:
            self.docker(host, "load", "-q", "-i", self.archive)
            self.docker(host, "tag", NAME, name)

    def pair(self, what: str, bar: float, prepare: Callable[[str], None], job: Callable[[str], None]) -> None:
        if not re.search(self.only, what):
            return
        times: dict[str, list[float]] = {name: [] for name in self.hosts}
        costs: dict[str, list[float]] = {name: [] for name in self.hosts}
        for i in range(self.n):
            for name in sorted(self.hosts, reverse=bool(i % 2)):
                prepare(self.hosts[name])
                cost, began = self.cpu_s(name), time.perf_counter()
                job(self.hosts[name])
                times[name].append(time.perf_counter() - began)
                costs[name].append(self.cpu_s(name) - cost)
        self.row(what, *(median(times[name]) for name in self.hosts), bar)
        self.row(f"{what}: processor time of the daemon", *(median(costs[name]) for name in self.hosts), None)

    def row(self, what: str, docker: float, wherry: float, bar: float | None) -> None:
        goal = "" if bar is None else f"{bar} ×"
        print(f"| {what} | {docker:.2f} s | {wherry:.2f} s | {wherry / docker:.2f} × | {goal} |", flush=True)

    def cpu_s(self, name: str) -> float:
        """Processor time so far of all processes of an engine that live."""
        pids = self.wherryd.pids() if name == "wherry" else matching(self.pattern)
        fields = [read(f"/proc/{pid}/stat").rpartition(b")")[2].split() for pid in pids]
        return sum(int(found[11]) + int(found[12]) for found in fields if found) / os.sysconf("SC_CLK_TCK")

    def run(self) -> None:
        print("| what | Docker | wherry | ratio | goal |\n| --- | --- | --- | --- | --- |")
        load = ("load", "-q", "-i", self.archive)
        self.pair("load", 0.3, self.drop, lambda host: self.docker(host, *load))
        self.pair("save", 0.2, self.have, lambda host: self.docker(host, "save", NAME))
        self.pair("push of a loaded image", 0.2, self.loaded, lambda host: self.docker(host, "push", "-q", REMOTE))
        self.publish()
        self.pair("pull", 0.35, self.drop, lambda host: self.docker(host, "pull", "-q", REMOTE))
        self.pair("push of a pulled image", 0.2, self.pulled, lambda host: self.docker(host, "push", "-q", REMOTE))
        self.publish()
        self.pair("rmi", 0.5, self.pulled_alone, lambda host: self.docker(host, "rmi", REMOTE))
        self.memory()

    def loaded(self, host: str) -> None:
        self.drop(host)
        self.have(host, REMOTE)
        self.registry.empty()
        os.sync()

    def publish(self) -> None:
        """Have Docker's form of the image in the registry, gzip as it makes it."""
        self.registry.empty()
        self.have(self.hosts["docker"], REMOTE)
        self.docker(self.hosts["docker"], "push", "-q", REMOTE)
        self.kept = {path: path.read_bytes() for path in self.registry.data.rglob("*") if path.is_file()}

    def pulled_alone(self, host: str) -> None:
        self.drop(host)
        self.restore()
        self.docker(host, "pull", "-q", REMOTE)
        os.sync()

    def pulled(self, host: str) -> None:
        self.pulled_alone(host)
        self.registry.empty()

    def restore(self) -> None:
        for path, data in self.kept.items():
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def memory(self) -> None:
        assert self.wherryd.process
        peak = re.search(rb"VmHWM:\s+(\d+)", read(f"/proc/{self.wherryd.process.pid}/status"))
        assert peak
        print(f"| peak memory of wherryd (RSS) | – | {int(peak[1]) / 1024:.0f} MiB | | 150 MB |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--docker", default="unix:///var/run/docker.sock", help="the Docker to compare with")
    parser.add_argument("--docker-processes", default=r"^dockerd|^containerd", help="regex of its processes")
    parser.add_argument("--disk", help="directory for wherry's data root (a journaled file system)")
    parser.add_argument("--archive", help=f"a docker-archive of {NAME}; made of this machine's files when not given")
    parser.add_argument("--only", default="", help="regex of what to measure")
    parser.add_argument("-n", type=int, default=3, help="repetitions")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # by way of what clears up
    wherryd = Wherryd(options.disk)
    scratch = Path(tempfile.mkdtemp(prefix="wherry-bench-", dir=options.disk))
    registry = Registry(scratch, wherryd.netns)
    try:
        archive = options.archive or str(scratch / "image.tar")
        if not options.archive:
            make_archive(Path(archive))
        bench = Bench(options, wherryd, registry, archive)
        bench.run()
    finally:
        for host in (options.docker, wherryd.host):
            subprocess.run(["docker", "-H", host, "rmi", "-f", NAME, REMOTE], capture_output=True)
        registry.close()
        wherryd.close()
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
