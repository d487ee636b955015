"""wherry beside Docker: run, exec, API cycles, density, memory, start-up, the OCI runtime. See script/bench."""

import argparse
import asyncio
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import API, Wherryd, alternate, in_parallel, matching, median, processor_s, pss_kib

from wherry.runtime.client import Spawner

IMAGE = "wherry-bench-busybox"
LOG_MB, STREAM_MB, COPY_FILES = 100, 500, 10_000
CONTAINERS, CLIENTS, IDLE_S = 100, 8, 20
Rows = list[dict[str, object]]


def sh(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def busybox_root(root: Path) -> None:
    """A root file system of busybox alone."""
    for name in ("bin", "tmp", "etc", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, root / "bin/busybox")
    for applet in ("sh", "true", "sleep", "cat", "echo", "yes", "head"):
        (root / "bin" / applet).symlink_to("busybox")


def import_image(host: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        busybox_root(Path(directory))
        tar = subprocess.Popen(["tar", "-C", directory, "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(["docker", "-H", host, "import", "-", IMAGE], stdin=tar.stdout, check=True, capture_output=True)
        tar.wait()


def api_cycle(path: str, network: str) -> Callable[[], None]:
    """create + start + wait + remove over one raw connection."""
    api = API(path)
    body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": network}}

    def cycle() -> None:
        status, reply = api.call("POST", "/v1.41/containers/create", body)
        assert status == 201, reply
        container = json.loads(reply)["Id"]
        for method, verb, expected in (("POST", "/start", 204), ("POST", "/wait", 200), ("DELETE", "", 204)):
            status, reply = api.call(method, f"/v1.41/containers/{container}{verb}", {} if method == "POST" else None)
            assert status == expected, reply

    return cycle


class WarmRuntime:
    """The runtime as the engine has it: a spawner that is there, a monitor for each container."""

    def __init__(self, bundle: Path, spec: dict[str, object]) -> None:
        self.bundle, self.spec = bundle, spec
        self.loop = asyncio.new_event_loop()
        self.count = 0

    def __enter__(self) -> "WarmRuntime":
        self.spawner = self.loop.run_until_complete(Spawner.launch(str(self.bundle / "spawner.log")))
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run_until_complete(self.spawner.close())
        self.loop.close()

    def run(self) -> None:
        self.loop.run_until_complete(self._run())

    async def _run(self) -> None:
        self.count += 1
        identity = f"bench-warm-{os.getpid()}-{self.count}"
        home = self.bundle / identity
        home.mkdir()
        exited: asyncio.Future[dict[str, object]] = self.loop.create_future()
        request = {
            "id": identity,
            "bundle": str(self.bundle),
            "config": self.spec | {"linux": self.spec["linux"] | {"cgroupsPath": f"/wherry-bench/{identity}"}},
            "rootfs_mounts": [],
            "seccomp_filter": None,
            "stdio": {"tty": False, "open_stdin": False, "stdin_once": False},
            "log": {"driver": "none", "path": ""},
            "socket": str(home / "monitor.sock"),
            "exit_record": str(home / "exit.json"),
            "console_size": None,
            "start": True,
        }
        monitor = await self.spawner.create(request, [], lambda _, event: exited.set_result(event))
        assert (await exited)["exit_code"] == 0
        await monitor.close()


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.n: int = options.n
        self.docker: str = options.docker
        self.pattern: str = options.docker_processes
        self.runc: str | None = options.runc
        self.wherryd = Wherryd(options.disk)
        self.rows: Rows = []

    def row(self, what: str, docker: float | None, wherry: float, unit: str, bar: float | None) -> None:
        ratio = wherry / docker if docker else None
        self.rows.append({"what": what, "docker": docker, "wherry": wherry, "unit": unit, "ratio": ratio, "bar": bar})
        shown = "–" if docker is None else f"{docker:.4g}"
        print(f"| {what} | {shown} {unit} | {wherry:.4g} {unit} | {f'{ratio:.3f} ×' if ratio else '–'} | {bar or ''} |")

    def pair(self, what: str, docker: Callable[[], object], wherry: Callable[[], object], bar: float) -> None:
        times = alternate({"docker": docker, "wherry": wherry}, self.n)
        self.row(what, median(times["docker"]), median(times["wherry"]), "ms", bar)

    def run_docker_cli(self) -> None:
        words = ("run", "--rm", IMAGE, "true")
        self.pair(
            "`docker run --rm busybox true`, bridge, docker CLI on both",
            lambda: sh("docker", "-H", self.docker, *words),
            lambda: sh("docker", "-H", self.wherryd.host, *words),
            0.35,
        )

    def run_own_cli(self) -> None:
        words = ("run", "--rm", IMAGE, "true")
        self.pair(
            "`wherry run --rm busybox true` against `docker run` on Docker",
            lambda: sh("docker", "-H", self.docker, *words),
            lambda: sh("wherry", "-H", self.wherryd.host, *words),
            0.25,
        )

    def api_cycles(self) -> None:
        for network in ("none", "bridge"):
            self.pair(
                f"create + start + wait + remove, raw API, net {network}",
                api_cycle(self.docker.removeprefix("unix://"), network),
                api_cycle(self.wherryd.socket, network),
                0.15,
            )

    def exec_true(self) -> None:
        hosts = {"docker": self.docker, "wherry": self.wherryd.host}
        for host in hosts.values():
            sh("docker", "-H", host, "run", "-d", "--name", "bench-exec", IMAGE, "sleep", "100000")
        try:
            words = ("exec", "bench-exec", "true")
            reference = lambda: sh("docker", "-H", self.docker, *words)  # noqa: E731 - the same job in two pairs
            own = lambda: sh("docker", "-H", self.wherryd.host, *words)  # noqa: E731
            self.pair("`exec CTR true`, docker CLI on both", reference, own, 0.6)
            self.pair("`exec CTR true`, our CLI", reference, lambda: sh("wherry", "-H", self.wherryd.host, *words), 0.4)
        finally:
            for host in hosts.values():
                sh("docker", "-H", host, "rm", "-f", "bench-exec")

    def stream(self, what: str, bar: float, megabytes: int, prepare: str, *words: str, stdin: bool = False) -> None:
        """MB/s of a docker command that moves `megabytes`; `prepare` names a container to remove before each run."""
        source = self.wherryd.root / "input"
        if stdin and not source.exists():
            source.write_bytes(os.urandom(1_000_000) * STREAM_MB)

        def job(host: str) -> Callable[[], None]:
            def run() -> None:
                if prepare:
                    subprocess.run(["docker", "-H", host, "rm", "-f", prepare], check=True, capture_output=True)
                with open(source if stdin else os.devnull, "rb") as file:
                    subprocess.run(["docker", "-H", host, *words], stdin=file, stdout=subprocess.DEVNULL, check=True)

            return run

        jobs: dict[str, Callable[[], object]] = {"docker": job(self.docker), "wherry": job(self.wherryd.host)}
        times = alternate(jobs, min(self.n, 3))
        rate = {name: megabytes * 1000 / median(values) for name, values in times.items()}
        self.row(what, rate["docker"], rate["wherry"], "MB/s", bar)

    def logs(self) -> None:
        """Lines of 34 bytes. The container is named, so that `logs` finds it afterwards."""
        script = f"yes 'the quick brown fox jumps over it' | head -c {LOG_MB}000000"
        create = ("run", "--name", "bench-log", "--net", "none", IMAGE, "sh", "-c")
        quiet = ("run", "--rm", "--net", "none", "--log-opt", "max-size=10g", IMAGE, "sh", "-c", script)
        self.stream(f"{LOG_MB} MB of short lines, attached run", 3, LOG_MB, "", *quiet)
        detached = (*create[:1], "--attach", "stderr", "--log-opt", "max-size=10g", *create[1:], script)
        self.stream(f"{LOG_MB} MB of short lines into json-file", 8, LOG_MB, "bench-log", *detached)
        self.stream(f"`logs` of {LOG_MB} MB of short lines", 20, LOG_MB, "", "logs", "bench-log")
        self.pair(
            f"`logs --tail 10` of {LOG_MB} MB",
            lambda: sh("docker", "-H", self.docker, "logs", "--tail", "10", "bench-log"),
            lambda: sh("docker", "-H", self.wherryd.host, "logs", "--tail", "10", "bench-log"),
            1.0,
        )
        for host in (self.docker, self.wherryd.host):
            sh("docker", "-H", host, "rm", "-f", "bench-log")

    def streams(self) -> None:
        run = ("run", "-i", "--rm", "--net", "none", "--log-driver", "none", IMAGE, "cat")
        self.stream(f"`run -i` of {STREAM_MB} MB through cat, no log", 1.5, STREAM_MB, "", *run, stdin=True)
        for host in (self.docker, self.wherryd.host):
            sh("docker", "-H", host, "run", "-d", "--name", "bench-cat", "--net", "none", IMAGE, "sleep", "100000")
        words = ("exec", "-i", "bench-cat", "cat")
        self.stream(f"`exec -i` of {STREAM_MB} MB through cat", 1.5, STREAM_MB, "", *words, stdin=True)
        for host in (self.docker, self.wherryd.host):
            sh("docker", "-H", host, "rm", "-f", "bench-cat")

    def copies(self) -> None:
        """`docker cp` of one large file and of many small ones, in and out, same CLI on both."""
        here = self.wherryd.root / "copies"
        (here / "many").mkdir(parents=True)
        (here / "large").write_bytes(os.urandom(1_000_000) * STREAM_MB)
        for at in range(COPY_FILES):
            directory = here / "many" / str(at % 100)
            directory.mkdir(exist_ok=True)
            (directory / str(at)).write_bytes(b"x" * 2000)
        for host in (self.docker, self.wherryd.host):
            sh("docker", "-H", host, "run", "-d", "--name", "bench-cp", "--net", "none", IMAGE, "sleep", "100000")
        for what, name in ((f"`cp` of {STREAM_MB} MB", "large"), (f"`cp` of {COPY_FILES} files", "many")):
            into = self.copy_times(str(here / name), f"bench-cp:/tmp/{name}-")
            out = self.copy_times(f"bench-cp:/tmp/{name}-1", str(here / f"{name}-"))
            for direction, times in (("in", into), ("out", out)):
                docker, wherry = median(times["docker"]) / 1000, median(times["wherry"]) / 1000
                if name == "large":
                    self.row(f"{what}, {direction}", STREAM_MB / docker, STREAM_MB / wherry, "MB/s", 1.3)
                else:
                    self.row(f"{what}, {direction}", docker, wherry, "s", 0.4)
        for host in (self.docker, self.wherryd.host):
            sh("docker", "-H", host, "rm", "-f", "bench-cp")
        shutil.rmtree(here)

    def copy_times(self, source: str, target: str) -> dict[str, list[float]]:
        """Milliseconds of each run of `cp`, which makes something new that `target` begins the name of."""

        def job(host: str) -> Callable[[], None]:
            numbers = itertools.count()
            word = "docker" if host == self.docker else "wherry"
            name = target if ":" in target else f"{target}{word}-"
            return lambda: sh("docker", "-H", host, "cp", "-q", source, f"{name}{next(numbers)}")

        return alternate({"docker": job(self.docker), "wherry": job(self.wherryd.host)}, min(self.n, 3))

    def churn(self) -> None:
        """Many clients at a time: containers a second."""
        hosts = {"docker": self.docker, "wherry": self.wherryd.host}
        words = ("run", "--rm", "--net", "none", IMAGE, "true")
        for what, bar, job in (
            (
                "create + start + wait + remove, raw API",
                6.0,
                lambda host: api_cycle(host.removeprefix("unix://"), "none"),
            ),
            ("`docker run --rm`, docker CLI on both", 3.0, lambda host: lambda: sh("docker", "-H", host, *words)),
        ):
            rates: dict[str, list[float]] = {name: [] for name in hosts}
            for i in range(min(self.n, 3)):
                for name in sorted(hosts, reverse=bool(i % 2)):
                    rates[name].append(in_parallel(partial(job, hosts[name]), CONTAINERS, CLIENTS))
            what = f"{CONTAINERS} × {what}, {CLIENTS} clients, net none"
            self.row(what, median(rates["docker"]), median(rates["wherry"]), "/s", bar)

    def many(self) -> None:
        """With many containers running: the list, what they cost while nothing happens, and a restart."""
        names = [f"bench-many-{i}" for i in range(CONTAINERS)]
        hosts = {"docker": self.docker, "wherry": self.wherryd.host}
        for host in hosts.values():
            for name in names:
                sh("docker", "-H", host, "run", "-d", "--net", "none", "--name", name, IMAGE, "sleep", "100000")
        try:
            self.pair(
                f"`docker ps` with {CONTAINERS} running",
                lambda: sh("docker", "-H", self.docker, "ps"),
                lambda: sh("docker", "-H", self.wherryd.host, "ps"),
                1.0,
            )
            self.idle()
            starts = []
            for _ in range(3):
                self.wherryd.stop()
                starts.append(self.wherryd.start())
                found = json.loads(API(self.wherryd.socket).call("GET", "/v1.41/containers/json")[1])
                assert len(found) == CONTAINERS
            self.row(f"daemon restart that finds {CONTAINERS} containers", None, median(starts), "s", 2.0)
        finally:
            for host in hosts.values():
                sh("docker", "-H", host, "rm", "-f", *names)

    def idle(self) -> None:
        """The processor time of all engine processes, in percent of one core."""
        time.sleep(3)
        pids = {"docker": matching(self.pattern), "wherry": self.wherryd.pids()}
        before = {name: processor_s(found) for name, found in pids.items()}
        time.sleep(IDLE_S)
        used = {name: (processor_s(found) - before[name]) * 100 / IDLE_S for name, found in pids.items()}
        self.row(f"idle processor time with {CONTAINERS} containers", used["docker"], used["wherry"], "%", 1.0)

    def density(self) -> None:
        count = 100
        figures: dict[str, tuple[float, float]] = {}
        for engine, host in (("docker", self.docker), ("wherry", self.wherryd.host)):
            names = [f"bench-idle-{i}" for i in range(count)]
            before = self.memory(engine)
            began = time.perf_counter()
            for name in names:
                sh("docker", "-H", host, "run", "-d", "--name", name, IMAGE, "sleep", "100000")
            wall = time.perf_counter() - began
            time.sleep(1)
            figures[engine] = (wall, (self.memory(engine) - before) / count)
            sh("docker", "-H", host, "rm", "-f", *names)
        self.row(f"start {count} idle containers, bridge", figures["docker"][0], figures["wherry"][0], "s", 0.25)
        self.row("engine PSS per idle container", figures["docker"][1], figures["wherry"][1], "KiB", None)

    def memory(self, engine: str) -> float:
        return pss_kib(self.wherryd.pids() if engine == "wherry" else matching(self.pattern))

    def daemon(self) -> None:
        starts = []
        for _ in range(5):
            self.wherryd.stop()
            starts.append(self.wherryd.start())
        time.sleep(1)
        self.row("daemon PSS idle", self.memory("docker") / 1024, self.memory("wherry") / 1024, "MiB", None)
        self.row("start to first /_ping", None, median(starts), "s", None)

    def oci(self) -> None:
        if not self.runc:
            return
        bundle = Path(tempfile.mkdtemp(prefix="wherry-bench-"))
        try:
            busybox_root(bundle / "rootfs")
            sh("wherry-runtime", "spec", "--bundle", str(bundle))
            spec = json.loads((bundle / "config.json").read_text())
            spec["process"] |= {"terminal": False, "args": ["/bin/true"]}
            (bundle / "config.json").write_text(json.dumps(spec))
            run = ("run", "--bundle", str(bundle))
            reference = lambda: sh(str(self.runc), *run, f"bench-runc-{os.getpid()}")  # noqa: E731 - for two pairs
            cold = lambda: sh("wherry-runtime", *run, f"bench-wherry-{os.getpid()}")  # noqa: E731
            self.pair("OCI `run` of /bin/true: `wherry-runtime` cold against runc", reference, cold, 2.0)
            with WarmRuntime(bundle, spec) as warm:
                self.pair("OCI `run` of /bin/true: through the spawner against runc", reference, warm.run, 0.4)
        finally:
            shutil.rmtree(bundle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docker", default="unix:///var/run/docker.sock", help="the Docker to compare with")
    parser.add_argument(
        "--docker-processes", default=r"^dockerd|containerd|docker-proxy", help="regex of its processes"
    )
    parser.add_argument("--disk", help="directory for wherry's data root (a journaled file system)")
    parser.add_argument("--runc", help="path of runc")
    parser.add_argument("--only", default="", help="regex of benchmark names")
    parser.add_argument("-n", type=int, default=15, help="repetitions")
    parser.add_argument("--json", help="append the rows to this file, one JSON object a line")
    options = parser.parse_args()
    bench = Bench(options)
    try:
        for host in (options.docker, bench.wherryd.host):
            import_image(host)
        print("| what | Docker | wherry | ratio | bar |\n| --- | --- | --- | --- | --- |")
        for name in (
            "run_docker_cli",
            "run_own_cli",
            "api_cycles",
            "exec_true",
            "logs",
            "streams",
            "copies",
            "daemon",
            "density",
            "churn",
            "many",
            "oci",
        ):
            if re.search(options.only, name):
                getattr(bench, name)()
    finally:
        subprocess.run(["docker", "-H", options.docker, "rmi", "-f", IMAGE], stdout=subprocess.DEVNULL, check=False)
        bench.wherryd.close()
    if options.json:
        with open(options.json, "a") as file:
            file.writelines(json.dumps(row | {"load": os.getloadavg()[0]}) + "\n" for row in bench.rows)


if __name__ == "__main__":
    main()
