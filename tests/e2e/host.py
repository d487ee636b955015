"""A test host: a network namespace without an uplink, a wherryd in it with its own roots, the clients, a leak check."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mounted import detach_below, mounted_below

# fmt: off
APPLETS = (
    "sh", "true", "false", "sleep", "cat", "echo", "ls", "id", "env", "ps", "head", "seq", "wc", "nc", "httpd",
    "wget", "kill", "trap", "tty", "stty", "dd", "hostname", "mount", "grep", "touch", "mkdir", "rm", "ip", "yes",
    "date", "sha256sum", "stat", "printf", "tail", "test", "chmod", "ln", "readlink", "pwd", "nslookup", "ping",
)
# fmt: on


def busybox_tar() -> bytes:
    """A root file system of busybox alone, as a tar archive."""
    busybox = shutil.which("busybox")
    assert busybox, "busybox-static is installed by script/test"
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name in ("bin", "etc", "proc", "sys", "dev", "var", "root", "www"):
            (root / name).mkdir()
        (root / "tmp").mkdir(mode=0o1777)
        (root / "tmp").chmod(0o1777)
        shutil.copy(busybox, root / "bin/busybox")
        for applet in APPLETS:
            (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        (root / "www/index.html").write_text("hello from inside\n")
        return subprocess.run(["tar", "-C", directory, "-c", "."], check=True, capture_output=True).stdout


def connected(client: subprocess.Popen) -> bool:
    """Whether a client has a socket; its standard streams are pipes."""
    descriptors = f"/proc/{client.pid}/fd"
    try:
        return any(os.readlink(f"{descriptors}/{fd}").startswith("socket:") for fd in os.listdir(descriptors))
    except OSError:
        return False


class Engine:
    """An engine somebody else runs: the clients that talk to it from inside its network namespace."""

    def __init__(self, netns: str, address: str = "") -> None:
        self.netns = netns
        self.root = Path(tempfile.mkdtemp(prefix="wherry-test-", dir="/tmp"))
        self.address = address or f"unix://{self.root}/wherry.sock"

    def log(self) -> str:
        return ""

    def close(self) -> None:
        shutil.rmtree(self.root)

    # clients

    def run(self, *command: str, check: bool = True, timeout: float = 60, **options) -> subprocess.CompletedProcess:
        """A command in the host's network namespace, talking to the engine; text output captured."""
        result = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.netns}", *command],
            **({"capture_output": True, "text": True, "timeout": timeout, "env": self.environment()} | options),
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{command}: exit {result.returncode}\n{result.stdout}\n{result.stderr}\n{self.log()}")
        return result

    def popen(self, *command: str, **options) -> subprocess.Popen:
        return subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.netns}", *command],
            **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.environment()} | options),
        )

    def environment(self) -> dict[str, str]:
        return os.environ | {"DOCKER_HOST": self.address, "DOCKER_CONFIG": str(self.root / "config")}

    def docker(self, *words: str, **options) -> subprocess.CompletedProcess:
        return self.run("docker", *words, **options)

    def wherry(self, *words: str, **options) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "wherry.cli.main", *words, **options)

    def out(self, *words: str, **options) -> str:
        """The stripped standard output of a docker command."""
        return str(self.docker(*words, **options).stdout).strip()

    def api(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        """One raw API request: (status, decoded body)."""
        command = ["curl", "-s", "--max-time", "30", "-X", method, "-w", "\n%{http_code}"]
        command += ["--unix-socket", self.address.removeprefix("unix://"), f"http://localhost{path}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        text, _, status = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rpartition("\n")
        return int(status), json.loads(text) if text.strip() else None

    def inspect(self, name: str) -> dict:
        return json.loads(self.out("inspect", name))[0]

    def cgroup_files(self, pid: int):
        """A reader of the cgroup files of a process: `(v1 "controller/file", v2 "file")` → content."""
        lines = Path(f"/proc/{pid}/cgroup").read_text().split()
        groups = {name: path for line in lines for _, names, path in [line.split(":", 2)] for name in names.split(",")}

        def read(v1: str, v2: str) -> str:
            controller, file = v1.split("/")
            path = f"{controller}{groups[controller]}/{file}" if controller in groups else f"{groups['']}/{v2}"
            return Path(f"/sys/fs/cgroup/{path}").read_text().strip()

        return read

    def import_busybox(self, name: str = "busybox") -> None:
        self.docker("import", "-", name, input=busybox_tar(), text=False)

    def wait_until(self, condition, what: str, timeout: float = 60):
        """Poll `condition` until it is true and return its value."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < deadline, f"{what} did not happen\n{self.log()}"
            time.sleep(0.02)
        return value


class Host(Engine):
    """One machine with one engine. `docker(...)` runs the real CLI, `wherry(...)` ours, both inside the namespace."""

    count = 0
    wrapper: tuple[str, ...] = ()
    """What runs the daemon's command line."""

    def __init__(self, *flags: str) -> None:
        Host.count += 1
        self.cgroup = f"/wherry-test-{os.getpid()}-{Host.count}"
        self.flags = ("--cgroup-parent", self.cgroup, *flags)
        netns = f"wherry-test-{os.getpid()}-{Host.count}"
        super().__init__(netns)
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True)
        self.daemon: subprocess.Popen[bytes] | None = None

    # the daemon

    def start(self, failpoint: str = "", may_die: bool = False) -> "Host":
        """Start the daemon and wait until it answers (or has died, where that may be); its stderr goes to
        `<root>/wherryd.log`."""
        with open(self.root / "wherryd.log", "ab") as log:
            self.daemon = subprocess.Popen(
                [
                    *self.wrapper,
                    *("nsenter", f"--net=/run/netns/{self.netns}", sys.executable, "-m", "wherry.daemon.main"),
                    *("--host", self.address, "--pidfile", str(self.root / "pid"), *self.flags),
                    *("--data-root", str(self.root / "data"), "--exec-root", str(self.root / "run")),
                ],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=os.environ | {"WHERRY_FAILPOINT": failpoint},
            )
        deadline = time.monotonic() + 60  # twenty do not suffice in an emulated guest
        while not self.answers():
            if self.daemon.poll() is not None:
                assert may_die, self.log()
                break
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)
        return self

    def answers(self) -> bool:
        command = [
            "curl",
            "-sf",
            "--max-time",
            "5",
            "--unix-socket",
            f"{self.root}/wherry.sock",
            "http://localhost/_ping",
        ]
        return subprocess.run(command, capture_output=True).stdout == b"OK"

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """End the daemon; return its exit code. The containers go on."""
        assert self.daemon
        self.daemon.send_signal(sig)
        return self.daemon.wait(60)

    def log(self) -> str:
        return (self.root / "wherryd.log").read_text()[-4000:]

    def layers(self) -> list[str]:
        """The unpacked layers on its disk."""
        return os.listdir(self.root / "data" / "layers")

    # the end

    def leaks(self) -> list[str]:
        """What of this host is still in the kernel although no container runs."""
        marker = str(self.root).encode()
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            if (marker in line or marker in environment) and int(pid) not in self._own_pids():
                found.append(f"process {pid}: {line!r}")
        layers = str(self.root / "run" / "layers")  # mounted as long as the daemon runs, and by intent
        found += [f"mount {path}" for path in mounted_below(self.root) if os.path.dirname(path) != layers]
        found += [f"cgroup {path}" for parent in self._cgroup_parents() for path in parent.iterdir() if path.is_dir()]
        links = json.loads(self.run("ip", "-j", "link").stdout)
        found += [f"link {link['ifname']}" for link in links if link.get("link_type") == "ether" and "master" in link]
        containers = self.root / "run" / "containers"
        found += [f"bundle {path}" for path in (containers.iterdir() if containers.exists() else ())]
        pins = self.root / "run" / "netns"
        found += [f"pin {path}" for path in (pins.iterdir() if pins.exists() else ())]
        return found

    def _own_pids(self) -> set[int]:
        """The daemon and what it runs: the spawner, whichever of its threads started it."""
        daemon = self.daemon.pid if self.daemon else 0
        children = Path(f"/proc/{daemon}/task").glob("*/children")
        return {daemon, *(int(pid) for file in children for pid in file.read_text().split())}

    def _cgroup_parents(self) -> list[Path]:
        """The directories of our cgroup parent, in every hierarchy."""
        base = Path("/sys/fs/cgroup")
        return [p for p in (base / self.cgroup[1:], *base.glob(f"*{self.cgroup}")) if p.is_dir()]

    def close(self) -> None:
        """Remove every container, end the daemon, delete the namespace and the files."""
        if self.daemon and self.daemon.poll() is not None:
            self.start()
        try:
            names = self.out("ps", "-aq").split()
            if names:
                self.docker("rm", "-f", *names)
            self.wait_until(lambda: not self.leaks(), f"the end of {self.leaks()}")
        finally:
            self.stop()
            left = mounted_below(self.root)
            detach_below(self.root)
            assert not left, left
            for parent in self._cgroup_parents():
                parent.rmdir()
            subprocess.run(["ip", "netns", "del", self.netns], check=True)
            shutil.rmtree(self.root)
